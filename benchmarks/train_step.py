"""Images/s of one whole training step: ours as configured, ours in eager fp32, and networks of other repositories.

    python benchmarks/train_step.py network=unet_cifar batch=128 [more overrides of smallbatch train]
        [guided_diffusion=FOLDER] [improved_diffusion=FOLDER] [edm=FOLDER] [steps=10] [rounds=12]

A step draws times and noise, goes forward and backward, clips, and updates the weights and their averages, on one
random batch that stays on the device. All run in one process and take turns of `steps` steps, so that whatever else
the machine does slows all alike. Images have as many pixels a side as the network's name ends in, else 32, or
data.size. Where there is a GPU, `trainer=gpu` is understood.

FOLDER is a checkout of that public repository. Its network is imported from there, built with the flags that correspond
to ours, and put through the same step, eagerly: in fp32, and where ours is bf16 also in its own fp16.
"""

import re
import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from learner import Learner
from omegaconf import DictConfig, OmegaConf
from peers import PEERS

from smallbatch.callbacks.speed import peak_flops
from smallbatch.cli import plan
from smallbatch.cli.main import conf_dir
from smallbatch.data.images import shrunk
from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.masking import Unmasked
from smallbatch.notation import Batch, Condition, ImageSpec

CLASSES = 1000
WARM_UP = 3  # steps
Build = Callable[..., Denoiser]


class Contender(Learner):
    """A network, its optimizer and its averages under the training step; warmed up when made."""

    def __init__(self, name: str, config: DictConfig, denoiser: Denoiser, batch: Batch, autocast: bool = False):
        device = batch.x0.device
        before = torch.cuda.memory_allocated(device) if batch.x0.is_cuda else 0
        module = instantiate(config.run.module, _convert_="all")(denoiser=denoiser.to(device))
        averages = list(instantiate(config.ema, _convert_="all").averages.values())
        super().__init__(module, averages, batch, autocast, progress=0.0)
        self.turn(WARM_UP)
        self.name = name
        self.rates: list[float] = []  # images/s of every turn
        self.peak: int | None = None  # bytes, less what the contenders before hold
        if batch.x0.is_cuda:
            torch.cuda.reset_peak_memory_stats(device)
            self.turn(1)
            self.peak = torch.cuda.max_memory_allocated(device) - before

    def rate(self, steps: int) -> float:
        """Images/s."""
        return len(self.batch.x0) / self.turn(steps)


class Words(NamedTuple):
    """The command line, less what `smallbatch train` understands."""

    peers: dict[str, str]
    steps: int
    rounds: int


def split(words: list[str]) -> tuple[Words, list[str]]:
    own = {name: value for name, _, value in (w.partition("=") for w in words) if name in (*PEERS, "steps", "rounds")}
    rest = [word for word in words if word.partition("=")[0] not in own]
    sizes = [found[1] for word in rest if (found := re.match(r"network=\w*?(\d+)$", word))]
    first = ["data=images", f"data.size={sizes[-1] if sizes else 32}"]
    gpu = ["trainer=gpu"] if torch.cuda.is_available() else []
    return Words(own, int(own.pop("steps", 10)), int(own.pop("rounds", 12))), [*first, *gpu, *rest]


def synthetic(spec: ImageSpec, rows: int, device: torch.device) -> Batch:
    x0 = torch.rand(rows, spec.channels, spec.size, spec.size, device=device) * 2 - 1
    image = None if spec.low_size is None else shrunk(x0, spec.low_size)
    return Batch(x0, Condition(torch.randint(CLASSES, (rows,), device=device), image=image))


def ours(config: DictConfig, build: Build, batch: Batch) -> list[Contender]:
    """As configured, and in eager fp32."""
    asked, autocast = build(), config.precision == "bf16"
    words = [config.precision, "compiled" if config.compile else "eager"]
    if config.channels_last:
        asked.network.to(memory_format=torch.channels_last)
        words.append("channels_last")
    if config.compile:
        asked.network.compile()
    made = Contender(f"ours as configured, {' '.join(words)}", config, asked, batch, autocast)
    return [made, Contender("ours, fp32 eager", config, build(), batch)]


def theirs(config: DictConfig, build: Build, batch: Batch, peers: dict[str, str]) -> list[Contender]:
    flags = OmegaConf.to_container(config.network, resolve=True)
    if peers and not flags["_target_"].endswith(".UNet"):
        raise UserError(f"{', '.join(peers)} correspond to our U-Net: choose network=unet or one of its kind")
    made = []
    for name, folder in peers.items():
        for half in (False, True) if config.precision == "bf16" else (False,):
            peer = build(network=partial(PEERS[name], folder=folder, ours=flags, half=half))
            made.append(Contender(f"{name}, {'fp16' if half else 'fp32'} eager", config, peer, batch))
    return made


def ratio(a: Contender, b: Contender) -> str:
    ratios = [x / y for x, y in zip(a.rates, b.rates, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return f"ratio {median:.3f}  (middle half {low:.3f}..{high:.3f} of {len(ratios)} pairs)  {a.name} / {b.name}"


def row(contender: Contender, flops: int) -> str:
    """`flops` are our network's: a peer of the same size does the same work."""
    rate, device = statistics.median(contender.rates), contender.device
    cells = [f"{contender.name:40}", f"{rate:9.1f} images/s", f"{rate * flops / 1e12:8.2f} TFLOP/s"]
    if contender.peak is not None:
        peak = peak_flops(device, torch.bfloat16)
        cells += [f"{rate * flops / peak:6.1%} of the bf16 peak"] if peak else []
        cells.append(f"{contender.peak / 2**30:6.2f} GiB")
    return "  ".join([*cells, f"{plan.count(contender.module.denoiser.network):,} parameters"])


def synchronisations(contender: Contender, steps: int = 5) -> str:
    """How often, and where, the host waited for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            contender.step()
    torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{w.filename}:{w.lineno}" for w in caught if "synchronizing CUDA operation" in str(w.message))
    where = [f"\n  {count / steps:g} at {place}" for place, count in places.items()]
    return f"{places.total() / steps:g} synchronisations per step, {contender.name}{''.join(where)}"


def main(words: list[str]) -> None:
    own, overrides = split(words)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides)
    cuda = torch.cuda.is_available() and config.trainer.accelerator != "cpu"
    device = torch.device("cuda" if cuda else "cpu")
    spec = ImageSpec(config.data.get("channels", 3), config.data.size, CLASSES, config.data.low_size)
    build = partial(instantiate(config.run.denoiser, _convert_="all"), spec=spec)
    drawn_up = plan.on_meta(build, spec)
    flops, _ = plan.measure(drawn_up, Unmasked())
    batch = synthetic(spec, config.batch, device)
    card = torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{spec.channels}x{spec.size}x{spec.size}, batch {config.batch}, {flops / 1e9:.2f} GFLOP per image, {card}")

    us = asked, eager = ours(config, build, batch)
    them = theirs(config, build, batch, own.peers)
    for _ in range(own.rounds):
        for contender in (*us, *them):
            contender.rates.append(contender.rate(own.steps))
    print(*(row(contender, flops) for contender in (*us, *them)), sep="\n")
    print(*(ratio(asked, other) for other in (eager, *them)), sep="\n")
    print(*(ratio(eager, other) for other in them if "fp32" in other.name), sep="\n")
    if cuda:
        print(synchronisations(asked))


if __name__ == "__main__":
    main(sys.argv[1:])
