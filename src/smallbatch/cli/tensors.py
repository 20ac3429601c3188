"""The tensors of somebody's .pt file; nothing in it is run."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from smallbatch.errors import UserError


def read(path: Path, setting: str) -> dict[str, Tensor]:
    """By name, in float32. `setting` is what the user gave `path` as."""
    if not path.is_file():
        raise UserError(f"{setting}={path} is no file")
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that are refused all the same
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"more than tensors, {asked[1]}" if asked else "more than tensors"
        raise UserError(f"{setting}={path} is refused, for it holds {what}: only weights by name are read") from None
    except Exception as error:  # torch fails in any way on what it did not write
        raise UserError(f"{setting}={path} is no checkpoint, or a damaged one ({type(error).__name__})") from None
    if not isinstance(saved, Mapping) or not all(isinstance(value, Tensor) for value in saved.values()):
        raise UserError(f"{setting}={path} is a checkpoint, but not of weights by name alone")
    return {str(name): tensor.float() for name, tensor in saved.items()}
