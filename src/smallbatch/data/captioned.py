"""Images that come with what is said of them."""

from dataclasses import dataclass, replace

from jaxtyping import Int
from torch import Tensor

from smallbatch.data.store import Source, Store
from smallbatch.text.encoder import TextEncoder


@dataclass(frozen=True)
class Captioned(Source):
    """The rows of `source`, each with its caption in `said`, as `text` takes it apart."""

    source: Source
    said: Source
    text: TextEncoder

    def __len__(self) -> int:
        return len(self.source)

    def captions(self, indices: Int[Tensor, " n"]) -> list[str]:
        return self.said.captions(indices)

    def take(self, indices: Int[Tensor, " n"]) -> Store:
        return replace(self.source.take(indices), text=self.text.tokens(self.captions(indices)))

    def check(self) -> None:
        self.source.check()
        self.said.check_captions()
