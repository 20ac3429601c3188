"""Run folders as training leaves them, with figures that a test chooses."""

import json
from collections.abc import Mapping
from pathlib import Path

from smallbatch import status
from smallbatch.report import choices, compared, runs


def make(
    folder: Path,
    words: str,
    values: Mapping[int, float],
    metric: str = "val/v_mse",
    state: str = "finished",
    error: str | None = None,
) -> Path:
    """One that has measured `metric` at the images of `values`; every bin of log-SNR has the same value."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"# smallbatch train {words}\nseed: 0\nprice:\n  per_device_hour: 2.5\n")
    lines = []
    for images, value in values.items():
        row = {"images": images, "step": images // 8, "seconds": images / 10, "name": metric, "value": value}
        lines += [row, row | {"logsnr": -1.0}, row | {"logsnr": 1.0}]
        lines += [
            row | {"name": "train/loss", "n": 3, "logsnr": -1.0},
            row | {"name": "train/loss", "n": 1, "logsnr": 1.0},
        ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    last = max(values, default=0)
    status.write(folder, status.Status(state, last, last / 10, last / 5, 2, "cpu", 1000, error))
    return folder


def report(root: Path, baseline: str | None = None, metric: str = "val/v_mse", images: int | None = None):
    made, left_out = choices.grouped([runs.read(folder, ("name",)) for folder in runs.folders(root)])
    return compared.report(made, metric, baseline, images, left_out)
