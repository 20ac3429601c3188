"""What hiding patches saves: a step's time and memory with a share of the patches hidden, over those with none.

    python benchmarks/masking.py [network=microdit_tiny] [masking=deferred] [ratios=0.5,0.75] [batch=16] [rounds=5]
        [tokens=256,1024] [threads=all] [bf16=false]

The network sees latents of 4 x 32 x 32 and texts of 77 x 1024 features, as MicroDiT at 256 pixels does; none of its
weights is at zero. A turn is one forward and backward pass; another adds AdamW's step, whose cost no mask lowers. Turns
with and without the mask alternate, and each is set against the mean of the dense turns before and after it. FLOPs are
those of convolutions, matrix products and attention, counted on the meta device. What counts is how much of the saved
FLOPs becomes saved time: `of the FLOPs' ratio`. Then the experts' layer of MicroDiT-Tiny alone, on so many tokens of
each image, against the same layer written with dense one-hot products. A quarter of an hour on two cores; on a GPU
seconds, with the peak of its memory.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from smallbatch.cli.building import from_config
from smallbatch.cli.main import conf_dir
from smallbatch.masking import Masking
from smallbatch.networks.bias_free import Start
from smallbatch.networks.experts import ExpertChoice
from smallbatch.networks.network import Network
from smallbatch.notation import Condition, ImageSpec, Keep, Text, TextSpec
from smallbatch.randomness import Step

SPEC = ImageSpec(channels=4, size=32, classes=0, text=TextSpec(length=77, width=1024))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OWN = {"network": "microdit_tiny", "masking": "deferred", "ratios": "0.5,0.75", "batch": "16", "rounds": "5"}
OWN |= {"tokens": "256,1024", "threads": str(torch.get_num_threads()), "bf16": "false"}


class Inputs(NamedTuple):
    x: Tensor
    clock: Tensor
    condition: Condition

    @classmethod
    def on(cls, device: torch.device, batch: int) -> "Inputs":
        shape = (batch, SPEC.text.length)
        text = Text(torch.randn(*shape, SPEC.text.width, device=device), torch.ones(shape, dtype=bool, device=device))
        x = torch.randn(batch, SPEC.channels, SPEC.size, SPEC.size, device=device)
        return cls(x, torch.rand(batch, device=device), Condition(text=text))


def built(name: str, device: torch.device | str) -> Network:
    with torch.device(device):
        network = from_config(compose(f"network/{name}").network)(SPEC, 1)
    for parameter in network.parameters():
        if device != "meta" and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network


def keep_of(name: str, ratio: float, network: Network, inputs: Inputs) -> Keep | None:
    masking: Masking = from_config(compose(f"masking/{name}", [f"masking.ratio={ratio}"]).masking)
    masking.check(network)
    return masking(Step(0, 0, 0, 0.0), inputs.x, network).keep


def flops(network: Network, inputs: Inputs, keep: Keep | None) -> int:
    """Forward and backward, of one image."""
    with FlopCounterMode(display=False) as counter:
        network(*inputs, keep).sum().backward()
    return counter.get_total_flops()


def seconds(turn: Callable[[], None]) -> float:
    sync = torch.cuda.synchronize if DEVICE.type == "cuda" else lambda: None
    sync()
    start = time.perf_counter()
    turn()
    sync()
    return time.perf_counter() - start


def ratio(dense: Callable[[], None], masked: Callable[[], None], rounds: int) -> tuple[float, float]:
    """How many times as long the dense turn takes, and the seconds of a dense one: medians."""
    dense(), masked()
    ratios, before = [], seconds(dense)
    firsts = [before]
    for _ in range(rounds):
        turn, after = seconds(masked), seconds(dense)
        ratios.append(statistics.mean((before, after)) / turn)
        firsts.append(after)
        before = after
    return statistics.median(ratios), statistics.median(firsts)


def kept_bytes(turn: Callable[[], None]) -> int:
    """What the backward pass needs, without the weights; on a GPU the peak of all that was allocated."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        turn()
        return torch.cuda.max_memory_allocated()
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        turn()
    return sum(found.values())


