"""The files of a text encoder that somebody else trained: found or downloaded, and read through transformers."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import nn

from smallbatch.errors import UserError

CONFIG = ("config.json",)
VOCABULARY = ("tokenizer.json", "vocab.json", "spiece.model")
TOKENIZER = (*VOCABULARY, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TOKENIZER += ("preprocessor_config.json", "processor_config.json")  # of images
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")


def need_transformers(asked: str) -> None:
    """Refuses, for who `asked` for it, where it is not installed; and has it say no more than errors."""
    try:
        from transformers.utils import logging
    except ImportError as error:
        raise UserError(f"{asked} needs its package ({error}): pip install 'smallbatch[text]'") from None
    logging.set_verbosity_error()  # it would list the weights of an image encoder that nobody asked for
    logging.disable_progress_bar()


class Published(NamedTuple):
    """A model of the Hugging Face hub, at a branch, tag or pull request, or a folder that save_pretrained wrote.

    Weights come from safetensors alone, and no code that lies beside them is run.
    """

    setting: str  # by which a user names it
    name: str
    revision: str | None
    config: type  # the classes of transformers that read it
    tokenizer: type  # or a processor, which also knows how images are shown to the model
    model: type

    def read_config(self, kinds: tuple[str, ...]) -> Any:
        folder = self.folder(CONFIG)
        with self.reading():
            kind = self.config.get_config_dict(folder)[0].get("model_type")
            config = self.config.from_pretrained(folder)
        if kind not in kinds:
            raise UserError(f"{self.said} is a model of type {kind}: one of {' or '.join(kinds)} is needed")
        return config

    def read_tokenizer(self) -> Any:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # data loaders fork, which its threads do not survive
        folder = self.folder(CONFIG + TOKENIZER)
        if not any((folder / name).is_file() for name in VOCABULARY):
            raise UserError(f"{self.said} holds no tokenizer: to make a folder with one run {self.recipe}")
        with self.reading():
            return self.tokenizer.from_pretrained(folder, local_files_only=True)

    def read_model(self, dtype: torch.dtype) -> nn.Module:
        folder = self.folder(CONFIG + WEIGHTS)
        if not [*folder.glob("model*.safetensors")]:
            raise UserError(
                f"{self.said} holds no weights as safetensors, and no others are read: "
                f"run {self.recipe}, and give that FOLDER as {self.setting}"
            )
        with self.reading():
            options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
            model, found = self.model.from_pretrained(folder, dtype=dtype, **options)
        if missing := sorted(found["missing_keys"]):
            raise UserError(f"{self.said} lacks {len(missing)} of the weights, as {missing[0]}: get it again")
        return model.eval()

    def folder(self, files: tuple[str, ...]) -> Path:
        """Where these files of it are; downloaded, if they must be."""
        from huggingface_hub import snapshot_download

        if (folder := Path(self.name).expanduser()).is_dir():
            return folder
        try:
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=list(files)))
        except (OSError, ValueError) as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise UserError(
                f"{self.said} is not on this machine and cannot be downloaded ({why}): "
                f"where there is internet run {self.recipe}, and give that FOLDER as {self.setting}"
            ) from None

    @property
    def said(self) -> str:
        return f"{self.setting}={self.name}"

    @property
    def recipe(self) -> str:
        """The command that makes a folder of it with safetensors, whatever it came as. It runs no code from there."""
        names = f"{self.model.__name__}, {self.tokenizer.__name__}"
        given = ", revision=".join(json.dumps(one) for one in (self.name, self.revision) if one is not None)
        code = f'[part.from_pretrained({given}).save_pretrained("FOLDER") for part in ({names})]'
        return f"python -c {shlex.quote(f'from transformers import {names}; {code}')}"

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What is wrong with the files, as one line."""
        try:
            yield
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{self.said} cannot be read ({why}): get it again") from None


@lru_cache(maxsize=1)  # one copy in memory, however many encoders ask
def frozen(model: Published, device: torch.device) -> nn.Module:
    """bfloat16 on a GPU, for float16 ends too early for T5."""
    return model.read_model(torch.bfloat16 if device.type == "cuda" else torch.float32).to(device)
