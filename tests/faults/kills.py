"""Runs killed by SIGKILL at chosen moments, resumed, and held against one that nobody disturbed.

`python -m tests.faults.kills` prints the table of all moments.
"""

import glob
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.cli import UNDRAWN
from tests.outcome import images, run_folder, same_outcome
from tests.processes import Running, end_all, start

IMAGES = 960  # of the whole run
WORDS = ["train", *UNDRAWN, "network.dropout=0.1", "accumulation=2", "timesteps=slots", "prediction=mixed_gate"]
WORDS += ["weighting=uncertainty_binned", "lr_schedule=mdlrc", "ema.snapshot_every_images=160"]
WORDS += [f"budget.images={IMAGES}", "samples.every_images=null", "log.every_images=32", "root=."]


class Moment(NamedTuple):
    """So many seconds after the run began to write `file`, or had written into its record, for the `time`-th time."""

    file: str
    time: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.1f} ms after write {self.time} of {self.file}"


CHECKPOINT, MODEL, SNAPSHOT, RECORD = "checkpoints/last.ckpt", "model.safetensors", "checkpoints/ema/*", "metrics.jsonl"


def moments() -> list[Moment]:
    """Twenty, the same every time: eight anywhere, twelve close to a write, of which some hit it; the first three of
    all kinds.
    """
    chance = random.Random(6)
    aimed = [CHECKPOINT, MODEL, SNAPSHOT, CHECKPOINT, CHECKPOINT, RECORD, MODEL, CHECKPOINT, SNAPSHOT, CHECKPOINT]
    made = [Moment(file, chance.randint(1, 5), chance.uniform(0, 0.015)) for file in [*aimed, RECORD, SNAPSHOT]]
    anywhere = [Moment(RECORD, chance.randint(1, 29), chance.uniform(0, 0.1)) for _ in range(8)]
    return [made[0], anywhere[0], *made[1:], *anywhere[1:]]


class Killed(NamedTuple):
    """What a kill left, and where the run went on."""

    moment: Moment
    images: int  # recorded when it was killed
    torn: list[str]  # files that were being written; of the record nothing tells
    resumed: int  # images of the checkpoint


def undisturbed(root: Path) -> Path:
    root.mkdir()
    start(root, *WORDS).finish()
    return root


def kill_and_resume(root: Path, moment: Moment) -> Killed:
    root.mkdir()
    run = start(root, *WORDS)
    wait_for(run, root, moment)
    run.kill()
    folder = run_folder(root)
    torn = [str(there.relative_to(folder)).replace(".partial.", "") for there in folder.rglob(".partial.*")]
    recorded = images(root)
    start(root, *WORDS).finish()
    resumed = (folder / "events.log").read_text().partition("resumed at ")[2].partition(" ")[0]
    return Killed(moment, recorded, torn, int(resumed or 0))


def wait_for(run: Running, root: Path, moment: Moment) -> None:
    """Looks without rest: a file is written within milliseconds."""
    sign, before, count = signs(root, moment.file), None, 0
    while count < moment.time:
        assert run.code is None, run.said
        now = sign()
        count += bool(now) and now != before
        before = now
    time.sleep(moment.seconds)


def signs(root: Path, file: str) -> Callable[[], object]:
    """What is true, and new, whenever `file` is written; the folder of the run need not be there yet."""
    here, name = os.path.split(f"{root}/digits/*/{file}")
    if file == RECORD:
        return lambda: sum(map(os.path.getsize, glob.glob(f"{here}/{name}")))
    return lambda: glob.glob(f"{here}/.partial.{name}")


def table(rows: list[tuple[Killed, bool]]) -> str:
    head = "| killed | images then | being written | resumed at | equal to the end |\n|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {row.moment} | {row.images} | {', '.join(row.torn) or '-'} | {row.resumed} | {'yes' if equal else 'NO'} |"
        for row, equal in rows
    )


def equal(a: Path, b: Path) -> bool:
    try:
        same_outcome(a, b)
    except AssertionError as error:
        print(error, file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        whole = undisturbed(Path(folder) / "whole")
        rows = []
        for number, moment in enumerate(moments()):
            root = Path(folder) / str(number)
            rows.append((kill_and_resume(root, moment), equal(whole, root)))
    end_all()
    print(table(rows))
