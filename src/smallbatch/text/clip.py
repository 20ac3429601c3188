"""The text encoder of CLIP."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.notation import Text
from smallbatch.text.frozen import Frozen


@dataclass(frozen=True)
class Clip(Frozen):
    """Radford et al. 2021 (2103.00020). A token hears only those before it, so padding changes no real token."""

    kinds: ClassVar[tuple[str, ...]] = ("clip", "clip_text_model")

    length: int = 77

    def classes(self) -> tuple[type, type, type]:
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

        return CLIPTextConfig, CLIPTokenizer, CLIPTextModel

    def longest(self, config: Any) -> int:
        return config.max_position_embeddings

    def encode(self, model: nn.Module, tokens: Text) -> Float[Tensor, "b n d"]:
        return model(input_ids=tokens.value).last_hidden_state
