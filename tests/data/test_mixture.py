"""Several data sets as one: exact shares, one order whatever the batch, captions of all."""

import pytest
import torch

from smallbatch.data.captions import Captions
from smallbatch.data.digits import Digits
from smallbatch.data.mixture import Mixture
from smallbatch.data.shapes import ENDLESS, Shapes
from smallbatch.data.shares import BLOCK, quotas
from smallbatch.errors import UserError

SIZE = len(Digits(4, 0, 8).parts.train)


def mixture(weights, sets=None, **options):
    sets = sets or {"one": Digits(4, 0, 8), "other": Digits(4, 1, 8)}
    return Mixture(sets, weights, batch=4, seed=0, **options)


@pytest.mark.parametrize(
    "weights, counts",
    [([3, 1], [750, 250]), ([1, 1, 1], [334, 333, 333]), ([0.6, 0.4, 0], [600, 400, 0]), ([2.5], [BLOCK])],
)
def test_shares_are_exact_to_one_in_a_thousand(weights, counts):
    assert quotas(weights) == counts


def test_every_thousand_rows_hold_each_sets_share_in_that_sets_own_order():
    data = mixture({"one": 0.7, "other": 0.3})
    indices = data.image_order[range(4 * BLOCK)].indices
    of_one = indices < SIZE
    assert of_one.view(4, BLOCK).sum(dim=1).tolist() == [700] * 4
    for some, own, first in ((of_one, data.sets["one"], 0), (~of_one, data.sets["other"], SIZE)):
        rows = own.image_order[range(int(some.sum()))].indices + first
        blocks = some.view(4, BLOCK).sum(dim=1).tolist()
        assert [sorted(part) for part in indices[some].split(blocks)] == [
            sorted(part.tolist()) for part in rows.split(blocks)
        ]


def test_rows_are_the_same_however_they_are_asked_for():
    order = mixture({"one": 0.5, "other": 0.5}).image_order
    whole = order[range(1990, 3010)]
    parts = [order[range(start, min(start + 7, 3010))] for start in range(1990, 3010, 7)]
    assert torch.equal(whole.indices, torch.cat([part.indices for part in parts]))
    assert torch.equal(whole.flips, torch.cat([part.flips for part in parts]))


def test_each_row_is_the_image_of_its_set_and_labels_stay():
    data = mixture({"one": 1, "other": 1})
    rows = torch.tensor([SIZE + 3, 5, SIZE - 1, SIZE])
    taken, own = data.parts.train.take(rows), data.sets["one"].parts.train.take(torch.tensor([3, 5, SIZE - 1, 0]))
    assert torch.equal(taken.pixels, own.pixels) and torch.equal(taken.labels, own.labels)
    assert data.spec.classes == 10 and len(data.parts.held_out) == 2 * len(data.sets["one"].parts.held_out)


@pytest.mark.parametrize("names", ["drawn own", "own drawn"])
def test_labels_are_left_out_where_not_all_sets_have_the_same(names, photos):
    sets = {"drawn": Shapes(4, 0, 16), "own": Captions(str(photos), 4, 0, 16)}
    data = mixture(dict.fromkeys(names.split(), 1.0), {name: sets[name] for name in names.split()})
    rows = data.image_order[range(8)].indices
    assert data.spec.classes == 0 and len({*(rows < 45).tolist()}) == 2
    assert all(data.parts.train.take(some).labels is None for some in (rows, *rows.split(1)))


def test_captions_come_from_the_set_that_an_image_is_of():
    data = mixture({"a": 1, "b": 3}, {"a": Shapes(4, 0, 16), "b": Shapes(4, 0, 16)})
    said = data.parts.train.captions(torch.tensor([ENDLESS + 2, 1]))
    assert said == data.sets["a"].parts.train.captions(torch.tensor([2, 1]))
    mixed = mixture({"a": 1, "b": 3}, {"a": Shapes(4, 0, 16), "b": Digits(4, 0, 16)})
    assert mixed.parts.train.captions(torch.tensor([ENDLESS])) is None


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(UserError, match=r"data.weights of \['one'\] and data.sets of \['one', 'other'\] must name"):
        mixture({"one": 1})
    with pytest.raises(UserError, match="must be at least 0, and not all 0"):
        mixture({"one": 0, "other": 0})
    with pytest.raises(UserError, match="less than one image in 2000"):
        mixture({"one": 1, "other": 1e-4})
    with pytest.raises(UserError, match=r"data.sets.b has 1x8x8 images, a 3x16x16"):
        _ = mixture({"a": 1, "b": 1}, {"a": Shapes(4, 0, 16), "b": Digits(4, 0, 8)}).spec
