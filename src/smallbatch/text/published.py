"""Models that hear a text and that somebody else trained, read through transformers."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from smallbatch.errors import UserError
from smallbatch.published import CONFIG, Published

VOCABULARY = ("tokenizer.json", "vocab.json", "spiece.model")
TOKENIZER = (*VOCABULARY, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TOKENIZER += ("preprocessor_config.json", "processor_config.json")  # of images


@dataclass(frozen=True)
class Transformers(Published):
    """With the tokenizer that lies beside it."""

    library: ClassVar[str] = "transformers"
    extra: ClassVar[str] = "text"
    stated: ClassVar[str] = "model_type"
    weights: ClassVar[str] = "model"

    tokenizer: type  # or a processor, which also knows how images are shown to the model
    config: type

    @property
    def parts(self) -> tuple[type, ...]:
        return self.model, self.tokenizer

    def config_in(self, folder: Path) -> Any:
        return self.config.from_pretrained(folder)

    def read_tokenizer(self) -> Any:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # data loaders fork, which its threads do not survive
        folder = self.folder((CONFIG, *TOKENIZER))
        if not any((folder / name).is_file() for name in VOCABULARY):
            raise UserError(f"{self.said} holds no tokenizer: to make a folder with one run {self.recipe}")
        with self.reading():
            return self.tokenizer.from_pretrained(folder, local_files_only=True)


@lru_cache(maxsize=1)  # one copy in memory, however many encoders ask
def frozen(model: Transformers, device: torch.device) -> nn.Module:
    """bfloat16 on a GPU, for float16 ends too early for T5."""
    return model.read_model(torch.bfloat16 if device.type == "cuda" else torch.float32).to(device)
