"""What a value of timesteps= or prediction= adds to an optimizer step: the step's time over that of the plainest value.

    python benchmarks/overhead.py [only=timesteps/window,prediction/flow] [steps=1] [rounds=10] [threads=1]
        [overrides of smallbatch train, e.g. experiment=cifar10_one_gpu data.path=FOLDER trainer=gpu]

Every conf/timesteps/*.yaml is measured against `uniform` and every conf/prediction/*.yaml against `v`; what cannot be
built on the schedule is named. A step is what `train` does between two records: it draws, goes forward and backward,
clips, updates the weights and their averages, and shows all that adapts what it saw; the batch stays on the device. A
value and its reference take turns of `steps` steps in one process, and a turn is set against the mean of the
reference's turns before and after it. By default that is experiment=digits at batch 64 on one thread: 7 s a value where
nothing else runs, less than 4 minutes for 28 of them. Where something does, take more rounds.
"""

import statistics
import sys
from collections.abc import Iterator
from typing import NamedTuple

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from learner import Learner
from omegaconf import DictConfig

from smallbatch.cli.building import from_config
from smallbatch.cli.main import conf_dir
from smallbatch.cli.train import build, check_timesteps
from smallbatch.errors import UserError

REFERENCE = {"timesteps": "uniform", "prediction": "v"}
TARGET = {"timesteps": 1.03, "prediction": 1.05}  # what a step may cost of the reference's
OWN = {"only": "", "steps": "1", "rounds": "10", "threads": "1"}
WARM_UP = 2  # steps


def learner(config: DictConfig) -> Learner:
    """Half-way through its budget; warmed up."""
    objects = from_config(config.run)
    check_timesteps(objects)
    cuda = torch.cuda.is_available() and config.trainer.accelerator != "cpu"
    module, data = build(config, objects).to("cuda" if cuda else "cpu"), objects["data"]
    averages = list(objects["callbacks"]["ema"].averages.values())
    batch = data.held_out(torch.arange(config.batch) % len(data.held_out_store), next(module.parameters()).device)
    made = Learner(module, averages, batch, bf16=config.precision == "bf16", progress=0.5)
    made.turn(WARM_UP)
    return made


class Cost(NamedTuple):
    """Of one value, in steps of the reference."""

    low: float
    median: float
    high: float


def compare(value: Learner, reference: Learner, steps: int, rounds: int) -> Cost:
    ratios, before = [], reference.turn(steps)
    for _ in range(rounds):
        turn, after = value.turn(steps), reference.turn(steps)
        ratios.append(turn / statistics.mean((before, after)))
        before = after
    return Cost(*statistics.quantiles(ratios, n=4))


def attempt(words: list[str]) -> Learner | str:
    """Or why there is none."""
    try:
        return learner(compose("train", words))
    except UserError as error:
        return str(error)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            return str(error.__cause__)
        raise


def values(group: str, only: list[str]) -> list[str]:
    """All that conf/ holds but the reference; of these, the ones asked for."""
    there = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml") if file.stem != REFERENCE[group])
    return [name for name in there if not only or f"{group}/{name}" in only]


def table(group: str, names: list[str], words: list[str], steps: int, rounds: int) -> Iterator[str]:
    reference = attempt([*words, f"{group}={REFERENCE[group]}"])
    if isinstance(reference, str):
        raise UserError(reference)
    step = statistics.median(reference.turn(steps) for _ in range(3))
    yield f"{group + '=' + REFERENCE[group]:36} {1000 * step:.0f} ms a step; the target is {TARGET[group]} times that"
    for name in names:
        value = attempt([*words, f"{group}={name}"])
        if isinstance(value, str):
            yield f"{group + '=' + name:36}    -   {value}"
            continue
        low, median, high = compare(value, reference, steps, rounds)
        over = "" if median <= TARGET[group] else "  above the target"
        yield f"{group + '=' + name:36} {median:.3f}  (middle half {low:.3f}..{high:.3f}){over}"


def main(words: list[str]) -> None:
    own = OWN | {name: value for name, _, value in (word.partition("=") for word in words) if name in OWN}
    rest = [word for word in words if word.partition("=")[0] not in OWN]
    if not any(word.startswith("experiment=") for word in rest):
        rest = ["experiment=digits", *rest]
    torch.set_num_threads(int(own["threads"]))
    only = [word for word in own["only"].split(",") if word]
    chosen = {group: names for group in REFERENCE if (names := values(group, only))}
    missing = set(only) - {f"{group}/{name}" for group, names in chosen.items() for name in names}
    if missing:
        raise UserError(f"only={','.join(sorted(missing))}: not in conf/, or a reference; write group/name")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for group, names in chosen.items():
            for line in table(group, names, rest, int(own["steps"]), int(own["rounds"])):
                print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
