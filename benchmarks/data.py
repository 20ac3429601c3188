"""The data pipeline alone, each part beside a bare loop measured in the same run.

    python benchmarks/data.py [images.zip]        # a zip of JPEGs; without one, made here

One core. `from memory` is what a training step waits for: gather, mirror, float. `decoding` is one process of those
that read files. `opening` is a store of 100,000 images, mapped into memory.
"""

import io
import statistics
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from smallbatch.data.folder import Images
from smallbatch.data.module import ImageData, Parts
from smallbatch.data.packed import Packed
from smallbatch.data.packing import pack
from smallbatch.data.store import Source, Store, Streamed
from smallbatch.data.stream import Stream
from smallbatch.notation import ImageSpec

BATCH, ROUNDS = 128, 30
PICTURES, STORED = 600, 100_000


def turns(ours, bare, warm_up=3):
    """Seconds of each, alternating."""
    times = []
    for number in range(ROUNDS + warm_up):
        start = time.perf_counter()
        ours(number)
        middle = time.perf_counter()
        bare(number)
        times.append((middle - start, time.perf_counter() - middle))
    return [column for column in zip(*times[warm_up:], strict=True)]


def report(title, ours, bare, images):
    ratios = [b / a for a, b in zip(ours, bare, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    speed, plain = (images / statistics.median(times) for times in (ours, bare))
    print(
        f"{title}: {speed:,.0f} images/s, bare {plain:,.0f}, "
        f"ratio {statistics.median(ratios):.3f} (middle half {low:.3f}..{high:.3f})"
    )


def from_memory():
    pixels = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8)
    rows = Streamed(Store(pixels, torch.zeros(50_000, dtype=torch.long)), Stream(0, 50_000, flip=True))
    many = 10  # batches a turn

    def ours(number):
        for k in range(number * many, (number + 1) * many):
            _ = rows[range(k * BATCH, (k + 1) * BATCH)].batch

    def bare(number):
        for _ in range(many):
            _ = pixels[torch.randint(50_000, (BATCH,))].float() / 127.5 - 1

    report("from memory, 32x32 (bare: no flips, no epochs)", *turns(ours, bare), many * BATCH)


def decoding(path):
    data = Images(str(path), batch=BATCH, seed=0, size=None if path.stem.startswith("made") else 32)
    source, names = data.parts.train, data.parts.train.names
    archive = zipfile.ZipFile(path)

    def mine(number):
        return range(number * BATCH % (len(names) - BATCH), number * BATCH % (len(names) - BATCH) + BATCH)

    def ours(number):
        source.take(torch.tensor(mine(number)))

    def bare(number):
        for row in mine(number):
            np.asarray(Image.open(io.BytesIO(archive.read(names[row]))).convert("RGB"))

    size = data.spec.size
    report(f"decoding {size}x{size} JPEG (bare: PIL, nothing checked)", *turns(ours, bare), BATCH)


def made(folder, size):
    """A zip of pictures of nothing that compress as photographs do: noise whose contrast falls with its fineness."""
    path, rng = folder / f"made_{size}.zip", np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(PICTURES):
            picture = np.full((size, size, 3), 128.0)
            for grain in (2**k for k in range(2, size.bit_length())):
                noise = Image.fromarray(rng.integers(0, 256, (grain, grain, 3), dtype=np.uint8))
                picture += (
                    (np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC)) - 128.0) * 2.5 / grain**0.75
                )
            file = io.BytesIO()
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "jpeg", quality=90)
            archive.writestr(f"{number:04}.jpg", file.getvalue())
    return path


class Constant(Source):
    """Images that cost nothing to make."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def take(self, indices):
        return Store(torch.full((len(indices), 3, 32, 32), 7, dtype=torch.uint8), indices % 10)

    def check(self): ...


class ConstantData(ImageData):
    spec = ImageSpec(3, 32, 10)
    class_names = [str(k) for k in range(10)]  # noqa: RUF012
    fingerprint = "constant"
    parts = Parts(Constant(STORED), Constant(100))


def opening(folder):
    pack(ConstantData(batch=1, seed=0, flip=False), {}, folder / "store")
    start = time.perf_counter()
    data = Packed(str(folder / "store"), batch=BATCH, seed=0)
    data.setup("fit")
    images = data.train_store.take(torch.arange(BATCH)).batch.x0
    seconds = time.perf_counter() - start
    print(f"opening a store of {len(data.train_store):,} images: {seconds:.3f} s until the first {len(images)}")


def main(words):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        from_memory()
        decoding(Path(words[0]) if words else made(Path(folder), 32))
        decoding(made(Path(folder), 256))
        opening(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
