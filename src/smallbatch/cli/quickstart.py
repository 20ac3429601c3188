"""`smallbatch quickstart`: train on digits, sample, and hold the samples against real digits.

Further words are those of `smallbatch train`: budget.images=3200, root=DIR, ...
"""

import sys
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from smallbatch.cli.main import dispatch
from smallbatch.errors import UserError
from smallbatch.recorded import read

GUIDANCE = 1.5


def run(words: list[str]) -> None:
    if {"-h", "--help"} & {*words}:
        print(__doc__)
        return
    program = sys.argv[0]
    folder = dispatch("train", [program, "train", "experiment=digits", *words])
    if rank_zero_only.rank > 0:  # another device's process: it has trained, and that was all
        return
    if folder is None:
        raise UserError("these words train nothing: leave out dry_run and -m")
    out = folder / "samples" / f"guidance_{GUIDANCE}.npz"
    dispatch("sample", [program, "sample", f"run={folder}", "n=1000", f"guidance={GUIDANCE}", f"out={out}"])
    scores = folder / "metrics" / f"guidance_{GUIDANCE}.json"
    dispatch("evaluate", [program, "evaluate", f"samples={out}", f"run={folder}", "n=null", f"out={scores}"])
    show(folder, out)
    dispatch("report", [program, "report", f"runs={folder}", f"out={folder / 'report.html'}"])


def show(folder: Path, out: Path) -> None:
    last = {row["name"]: row["value"] for row in read(folder) if "logsnr" not in row}
    table = Table("figure", "value", title="Quickstart: scikit-learn's digits at 16x16")
    for space in ("x0", "eps", "v"):
        table.add_row(f"held-out error of {space}", f"{last[f'val/{space}_mse']:.4f}")
    table.add_row("training speed", f"{last['speed/images_per_second']:,.0f} images/s")
    console = Console(soft_wrap=True)
    console.print(table)
    console.print("Look at", f"  {out.with_suffix('.png')}", f"  {folder / 'loss_per_logsnr.png'}", sep="\n")
    console.print("Go on with", f"  smallbatch sample run={folder} n=100 labels=7 guidance=2", sep="\n")
