"""What a report of many runs costs: seconds and memory to make its page, and the size of the page.

    python benchmarks/report.py [runs=1000] [keep=FOLDER]

Makes run folders as a default run leaves them (200,000 images: 40 records of the training loss, 10 validations and
10 sample grids, all per log-SNR; three in eight with three heads, whose record is six times as long) in a temporary
folder, or under `keep`, and reports them in a process of its own. Every twentieth has failed, every fifteenth was
interrupted half-way.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from smallbatch import status
from smallbatch.callbacks.losses import CENTRES

IMAGES, SEEDS = 200_000, 3
PREDICTIONS = ("eps", "v", "x0", "flow", "edm", "mixed_gate", "mixed_blend", "mixed_min_common")
TIMESTEPS = ("uniform", "stratified", "slots", "root_loss", "loss_proportional", "lognormal", "clts", "speed", "window")
WEIGHTINGS = ("plain", "min_snr", "p2", "in_v", "sigmoid")


def choices() -> Iterator[list[str]]:
    for weighting in WEIGHTINGS:
        for timesteps in TIMESTEPS:
            for prediction in PREDICTIONS:
                yield [f"prediction={prediction}", f"timesteps={timesteps}", f"weighting={weighting}"]


def make(folder: Path, words: list[str], seed: int, number: int) -> None:
    draw = random.Random(" ".join(words))
    floor, speed, luck = draw.uniform(0.12, 0.2), draw.uniform(0.5, 2), random.Random(seed).gauss(0, 0.002)
    state = "failed" if number % 20 == 19 else "interrupted" if number % 15 == 14 else "finished"
    images = {"failed": 5_000, "interrupted": IMAGES // 2, "finished": IMAGES}[state]
    folder.mkdir(parents=True)
    settings = "".join(f"setting_{i}: {{a: {i}, b: [1, 2, 3]}}\n" for i in range(200))
    head = f"# smallbatch train {' '.join(words)} seed={seed} experiment=digits budget.images={IMAGES} name=many"
    (folder / "config.yaml").write_text(f"{head}\n{settings}price:\n  per_device_hour: 2.5\n")
    own = random.Random(number)
    rows = record(images, floor + luck, speed, own, heads=words[0].startswith("prediction=mixed"))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    error = "the loss is not finite at step 79: lower optimizer.lr=0.001" if state == "failed" else None
    status.write(folder, status.Status(state, images, images / 500, images / 500, 1, "cpu", 12_000_000, error))
    if error:
        (folder / "job.log").write_text("".join(f"line {i} of the log\n" for i in range(200)) + f"{error}\n")
    (folder / "samples").mkdir()
    for at in range(20_000, images + 1, 20_000):
        pixels = np.random.default_rng([seed, at]).normal(128, 8, (4, 16, 10, 16)).cumsum(1).clip(0, 255)
        picture = PILImage.fromarray(pixels.reshape(64, 160).astype(np.uint8))
        picture.resize((640, 256), PILImage.Resampling.NEAREST).save(folder / "samples" / f"{at:09d}.png")


def record(images: int, floor: float, speed: float, own: random.Random, heads: bool) -> Iterator[dict]:
    for at in range(5_000, images + 1, 5_000):
        start = {"images": at, "step": at // 64, "seconds": at / 500}
        loss = floor + 0.9 * (1 + at * speed / 2_000) ** -0.9 + own.gauss(0, 0.002)
        yield start | {"name": "train/loss", "value": loss * 1.05, "n": 5000}
        yield start | {"name": "train/grad_norm", "value": 0.1, "n": 78}
        yield start | {"name": "train/lr", "value": 1e-3}
        shares = np.exp(-(((np.array(CENTRES) - 10 * speed + 10) / 5) ** 2))
        for centre, share in zip(CENTRES, shares / shares.sum(), strict=True):
            yield start | {"name": "train/loss", "value": loss, "n": int(5000 * share), "logsnr": centre}
            for name in [f"heads/{head}_{what}" for head in ("x0", "eps", "v") for what in "abcd"] if heads else ():
                yield start | {"name": name, "value": own.random(), "n": 300, "logsnr": centre}
        if at % 20_000 == 0:
            for name, factor in {"x0": 0.2, "eps": 0.8, "v": 1.0}.items():
                yield start | {"name": f"val/{name}_mse", "value": loss * factor, "n": 1024}
                for centre in CENTRES[4:13]:
                    value = loss * factor * (0.3 + 0.07 * (centre + 7)) * (1 + 0.05 * speed * centre / 10)
                    yield start | {"name": f"val/{name}_mse", "value": value, "n": 100, "logsnr": centre}
        yield start | {"name": "speed/images_per_second", "value": 500.0}


def main(words: list[str]) -> None:
    asked = {"runs": "1000", "keep": ""} | dict(word.split("=", 1) for word in words)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(asked["keep"] or temporary) / "many"
        wanted = ((words, seed) for words in choices() for seed in range(SEEDS))
        for number, (words, seed) in zip(range(int(asked["runs"])), wanted, strict=False):
            make(root / f"{number:012x}", words, seed, number)
        out, began = root.parent / "report.html", time.monotonic()
        command = [sys.executable, "-m", "smallbatch.cli.main", "report", f"runs={root}", f"out={out}"]
        subprocess.run(command, check=True)
        seconds, peak = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(
            f"seconds  {seconds:.1f}\npeak memory  {peak / 2**20:.0f} MiB\npage  {out.stat().st_size / 2**20:.1f} MiB"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
