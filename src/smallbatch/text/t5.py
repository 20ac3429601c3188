"""The encoder of T5."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.notation import Text
from smallbatch.text.frozen import Frozen


@dataclass(frozen=True)
class T5(Frozen):
    """Raffel et al. 2020 (1910.10683). Padding is masked out, so that it changes no real token."""

    kinds: ClassVar[tuple[str, ...]] = ("t5",)

    length: int = 120

    def classes(self) -> tuple[type, type, type]:
        from transformers import T5Config, T5EncoderModel, T5Tokenizer

        return T5Config, T5Tokenizer, T5EncoderModel

    def longest(self, config: Any) -> None:
        return None

    def encode(self, model: nn.Module, tokens: Text) -> Float[Tensor, "b n d"]:
        return model(input_ids=tokens.value, attention_mask=tokens.mask).last_hidden_state
