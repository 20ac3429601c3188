"""What comes with somebody's run may only name classes of ours, of torch.nn and of torch.optim, and none too large."""

import math
import re
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.modules import module as registration

from smallbatch.cli.building import from_config, hints_of
from smallbatch.errors import UserError
from smallbatch.files import read_text

PACKAGES = ("smallbatch", "torch.nn", "torch.optim")
DOTTED = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
ROOM = 2**24  # numbers that a network may hold beside those of its file: tables that are computed


def built(config: Any, path: Path, name: str, kind: type, **given: Any) -> Any:
    """The `kind` that `config` describes, which stands in the file `path` under `name`; one with _partial_ is `given`
    the rest.
    """
    if not (isinstance(config, dict) and "_target_" in config):
        raise UserError(f"{path}: {name} names no class in _target_")
    _check(config, f"{path}: {name}", (kind,))
    with damaged(path, name):
        made = from_config(OmegaConf.create(config), name)
        return made(**given) if given else made


@contextmanager
def damaged(path: Path, name: str) -> Iterator[None]:
    """Around what is built of foreign values, which fails in any way."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        said = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {cause}"
        raise UserError(f"{path}: {name} does not build ({said})") from None


def _check(node: Any, at: str, kinds: tuple[type, ...]) -> None:
    """Refuses all but plain values, and classes of one of `kinds`."""
    if isinstance(node, list):
        for number, entry in enumerate(node):
            _check(entry, f"{at}[{number}]", kinds)
    elif isinstance(node, dict):
        made = _class(node["_target_"], at, kinds) if "_target_" in node else None
        for key, value in node.items():
            if not isinstance(key, str) or (key.startswith("_") and key not in ("_target_", "_partial_")):
                raise UserError(f"{at} has the key {key}, which a run does not write: remove it")
            if key != "_target_":
                _check(value, f"{at}.{key}", kinds if made is None else _kinds(hints_of(made).get(key)))
    elif isinstance(node, str):
        if "${" in node:
            raise UserError(f"{at}={node} asks for a value from elsewhere: write the value itself")
    elif node is not None and not isinstance(node, int | float):
        raise UserError(f"{at}={node} is neither a number nor text")


def _class(target: Any, at: str, kinds: tuple[type, ...]) -> type:
    found = _named(target) if isinstance(target, str) else None
    if found is None:
        raise UserError(
            f"{at}._target_={target} is refused: what comes with a run may only name classes of smallbatch, torch.nn "
            "and torch.optim"
        )
    if not issubclass(found, kinds):
        raise UserError(f"{at}._target_={target} is refused: it is no {' or '.join(kind.__name__ for kind in kinds)}")
    return found


def _named(target: str) -> type | None:
    """The class of that name, if it was defined in PACKAGES; imports nothing that lies elsewhere."""
    module, _, name = target.rpartition(".")
    if not (DOTTED.fullmatch(target) and _inside(module)):
        return None
    try:
        found = vars(import_module(module)).get(name)  # step by step, as Hydra looks, leads into what a module imports
    except ImportError:
        return None
    return found if isinstance(found, type) and _inside(found.__module__) and get_object(target) is found else None


def _inside(module: str) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in PACKAGES)


def _kinds(hint: Any) -> tuple[type, ...]:
    """The classes that an annotation names, of a callable those that it returns; modules, where it names none."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Callable:
        return _kinds(parts[-1])
    if parts:
        return tuple(kind for part in parts for kind in _kinds(part))
    return (hint,) if isinstance(hint, type) else (nn.Module,)


@contextmanager
def no_larger_than(shapes: dict[str, tuple[int, ...]], path: Path) -> Iterator[None]:
    """Stops a network that is built inside as soon as it holds more than the file `path` of these shapes."""
    numbers = sum(math.prod(shape) for shape in shapes.values()) + ROOM
    tensors = 2 * len(shapes) + 100

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal numbers, tensors
        tensors -= 1
        numbers -= 0 if tensor is None else tensor.numel()
        if min(numbers, tensors) < 0:
            raise UserError(f"describes a network larger than {path}")

    hooks = (
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Plain(yaml.SafeLoader):
    """YAML without aliases, of which a few lines unfold to billions of values."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it holds an alias")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    try:
        return _Plain(read_text(path)).get_single_data()
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from None
