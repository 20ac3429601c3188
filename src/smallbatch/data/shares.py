"""Rows of one run shared out among several orders, in fixed proportions and without a memory of what came before."""

from collections.abc import Sequence
from functools import lru_cache

import torch

from smallbatch.data.stream import Order, Rows
from smallbatch.errors import UserError
from smallbatch.randomness import generator

BLOCK = 1000  # rows in which every part has its share


def quotas(weights: Sequence[float]) -> list[int]:
    """Rows of a block for each: whole numbers, the largest remainders rounded up."""
    total = sum(weights)
    if not total > 0 or min(weights) < 0:
        raise UserError(f"data.weights={list(weights)} must be at least 0, and not all 0")
    exact = [BLOCK * weight / total for weight in weights]
    counts = [int(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda number: counts[number] - exact[number])
    for number in by_rest[: BLOCK - sum(counts)]:
        counts[number] += 1
    if odd := [weight for weight, count in zip(weights, counts, strict=True) if weight > 0 and count == 0]:
        raise UserError(f"data.weights: {odd[0]} is less than one image in {2 * BLOCK}: raise it, or leave the set out")
    return counts


class Shared(Order):
    """Of every block of rows `counts[k]` are the next of orders[k], at random places; `firsts[k]` is added to them."""

    def __init__(self, seed: int, counts: Sequence[int], orders: Sequence[Order], firsts: Sequence[int]):
        self.seed, self.counts, self.orders, self.firsts = seed, counts, orders, firsts
        self.block = lru_cache(maxsize=2)(self._block)

    def __getitem__(self, rows: range) -> Rows:
        blocks = range(rows.start // BLOCK, -(-rows.stop // BLOCK))
        here = [slice(max(rows.start - block * BLOCK, 0), rows.stop - block * BLOCK) for block in blocks]
        parts = [[column[some] for column in self.block(block)] for block, some in zip(blocks, here, strict=True)]
        return Rows(*map(torch.cat, zip(*parts, strict=True)))

    def _block(self, block: int) -> Rows:
        whole = [self._of(number, block) for number in range(len(self.orders))]
        places = torch.randperm(BLOCK, generator=generator(self.seed, "shares", block))
        return Rows(*(torch.cat(column)[places] for column in zip(*whole, strict=True)))

    def _of(self, number: int, block: int) -> Rows:
        count = self.counts[number]
        indices, flips = self.orders[number][range(block * count, (block + 1) * count)]
        return Rows(indices + self.firsts[number], flips)
