"""Configuration -> objects. A value of the wrong type is refused with its name, before anything is built."""

import inspect
import math
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from smallbatch.errors import UserError

AS_NUMBERS = BeartypeConf(is_pep484_tower=True)  # 1 is a float
WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}


def from_config(config: DictConfig, name: str = "") -> Any:
    """The objects of a node, whose settings a user knows under `name`."""
    check(config, name)
    return instantiate(config, _convert_="all")


def check(config: DictConfig, name: str = "") -> None:
    """Holds every plain value of our own classes against the annotation of the parameter that takes it."""
    hints = _hints(config)
    for key, known_as, value in _settings(config, name):
        if OmegaConf.is_dict(value):
            check(value, known_as)
        elif key in hints:
            plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            if isinstance(plain, float) and math.isnan(plain):
                raise UserError(f"{known_as}={plain} is not a number")
            if not is_bearable(plain, hints[key], conf=AS_NUMBERS):
                raise UserError(f"{known_as}={_shown(plain)} must be {_said(hints[key])}")


def _settings(config: DictConfig, name: str) -> Iterator[tuple[str, str, Any]]:
    """Key, the name by which a user sets it, and value. `x: ${y}` is set as y."""
    for key in config:
        node = config._get_node(key)
        known_as = f"{name}.{key}".lstrip(".")
        if node._is_interpolation():
            source = str(node._value())
            known_as = source[2:-1] if source.startswith("${") and source.endswith("}") else known_as
        yield key, known_as, config[key]


def _hints(config: DictConfig) -> dict[str, Any]:
    """Annotations of what `_target_` takes, where it is ours."""
    target = str(config.get("_target_", ""))
    return hints_of(get_object(target)) if target.startswith("smallbatch.") else {}


def hints_of(made: Any) -> dict[str, Any]:
    """Annotations of what a class or function of ours takes; of others nothing."""
    if not made.__module__.startswith("smallbatch."):
        return {}
    return typing.get_type_hints(made.__init__ if inspect.isclass(made) else made)


def _said(hint: Any) -> str:
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return " or ".join(map(_said, parts))
    if kind is typing.Literal:
        return " or ".join(map(str, parts))
    if kind in (list, Sequence):
        return f"a list, each entry {_said(parts[0])}"
    return WORDS.get(hint, str(hint))


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
