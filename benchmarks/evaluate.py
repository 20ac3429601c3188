"""What a score costs: ours, torch-fidelity's and torchmetrics' FID of the same images; and memory against n.

    python benchmarks/evaluate.py [weights=FILE] [n=500] [size=32] [batch=50] [rounds=3] [threads=1]
        [classifier=2000,50000] [inception=500,2000]

FILE holds Inception's weights as torch-fidelity publishes them; left out, they are downloaded. All three take the same
two sets of n noise images in turn, in one process; features and distance are timed as one, as two of them allow nothing
else, and ours also apart. Memory is the peak of this process after so many drawn scenes of `data=shapes` have passed
through its classifier, and through Inception.
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch_fidelity
from torch.utils.data import Dataset
from torchmetrics.image.fid import FrechetInceptionDistance

from smallbatch.data.shapes import Shapes
from smallbatch.metrics.classifier import Classifier
from smallbatch.metrics.extractors import Extractor
from smallbatch.metrics.frechet import frechet
from smallbatch.metrics.inception import Inception
from smallbatch.metrics.looking import look
from smallbatch.metrics.shares import real
from smallbatch.metrics.validity import Seen
from smallbatch.notation import Pixels

OWN = {"weights": "", "n": "500", "size": "32", "batch": "50", "rounds": "3", "threads": "1"}
OWN |= {"classifier": "2000,50000", "inception": "500,2000"}


class Images(Dataset):
    def __init__(self, pixels: Pixels):
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> Pixels:
        return self.pixels[i]


class Sets(NamedTuple):
    a: Pixels
    b: Pixels
    batch: int
    device: torch.device


class Ours:
    def __init__(self, extractor: Inception):
        self.extractor, self.distance = extractor, []  # seconds of the distance alone

    def __call__(self, sets: Sets) -> float:
        parts = [zip(torch.arange(len(s)).split(sets.batch), s.split(sets.batch), strict=True) for s in sets[:2]]
        moments = [look(part, self.extractor, Seen(3), sets.device).sums.moments() for part in parts]
        start = time.perf_counter()
        value = frechet(*moments)
        self.distance.append(time.perf_counter() - start)
        return value


def by_torch_fidelity(path: str) -> Callable[[Sets], float]:
    def distance(sets: Sets) -> float:
        made = torch_fidelity.calculate_metrics(
            input1=Images(sets.a),
            input2=Images(sets.b),
            cuda=sets.device.type == "cuda",
            fid=True,
            batch_size=sets.batch,
            cache=False,
            verbose=False,
            feature_extractor_weights_path=path,
        )
        return made["frechet_inception_distance"]

    return distance


def by_torchmetrics(path: str) -> Callable[[Sets], float]:
    def distance(sets: Sets) -> float:
        metric = FrechetInceptionDistance(antialias=False, feature_extractor_weights_path=path).to(sets.device)
        for images, is_real in ((sets.a, False), (sets.b, True)):
            for some in images.split(sets.batch):
                metric.update(some.to(sets.device), real=is_real)
        return metric.compute().item()

    return distance


def compare(own: dict[str, str], extractor: Inception) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path, n, size = str(extractor.found.path), int(own["n"]), int(own["size"])
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randint(256, (n, 3, size, size), generator=draw).byte() // (1 + i) for i in range(2))
    sets, ours = Sets(a, b, int(own["batch"]), device), Ours(extractor)
    rivals = {"ours": ours, "torch-fidelity": by_torch_fidelity(path), "torchmetrics": by_torchmetrics(path)}
    seconds, values = {name: [] for name in rivals}, {}
    for _ in range(int(own["rounds"])):
        for name, rival in rivals.items():
            start = time.perf_counter()
            values[name] = rival(sets)
            seconds[name].append(time.perf_counter() - start)
    print(f"FID of 2 x {n} images of {size}x{size} on {device.type}, {torch.get_num_threads()} threads")
    for name in rivals:
        ratios = [mine / theirs for mine, theirs in zip(seconds["ours"], seconds[name], strict=True)]
        taken, ratio = statistics.median(seconds[name]), statistics.median(ratios)
        spread = f"({min(ratios):.3f}..{max(ratios):.3f})"
        print(f"{name:15} {values[name]:12.6g} {taken:7.1f} s   ours / this: ratio {ratio:.3f} {spread}")
    print(f"of ours the distance alone {statistics.median(ours.distance):.1f} s")


def memory(extractor: Extractor, counts: str, data: Shapes) -> None:
    for n in map(int, counts.split(",")):
        look(real(data.train_store, n, 50), extractor, Seen(3), torch.device("cpu"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with_ = f"with {extractor.name}'s {extractor.dimension} features"
        print(f"peak memory {peak:.0f} MiB after n={n:,} {with_}", flush=True)


def main(words: list[str]) -> None:
    own = OWN | dict(word.split("=", 1) for word in words)
    torch.set_num_threads(int(own["threads"]))
    data, inception = Shapes(batch=8, seed=0, size=16, flip=False), Inception(own["weights"] or None)
    inception.prepare(None)
    with tempfile.TemporaryDirectory() as folder:
        classifier = Classifier(folder, images=320)
        classifier.prepare(data)
        memory(classifier, own["classifier"], data)
    memory(inception, own["inception"], data)
    compare(own, inception)


if __name__ == "__main__":
    main(sys.argv[1:])
