"""What a prompt says of a scene: the inverse of `caption`, for prompts that may leave some of it out."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from smallbatch.data.scenes import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, SIZES, Scenes
from smallbatch.errors import UserError


class Content(NamedTuple):
    """What n prompts say or n pictures show: positions in the tables of scenes.py, -1 where nothing is said or seen."""

    count: Int[ndarray, " n"]
    background: Int[ndarray, " n"]
    relation: Int[ndarray, " n"]  # of the first object to the second
    size: Int[ndarray, "n objects"]
    colour: Int[ndarray, "n objects"]
    shape: Int[ndarray, "n objects"]

    @classmethod
    def of(cls, scenes: Scenes) -> "Content":
        """All that is drawn."""
        second = scenes.present[:, 1]
        pairs = (np.where(scenes.present, field, -1) for field in (scenes.size, scenes.colour, scenes.shape))
        return cls(scenes.count, scenes.background, np.where(second, scenes.relation, -1), *pairs)

    def at(self, rows: slice | Int[ndarray, " m"]) -> "Content":
        return Content(*(field[rows] for field in self))

    @property
    def turned(self) -> "Content":
        """The same, said from the other object's side."""
        opposite = np.where(self.relation < 0, -1, self.relation ^ 1)  # RELATIONS are pairs of opposites
        return Content(self.count, self.background, opposite, *(field[:, ::-1] for field in self[3:]))


def _any_of(names: Sequence[str]) -> str:
    return f"({'|'.join(names)})"


OBJECT = f"an? (?:{_any_of(SIZES)} )?(?:{_any_of([*COLOURS])} )?{_any_of([*SHAPES])}"
PROMPT = re.compile(f"{OBJECT}(?: {_any_of(RELATIONS)} {OBJECT})?(?: on an? {_any_of([*BACKGROUNDS])} background)?")
TABLES = {"sizes": SIZES, "colours": COLOURS, "shapes": SHAPES, "relations": RELATIONS, "backgrounds": BACKGROUNDS}
WORDS = {"a", "an", "on", "background"}.union(*(name.split() for table in TABLES.values() for name in table))


def said(prompts: Sequence[str]) -> Content:
    """A prompt names a shape, or two and their relation; sizes, colours and the background may be left out."""
    rows = np.array([_said(prompt) for prompt in prompts], np.int64).reshape(-1, 9)
    return Content(*rows[:, :3].T, *(rows[:, k : k + 2] for k in (3, 5, 7)))


def _said(prompt: str) -> tuple[int, ...]:
    """Count, background, relation; of both objects their sizes, colours, shapes."""
    words = prompt.lower().strip(" .").split()
    found = PROMPT.fullmatch(" ".join(words))
    if found is None:
        raise UserError(f"prompt '{prompt}': {_wrong(words)}; {SAYABLE}")
    size, colour, shape, relation, *other, background = found.groups()
    pairs = zip((SIZES, COLOURS, SHAPES), (size, colour, shape), other, strict=True)
    objects = [_at(table, name) for table, *names in pairs for name in names]
    return 1 + (relation is not None), _at(BACKGROUNDS, background), _at(RELATIONS, relation), *objects


def _at(table: Iterable[str], name: str | None) -> int:
    return -1 if name is None else [*table].index(name)


def _wrong(words: Sequence[str]) -> str:
    unknown = [word for word in words if word not in WORDS]
    return f"'{unknown[0]}' is not known" if unknown else "its words are known, but not where they stand"


SAYABLE = (
    "say e.g. 'a small red circle left of a large blue square on a grey background', the background, sizes and colours "
    "if wanted, with " + "; ".join(f"{what} {', '.join(table)}" for what, table in TABLES.items())
)
