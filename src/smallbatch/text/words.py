"""A vocabulary learned from the training captions, for words whose meaning is trained with the network."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch

from smallbatch.errors import UserError
from smallbatch.notation import Text, TextSpec
from smallbatch.text.encoder import TextEncoder, cut_off

WORD = re.compile(r"\w+(?:[-']\w+)*")
LONGEST = 128  # words of a caption that are heard, unless a length is asked for
NAMED = 5  # unknown words that are named; the others are counted


def heard(caption: str) -> list[str]:
    """Its words in lower case. A hyphen or an apostrophe inside a word is part of it; other punctuation is dropped."""
    plain = unicodedata.normalize("NFKC", caption).lower()
    return WORD.findall(plain.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


class Words(TextEncoder):
    """Numbers of words, from 1 in the order of `words`.

    0 stands for what is not known as well as for padding: an unknown word is heard as silence, which is trained.
    A caption without any word says nothing.

    `words`: all that is known, each as `heard` says it; `length`: words of a caption that are heard. None: learned from
    the training captions, as long as the longest of them, up to 128.
    """

    def __init__(self, words: Sequence[str] | None = None, length: int | None = None):
        if length is not None and length < 1:
            raise UserError(f"text.length={length} must be at least 1, or null for that of the longest caption")
        self.words = None if words is None else tuple(words)
        self.length = length
        for word, count in Counter(self.words or ()).items():
            if heard(word) != [word] or count > 1:
                raise UserError(f"text.words: '{word}' must be one word in lower case, and be there once")

    def learned(self, captions: Iterable[str]) -> "Words":
        """All their words, sorted. What was given or learned before is kept: its numbers stand in trained weights."""
        said = [heard(caption) for caption in captions]
        longest = max(map(len, said), default=0)
        if longest == 0:
            raise UserError("text=words: the training captions hold no word: give captions, or text=none")
        words = sorted({word for caption in said for word in caption}) if self.words is None else self.words
        return Words(words, self.length or min(longest, LONGEST))

    @cached_property
    def numbers(self) -> dict[str, int]:
        assert self.words is not None, "nothing learned yet: learned(captions) comes first"
        return {word: number for number, word in enumerate(self.words, start=1)}

    @property
    def spec(self) -> TextSpec:
        assert self.length is not None, "nothing learned yet: learned(captions) comes first"
        return TextSpec(self.length, words=len(self.numbers) + 1)

    def tokens(self, captions: Sequence[str]) -> Text:
        value = torch.zeros(len(captions), self.length, dtype=torch.int64)
        mask = torch.zeros_like(value, dtype=torch.bool)
        for row, caption in enumerate(captions):
            numbers = [self.numbers.get(word, 0) for word in heard(caption)[: self.length]]
            value[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
            mask[row, : len(numbers)] = True
        return Text(value, mask)

    def misfits(self, captions: Sequence[str]) -> list[str]:
        said = [heard(caption) for caption in captions]
        unknown = Counter(word for words in said for word in words if word not in self.numbers)
        lines = [f"'{word}' was never seen: heard as unknown{self._nearest(word)}" for word in [*unknown][:NAMED]]
        more = [f"{len(unknown) - NAMED} more words were never seen"] if len(unknown) > NAMED else []
        return cut_off([len(words) for words in said], self.length, "words") + lines + more

    def _nearest(self, word: str) -> str:
        near = difflib.get_close_matches(word, self.words or ())
        return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""

    def described(self) -> dict[str, Any]:
        words = None if self.words is None else list(self.words)
        return {"_target_": "smallbatch.text.words.Words", "words": words, "length": self.length}
