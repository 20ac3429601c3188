"""`smallbatch quickstart`: train on digits, sample, and ask a classifier what it sees."""

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.svm import SVC

from smallbatch.callbacks.record import read
from smallbatch.data.digits import Digits
from smallbatch.data.store import Store
from smallbatch.errors import UserError

GUIDANCE = 1.5


def run(words: list[str]) -> None:
    """Further words go to `train`."""
    from smallbatch.cli.main import dispatch

    program = sys.argv[0]
    folder = dispatch("train", [program, "train", "experiment=digits", *words])
    if folder is None:
        raise UserError("these words train nothing: leave out dry_run and -m")
    out = folder / "samples" / f"guidance_{GUIDANCE}.npz"
    dispatch("sample", [program, "sample", f"run={folder}", "n=1000", f"guidance={GUIDANCE}", f"out={out}"])
    show(folder, out, *recognised(out))


def recognised(samples: Path) -> tuple[float, float]:
    """Shares that a classifier trained on the real training digits gets right: of the samples, of held-out digits."""
    with np.load(samples) as file:
        images, labels = file["arr_0"], file["arr_1"]
    data = Digits(batch=1, seed=0, size=images.shape[1])
    judge = SVC(C=10).fit(*flat(data.train_store))
    return judge.score(images.reshape(len(images), -1) / 255, labels), judge.score(*flat(data.held_out_store))


def flat(store: Store) -> tuple[np.ndarray, np.ndarray]:
    return store.pixels.flatten(1).numpy() / 255, store.labels.numpy()


def show(folder: Path, out: Path, samples: float, real: float) -> None:
    last = {row["name"]: row["value"] for row in read(folder) if "logsnr" not in row}
    table = Table("figure", "value", title="Quickstart: scikit-learn's digits at 16x16")
    table.add_row(f"recognised of 1,000 samples at guidance {GUIDANCE}", f"{samples:.1%}")
    table.add_row("recognised of the held-out real digits", f"{real:.1%}")
    for space in ("x0", "eps", "v"):
        table.add_row(f"held-out error of {space}", f"{last[f'val/{space}_mse']:.4f}")
    table.add_row("training speed", f"{last['speed/images_per_second']:,.0f} images/s")
    console = Console(soft_wrap=True)
    console.print(table)
    console.print("Look at", f"  {out.with_suffix('.png')}", f"  {folder / 'loss_per_logsnr.png'}", sep="\n")
    console.print("Go on with", f"  smallbatch sample run={folder} n=100 labels=7 guidance=2", sep="\n")
