from itertools import islice, pairwise

import pytest
import torch

from smallbatch.data.store import Source, Store, Streamed
from smallbatch.data.stream import ByShards, Repeated, Stream, Unrepeated, Windows, micro_batch, whole_images
from smallbatch.errors import UserError


def test_every_epoch_holds_each_image_once_in_a_new_order():
    stream = Stream(seed=1, length=50, flip=False)
    epochs = [stream[range(50 * e, 50 * e + 50)].indices for e in range(3)]
    assert all(torch.equal(epoch.sort().values, torch.arange(50)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize("batch", [1, 7, 10, 64])
def test_rows_do_not_depend_on_how_the_stream_is_cut(batch):
    whole = Stream(seed=1, length=10, flip=True)[range(128)]
    stream = Stream(seed=1, length=10, flip=True)
    cuts = [stream[range(start, min(start + batch, 128))] for start in range(0, 128, batch)]
    assert torch.equal(torch.cat([cut.indices for cut in cuts]), whole.indices)
    assert torch.equal(torch.cat([cut.flips for cut in cuts]), whole.flips)


def test_flips_are_keyed_by_seed_and_epoch_and_leave_the_order_alone():
    first, again, other = (Stream(seed, 1000, flip=True)[range(2000)] for seed in (1, 1, 2))
    assert torch.equal(first.flips, again.flips)
    assert not torch.equal(first.flips, other.flips)
    assert not torch.equal(first.flips[:1000], first.flips[1000:])
    assert 900 < first.flips.sum() < 1100
    assert torch.equal(first.indices, Stream(1, 1000, flip=False)[range(2000)].indices)


def test_without_flip_no_image_is_mirrored():
    assert not Stream(seed=1, length=100, flip=False)[range(200)].flips.any()


def test_the_stream_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    Stream(seed=1, length=100, flip=True)[range(300)]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("ranks", "micros"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_any_split_over_ranks_and_micro_batches_covers_the_rows_of_one_process(ranks, micros):
    split = [islice(Windows(12, 0, rank, ranks, micros), 4 * micros) for rank in range(ranks)]
    in_turn = [row for together in zip(*split, strict=True) for window in together for row in window]
    assert in_turn == [row for window in islice(Windows(12), 4) for row in window]


@pytest.mark.parametrize("micros", [1, 2])
def test_resuming_at_a_step_gives_the_tail(micros):
    run = list(islice(Windows(8, 0, 1, 2, micros), 10 * micros))
    assert list(islice(Windows(8, 7, 1, 2, micros), 3 * micros)) == run[7 * micros :]


def test_an_indivisible_batch_names_the_nearest_that_divide():
    with pytest.raises(UserError, match=r"batch=65 .* 2 processes x 2 micro-batches; nearest: 64, 68"):
        micro_batch(65, 2, 2)
    with pytest.raises(UserError, match=r"batch=3 .* 1 process x 4 micro-batches; nearest: 4$"):
        micro_batch(3, 1, 4)


@pytest.mark.parametrize("batch", [0, -8])
def test_a_batch_without_rows_is_refused(batch):
    with pytest.raises(UserError, match=f"batch={batch} "):
        micro_batch(batch, 2, 1)


SIZES = [4, 4, 4, 4, 4, 4, 4, 4, 4, 1]


def by_shards(seed=1, window=3):
    return ByShards(seed, SIZES, window)


def shard_of(rows):
    return torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))[rows.indices].tolist()


@pytest.mark.parametrize("window", [1, 3, 10, 32])
def test_shards_give_every_row_once_an_epoch_in_a_new_order_unmirrored(window):
    epochs = [by_shards(window=window)[range(37 * e, 37 * e + 37)] for e in range(3)]
    assert all(torch.equal(epoch.indices.sort().values, torch.arange(37)) for epoch in epochs)
    assert not torch.equal(epochs[0].indices, epochs[1].indices) and not any(epoch.flips.any() for epoch in epochs)


@pytest.mark.parametrize("window", [1, 3, 10])
def test_no_more_shards_than_a_window_are_begun_and_not_used_up(window):
    for epoch in range(3):
        shards = shard_of(by_shards(window=window)[range(37 * epoch, 37 * epoch + 37)])
        for at in range(37):
            assert len({*shards[: at + 1]} & {*shards[at:]}) <= window


def test_rows_of_a_window_are_mixed():
    shards = shard_of(by_shards(window=5)[range(37)])
    changes = sum(one != other for one, other in pairwise(shards))
    assert changes > 2 * len(SIZES)


@pytest.mark.parametrize("batch", [1, 5, 16, 64])
def test_rows_of_shards_follow_from_the_seed_and_their_number_alone(batch):
    whole = by_shards()[range(111)].indices
    cuts = [by_shards()[range(start, min(start + batch, 111))].indices for start in reversed(range(0, 111, batch))]
    assert torch.equal(torch.cat(cuts[::-1]), whole)
    assert not torch.equal(by_shards(seed=2)[range(111)].indices, whole)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_so_many_rows_in_turn_are_one_image_and_its_flip(times):
    images = Stream(seed=1, length=10, flip=True)
    rows, once = Repeated(images, times)[range(20 * times)], images[range(20)]
    assert torch.equal(rows.indices.view(20, times), once.indices[:, None].expand(20, times))
    assert torch.equal(rows.flips.view(20, times), once.flips[:, None].expand(20, times))
    assert torch.equal(rows.indices[: 10 * times].bincount(), torch.full((10,), times))


@pytest.mark.parametrize("order", [Stream(seed=1, length=10, flip=True), Unrepeated()])
@pytest.mark.parametrize("batch", [1, 4, 7, 16])
def test_repeated_rows_do_not_depend_on_how_they_are_cut(order, batch):
    rows = Repeated(order, 4)
    whole, cuts = rows[range(96)], [rows[range(start, min(start + batch, 96))] for start in range(0, 96, batch)]
    assert torch.equal(torch.cat([cut.indices for cut in cuts]), whole.indices)
    assert torch.equal(torch.cat([cut.flips for cut in cuts]), whole.flips)


def test_rows_that_cut_an_image_in_two_are_refused_with_the_nearest_that_do_not():
    with pytest.raises(UserError, match=r"per_image=3 does not divide batch=32; nearest: 2, 4$"):
        whole_images(32, 3)
    with pytest.raises(UserError, match=r"per_image=64 does not divide batch=32; nearest: 32$"):
        whole_images(32, 64)
    whole_images(32, 32)


class Counted(Source):
    """Row i has the value i; remembers what it was asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 50

    def take(self, indices):
        self.asked += indices.tolist()
        return Store(indices.to(torch.uint8).view(-1, 1, 1, 1), indices)

    def check(self):
        pass


def test_an_image_of_several_rows_is_read_once():
    source, order = Counted(), Repeated(Stream(seed=1, length=50, flip=False), 4)
    rows = Streamed(source, order)[range(6, 22)]
    assert torch.equal(rows.labels, order[range(6, 22)].indices)
    assert source.asked == rows.labels.unique_consecutive().tolist() and len(source.asked) == 5
