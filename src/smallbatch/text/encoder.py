"""What makes of captions something that a network can hear."""

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from smallbatch.notation import Text, TextSpec


class TextEncoder(ABC):
    """Captions become tokens where the images are read, and tokens become features where the network is."""

    spec: TextSpec  # of what the network hears

    def learned(self, captions: Iterable[str]) -> "TextEncoder":
        """The encoder for a data set with these captions; one that has nothing to learn is itself."""
        return self

    def prepare(self) -> None:
        """Refuses, before long work, what is not there."""
        self.features(self.tokens([""]))

    @abstractmethod
    def tokens(self, captions: Sequence[str]) -> Text:
        """Token numbers (b, spec.length) and where they are real, on the CPU. The end of a long caption is cut off."""

    def features(self, tokens: Text) -> Text:
        """What the network hears of them, on their device: features of a frozen encoder, or the tokens themselves."""
        return tokens

    @abstractmethod
    def misfits(self, captions: Sequence[str]) -> list[str]:
        """A line for each way in which some of these captions are not heard whole: cut off, or of unknown words."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What makes the same encoder again: `_target_` and its arguments, as plain values."""


def words_for(described: dict[str, Any]) -> str:
    """What one writes to choose this encoder."""
    kind = str(described.get("_target_")).rpartition(".")[2].lower()
    given = {key: "null" if one is None else one for key, one in described.items() if key != "_target_"}
    return " ".join([f"text={kind}", *(shlex.quote(f"text.{key}={one}") for key, one in given.items())])


def cut_off(lengths: Sequence[int], limit: int, unit: str) -> list[str]:
    """The line that says how many captions of these lengths are longer than can be heard, if any is."""
    longer = sum(length > limit for length in lengths)
    ends = "is longer than {} {}: its end is" if longer == 1 else "are longer than {} {}: their ends are"
    return [f"{longer} of {len(lengths)} captions {ends.format(limit, unit)} cut off"] if longer else []
