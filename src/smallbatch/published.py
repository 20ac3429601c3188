"""Models that somebody else trained: their files are found or downloaded, and read by the library that writes such."""

import json
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import nn

from smallbatch.errors import UserError

CONFIG = "config.json"
# what the libraries raise at files that make no sense
DAMAGE = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError, SafetensorError)


@dataclass(frozen=True)
class Published(ABC):
    """A model of the Hugging Face hub, at a branch, tag or pull request, or a folder that save_pretrained wrote.

    Weights come from safetensors alone, and no code that lies beside them is run.
    """

    library: ClassVar[str]
    extra: ClassVar[str]  # of this package, that brings the library
    stated: ClassVar[str]  # where a config.json states what kind of model it is
    weights: ClassVar[str]  # what the names of their files begin with

    setting: str  # by which a user names it
    name: str
    revision: str | None
    model: type  # the class of the library that reads it

    @property
    @abstractmethod
    def parts(self) -> tuple[type, ...]:
        """The classes that read all that it takes."""

    @abstractmethod
    def config_in(self, folder: Path) -> Any:
        """Every field as an attribute, with the library's value for what the file leaves out."""

    @classmethod
    def need(cls, asked: str) -> None:
        """Refuses, for who `asked` for it, where the library is missing; and has it say no more than errors."""
        try:
            logging = import_module(f"{cls.library}.utils.logging")
        except ImportError as error:
            raise UserError(f"{asked} needs its package ({error}): pip install 'smallbatch[{cls.extra}]'") from None
        logging.set_verbosity_error()  # it would list the weights of an image encoder that nobody asked for
        logging.disable_progress_bar()

    def read_config(self, kinds: tuple[str, ...]) -> Any:
        folder = self.folder((CONFIG,))
        with self.reading():
            kind = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get(self.stated)
            if kind not in kinds:
                raise UserError(f"{self.said} is a model of type {kind}: one of {' or '.join(kinds)} is needed")
            return self.config_in(folder)

    def read_model(self, dtype: torch.dtype) -> nn.Module:
        files = f"{self.weights}*.safetensors"
        folder = self.folder((CONFIG, files, f"{self.weights}.safetensors.index.json"))
        if not [*folder.glob(files)]:
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
        names = ", ".join(part.__name__ for part in self.parts)
        given = ", revision=".join(json.dumps(one) for one in (self.name, self.revision) if one is not None)
        code = f'[part.from_pretrained({given}).save_pretrained("FOLDER") for part in [{names}]]'
        return f"python -c {shlex.quote(f'from {self.library} import {names}; {code}')}"

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What is wrong with the files, as one line."""
        try:
            yield
        except DAMAGE as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{self.said} cannot be read ({why}): get it again") from None


def from_anywhere(name: str) -> str:
    """The name by which a model is found wherever the reader stands: a folder's absolute path."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else name
