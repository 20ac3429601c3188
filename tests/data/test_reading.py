import os

import pytest
import torch

from smallbatch.data import reading
from smallbatch.data.store import Source, Store
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec


class Numbered(Source):
    """Row i is an image of value i mod 251; the rows `bad` cannot be read."""

    def __init__(self, count, bad=()):
        self.count, self.bad = count, bad

    def __len__(self):
        return self.count

    def take(self, indices):
        for row in indices.tolist():
            if row in self.bad:
                raise UserError(f"row {row} is bad")
        pixels = (indices % 251).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
        return Store(pixels.contiguous(), indices)

    def check(self): ...


@pytest.mark.parametrize("count", [1, reading.CHUNK, reading.SLOW + 7])
def test_all_rows_come_back_in_order(count):
    store = reading.read(Numbered(count), ImageSpec(1, 2, 10))
    assert torch.equal(store.labels, torch.arange(count))
    assert torch.equal(store.pixels[:, 0, 1, 1], (torch.arange(count) % 251).to(torch.uint8))


@pytest.mark.parametrize("count", [100, reading.SLOW + 100])
def test_every_problem_is_found_and_the_first_is_named(count):
    with pytest.raises(UserError, match=f"^row 3 is bad .and 2 more of {count} images.$"):
        reading.read(Numbered(count, bad=(3, 4, 90)), ImageSpec(1, 2, 10))


def test_several_processes_share_the_work():
    def who(rows):
        return os.getpid()

    few = {chunk.result for chunk in reading.chunks(who, 0, reading.SLOW, "")}
    many = {chunk.result for chunk in reading.chunks(who, 0, 2 * reading.SLOW, "")}
    assert few == {os.getpid()} and os.getpid() not in many
    assert len(many) == min(reading.processes(), 2 * reading.SLOW // reading.CHUNK)


def test_reading_can_start_in_the_middle_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    rows = [row for chunk in reading.chunks(list, 300, 3000, "") for row in chunk.rows]
    assert rows == list(range(300, 3000))
    assert torch.equal(torch.get_rng_state(), before)
