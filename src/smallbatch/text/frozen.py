"""Text encoders that were trained elsewhere and stay as they are."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.notation import Text, TextSpec
from smallbatch.published import from_anywhere
from smallbatch.text.encoder import TextEncoder, cut_off
from smallbatch.text.published import Transformers, frozen


@dataclass(frozen=True)
class Frozen(TextEncoder):
    """Features of every token after the last LayerNorm, in float32.

    `name`, `revision`: as in Published. `pad`: the number that padding has; None: the tokenizer's own.
    Weights are read when first needed and belong to no module, so that no checkpoint holds them.
    """

    kinds: ClassVar[tuple[str, ...]]  # the model types that it reads, as a config.json names them

    name: str
    length: int
    revision: str | None = None
    pad: int | None = None

    @abstractmethod
    def classes(self) -> tuple[type, type, type]:
        """Of transformers, for the config, the tokenizer and the model. Imported here: it takes seconds."""

    @abstractmethod
    def longest(self, config: Any) -> int | None:
        """Tokens that the model can hear; None: any number."""

    @abstractmethod
    def encode(self, model: nn.Module, tokens: Text) -> Float[Tensor, "b n d"]: ...

    @cached_property
    def published(self) -> Transformers:
        Transformers.need(f"text={type(self).__name__.lower()}")
        config, tokenizer, model = self.classes()
        return Transformers("text.name", self.name, self.revision, model, tokenizer, config)

    @cached_property
    def spec(self) -> TextSpec:
        """Reads the config only."""
        config = self.published.read_config(self.kinds)
        longest = self.longest(config)
        if self.length < 2 or (longest is not None and self.length > longest):
            raise UserError(f"text.length={self.length}: {self.name} hears 2 to {longest or 'any number of'} tokens")
        if self.pad is not None and not 0 <= self.pad < config.vocab_size:
            raise UserError(f"text.pad={self.pad}: {self.name} has tokens 0 to {config.vocab_size - 1}")
        return TextSpec(self.length, width=config.hidden_size)

    @cached_property
    def tokenizer(self) -> Any:
        return self.published.read_tokenizer()

    def tokens(self, captions: Sequence[str]) -> Text:
        to_length = {"padding": "max_length", "truncation": True, "max_length": self.spec.length}
        given = self.tokenizer(list(captions), **to_length, return_tensors="pt")
        value, mask = given["input_ids"], given["attention_mask"].bool()
        return Text(value if self.pad is None else value.where(mask, self.pad), mask)

    @torch.no_grad()
    def features(self, tokens: Text) -> Text:
        device = tokens.value.device
        with torch.autocast(device.type, enabled=False):  # the same whatever training they are for
            return Text(self.encode(frozen(self.published, device), tokens).float(), tokens.mask)

    def misfits(self, captions: Sequence[str]) -> list[str]:
        whole = self.tokenizer(list(captions), verbose=False)["input_ids"]
        return cut_off([len(tokens) for tokens in whole], self.spec.length, "tokens")

    def described(self) -> dict[str, Any]:
        target = f"{type(self).__module__}.{type(self).__name__}"
        return {"_target_": target, **asdict(self), "name": from_anywhere(self.name)}
