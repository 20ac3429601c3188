"""Whether imported weights do what they do in guided-diffusion: one forward pass, and 10 steps of DDPM and of DDIM.

    GUIDED_DIFFUSION=FOLDER python benchmarks/parity.py [model ...]

FOLDER is a checkout of github.com/openai/guided-diffusion. For every set of flags in its README, at the full size of
the images, its own code builds the model with an eighth of the channels, in all and of each head. Every weight is drawn
at random, saved as a checkpoint and imported by `smallbatch import guided_diffusion`. Both sides then see the same
noise, labels and small images, in float32. Where 32 groups do not divide the channels, which its code refuses, both
take the largest number that divides both; where they do, its code runs as it is.
"""

import argparse
import contextlib
import importlib
import io
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smallbatch.cli import runs
from smallbatch.cli.main import dispatch
from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.notation import Condition, Image
from smallbatch.sampler import Grid, Respaced, Sampler, Strided
from smallbatch.solvers import DDIM, Ancestral, Solver

FRACTION = 8
STEPS = 10
INDICES = (0, 1, 400, 999)  # at which one forward pass is compared


class Published(NamedTuple):
    """A model of the README, as its code understands the flags."""

    name: str
    flags: dict[str, Any]

    @property
    def enlarges(self) -> bool:
        return "large_size" in self.flags

    @property
    def size(self) -> int:
        return self.flags["large_size" if self.enlarges else "image_size"]


def load(folder: str) -> None:
    """Their package, with a number of groups that any width allows."""
    if not (Path(folder) / "guided_diffusion" / "script_util.py").is_file():
        raise UserError(f"GUIDED_DIFFUSION={folder} must be a checkout of github.com/openai/guided-diffusion")
    sys.path.insert(0, str(Path(folder).resolve()))
    unet, layers = theirs("unet"), theirs("nn")
    unet.normalization = lambda channels: layers.GroupNorm32(math.gcd(32, channels), channels)


def theirs(module: str) -> Any:
    return importlib.import_module(f"guided_diffusion.{module}")


def readme(folder: str) -> Iterator[Published]:
    """Each set of flags with the first model that it is shown with."""
    text = (Path(folder) / "README.md").read_text()
    shown = re.findall(r'MODEL_FLAGS="([^"]*)"\npython (\w+)\.py .*--model_path models/(\w+)\.pt', text)
    for words, script, name in shown:
        yield Published(name, flags("sr_" if script == "super_res_sample" else "", words))


def flags(kind: str, words: str) -> dict[str, Any]:
    scripts, parser = theirs("script_util"), argparse.ArgumentParser()
    scripts.add_dict_to_argparser(parser, getattr(scripts, f"{kind}model_and_diffusion_defaults")())
    known = vars(parser.parse_args(words.split())) | {"use_fp16": False}
    for width in ("num_channels", "num_head_channels"):
        known[width] = known[width] // FRACTION if known[width] > 0 else known[width]
    return known


def built(model: Published, respacing: str) -> tuple[nn.Module, Any]:
    """Their network, and their diffusion over some of its steps."""
    scripts = theirs("script_util")
    make = scripts.sr_create_model_and_diffusion if model.enlarges else scripts.create_model_and_diffusion
    network, diffusion = make(**model.flags | {"timestep_respacing": respacing})
    return network.eval(), diffusion


@torch.no_grad()
def randomise(network: nn.Module) -> None:
    """Every weight, also of the layers that training begins at zero."""
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.add_(0.1 * torch.randn_like(parameter))


def imported(model: Published, network: nn.Module) -> Denoiser:
    """The same weights as a run of ours, by the command that a user types."""
    width, head = model.flags["num_channels"], model.flags["num_head_channels"]
    words = [f"model={model.name}", f"network.width={width}", *([f"network.head_width={head}"] if head > 0 else [])]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        torch.save(network.state_dict(), f"{folder}/weights.pt")
        words += [f"weights={folder}/weights.pt", f"out={folder}/run"]
        dispatch("import guided_diffusion", ["smallbatch", "import guided_diffusion", *words])
        return runs.load(f"{folder}/run")


def conditions(model: Published, rows: int) -> tuple[Condition, dict[str, Tensor]]:
    """The same for both."""
    label = torch.randint(1000, (rows,)) if model.flags["class_cond"] else None
    side = model.flags["small_size"] if model.enlarges else None
    small = torch.rand(rows, 3, side, side) * 2 - 1 if side else None
    told = {"y": label, "low_res": small}
    return Condition(label, image=small), {name: value for name, value in told.items() if value is not None}


@torch.no_grad()
def outputs(model: Published, network: nn.Module, denoiser: Denoiser) -> float:
    """Largest difference of the raw output, learned variance included, over some indices."""
    condition, told = conditions(model, 1)
    x, worst = torch.randn(1, 3, model.size, model.size), 0.0
    for index in INDICES:
        level = denoiser.schedule(torch.tensor([(index + 1) / 1000]))
        expected = network(x, torch.tensor([index]), **told)
        worst = max(worst, largest(denoiser(x, level, condition) - expected))
    return worst


@torch.no_grad()
def trajectory(
    model: Published, network: nn.Module, denoiser: Denoiser, diffusion: Any, solver: Solver, grid: Grid
) -> float:
    """Largest difference of x after any step. Their noise is that of torch's own generator, in order."""
    sampler, (condition, told) = Sampler(solver, grid, STEPS), conditions(model, 1)
    visited = denoiser.schedule.index(sampler.times(denoiser.schedule, torch.device("cpu"))).tolist()
    assert visited == diffusion.timestep_map[::-1], f"{visited} is not {diffusion.timestep_map[::-1]}"
    start, shape = torch.randn(1, 3, model.size, model.size), (1, 3, model.size, model.size)
    torch.manual_seed(1)
    drawn = [torch.randn(shape) for _ in range(STEPS)]
    denoise = sampler.denoise(denoiser, condition)
    mine = list(sampler.walk(denoise, denoiser.schedule, lambda k: drawn[k - 1] if k else start))
    torch.manual_seed(1)
    loop = diffusion.ddim_sample_loop_progressive if isinstance(solver, DDIM) else diffusion.p_sample_loop_progressive
    first = denoiser.schedule(torch.tensor([(visited[0] + 1) / 1000])).sigma * start  # theirs begins at variance 1
    other = [step["sample"] for step in loop(network, shape, noise=first, model_kwargs=told)]
    return max(largest(a - b) for a, b in zip(mine, other, strict=True))


def largest(difference: Image) -> float:
    return difference.abs().max().item()


def compare(model: Published) -> tuple[float, float, float]:
    torch.manual_seed(0)
    network, ddpm = built(model, str(STEPS))
    _, ddim = built(model, f"ddim{STEPS}")
    randomise(network)
    denoiser = imported(model, network)
    both = model, network, denoiser
    steps = trajectory(*both, ddpm, Ancestral(), Respaced()), trajectory(*both, ddim, DDIM(), Strided())
    return outputs(*both), *steps


def main(chosen: list[str]) -> None:
    folder = os.environ.get("GUIDED_DIFFUSION")
    if not folder:
        raise UserError("GUIDED_DIFFUSION=FOLDER is missing: a checkout of github.com/openai/guided-diffusion")
    load(folder)
    found = {model.name: model for model in readme(folder)}
    print(f"{'largest difference':24} {'output':>9} {'DDPM x10':>9} {'DDIM x10':>9}")
    for name in chosen or found:
        print(f"{name:24} " + " ".join(f"{value:9.2e}" for value in compare(found[name])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
