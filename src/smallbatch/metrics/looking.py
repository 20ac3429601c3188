"""Images that stream by, every rank its share, and what is left of them: moments, features if asked, colours."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smallbatch.generation import Numbers
from smallbatch.metrics import ranks
from smallbatch.metrics.extractors import Extractor
from smallbatch.metrics.moments import MomentSums
from smallbatch.metrics.validity import Seen
from smallbatch.notation import Labels, Pixels

FIRST = 20  # images that are kept, to be looked at

Stream = Iterable[tuple[Numbers, Pixels]]


class Samples(NamedTuple):
    """What is judged: this rank's share of `n` images, as it streams by; labels, prompts and marks are of all."""

    n: int
    images: Stream
    seen: Seen
    labels: Labels | None = None
    marks: Sequence[str] = ()
    prompts: Sequence[str] | None = None
    device: torch.device = torch.device("cpu")


class Looked(NamedTuple):
    """Of all images together, the same on every rank."""

    n: int
    sums: MomentSums
    vectors: Float[Tensor, "n d"] | None  # in the order of the images' numbers
    logits: Float[Tensor, "n k"] | None
    recognised: float | None  # share that a classifier takes for what their labels say
    seen: Seen
    first: Pixels  # those numbered below FIRST


def look(
    images: Stream,
    extractor: Extractor,
    seen: Seen,
    device: torch.device,
    blocks: int = 1,
    keep: bool = False,
    labels: Labels | None = None,
) -> Looked:
    """`keep` holds on to all features, on the CPU; labels[i] is what image i should show. Every rank must call it.

    Blocks have equal shares of every class: else to leave one out would say what a class is worth, not what chance is.
    """
    turn = None if labels is None else dealt(labels)
    sums, right = MomentSums(extractor.dimension, blocks, device), torch.zeros(1, dtype=torch.long)
    numbers, vectors, logits, first = [], [], [], []
    with extractor.on(device) as features:
        for some, pixels in seen.look(images):
            found = features(pixels.to(device))
            sums.add(found.vectors, some if turn is None else turn[some])
            numbers.append(some)
            first.append(pixels.cpu()[some < FIRST])
            if keep:
                vectors.append(found.vectors.cpu())
                logits.append(found.vectors[:, :0].cpu() if found.logits is None else found.logits.cpu())
            if labels is not None and extractor.knows_labels:
                right += (found.logits.argmax(dim=1).cpu() == labels[some]).sum()
    for tensor in (*sums.tensors(), seen.sums, right):
        ranks.summed_(tensor)
    n, mine = int(sums.count.sum()), torch.cat(numbers)
    return Looked(
        n,
        sums,
        ranks.gathered(torch.cat(vectors), mine) if keep else None,
        ranks.gathered(torch.cat(logits), mine) if keep else None,
        None if labels is None or not extractor.knows_labels else right.item() / n,
        seen,
        ranks.gathered(torch.cat(first), mine[mine < FIRST]),
    )


def pass_by(images: Stream, seen: Seen) -> None:
    """Where nobody asks for features. Every rank must call it."""
    for _ in seen.look(images):
        pass
    ranks.summed_(seen.sums)


def dealt(labels: Labels) -> Int[Tensor, " n"]:
    """How manieth of its class each image is, counted from the class's own number: i % blocks then deals out evenly."""
    order = labels.argsort(stable=True)
    ranked = labels[order]
    turn = torch.empty_like(labels)
    turn[order] = torch.arange(len(labels)) - torch.searchsorted(ranked, ranked)
    return turn + labels