def steps(own: dict[str, str]) -> Iterator[str]:
    network, inputs = built(own["network"], DEVICE), Inputs.on(DEVICE, int(own["batch"]))
    shadow, one = built(own["network"], "meta"), Inputs.on(torch.device("meta"), 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    bf16, rounds = own["bf16"] == "true", int(own["rounds"])

    def turns(keep: Keep | None) -> tuple[Callable[[], None], Callable[[], None]]:
        def passes() -> None:
            network.zero_grad()
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
                loss = network(*inputs, keep).float().square().mean()
            loss.backward()

        def step() -> None:
            passes()
            optimizer.step()

        return passes, step

    dense, whole = turns(None), flops(shadow, one, None)
    weights = sum(p.numel() for p in network.parameters())
    patches, batch = network.side**2, len(inputs.x)
    yield f"{own['network']}: {weights / 1e6:.1f} M parameters, {patches} patches, batch {batch}, {DEVICE}"
    yield f"dense: {whole / 1e9:.1f} GFLOP an image, {kept_bytes(dense[0]) / 2**30:.2f} GiB kept"
    for share in own["ratios"].split(","):
        keep = keep_of(own["masking"], float(share), network, inputs)
        saved = whole / flops(shadow, one, keep._replace(patches=keep.patches[:1].to("meta")))
        pair = turns(keep)
        (passes, first), (step, _) = (ratio(d, m, rounds) for d, m in zip(dense, pair, strict=True))
        yield (
            f"{own['masking']} {share}: FLOPs {saved:.2f} times fewer; forward and backward {passes:.2f} times faster "
            f"({first:.2f} s dense), {passes / saved:.2f} of the FLOPs' ratio; with the optimizer {step:.2f} times "
            f"faster; {kept_bytes(pair[0]) / 2**30:.2f} GiB kept"
        )


def one_hot(layer: ExpertChoice, tokens: Tensor) -> Tensor:
    """The same layer by products with one-hot matrices (b, experts, seats, n), quadratic in the tokens."""
    shares = layer.router(tokens).softmax(dim=2).transpose(1, 2)
    experts, n = shares.shape[1:]
    share, taken = shares.topk(int(layer.capacity * n / experts), dim=2)
    chosen = F.one_hot(taken, n).to(tokens.dtype)
    said = layer.experts(torch.einsum("bekn,bnd->bekd", chosen, tokens))
    return torch.einsum("bekn,bek,bekd->bnd", chosen, share, said)


def backward(form: Callable[[Tensor], Tensor], x: Tensor) -> None:
    form(x).square().mean().backward()


def dispatch(own: dict[str, str]) -> Iterator[str]:
    torch.manual_seed(0)
    layer = ExpertChoice(width=512, hidden=2048, experts=8, capacity=2.0, start=Start(0.02, 0.02)).to(DEVICE)
    for tokens in map(int, own["tokens"].split(",")):
        x = torch.randn(int(own["batch"]), tokens, 512, device=DEVICE)
        apart = (layer(x) - one_hot(layer, x)).abs().max().item()
        ours, dense = (partial(backward, form, x) for form in (layer, partial(one_hot, layer)))
        times, first = ratio(dense, ours, int(own["rounds"]))
        yield (
            f"experts at {tokens} tokens: gathered, {times:.2f} times faster than one-hot products "
            f"({1000 * first:.0f} ms); outputs {apart:.1e} apart"
        )


def main(words: list[str]) -> None:
    own = OWN | dict(word.split("=", 1) for word in words)
    if unknown := own.keys() - OWN.keys():
        raise SystemExit(f"{', '.join(sorted(unknown))}: give {', '.join(OWN)}")
    torch.set_num_threads(int(own["threads"]))
    torch.manual_seed(0)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for line in chain(steps(own), dispatch(own)):
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
