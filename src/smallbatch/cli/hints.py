"""Turns a Hydra error into one line with the nearest names."""

import difflib
import re
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from smallbatch.errors import UserError

UNEXPECTED = re.compile(
    r"(?P<kind>\w+)\.__init__\(\) got an unexpected keyword argument '(?P<key>\w+)'.*\nfull_key: (?P<node>\S+)", re.S
)


def explain(error: Exception, conf: Path, command: str, words: list[str]) -> str:
    """What the user can mend: our own message inside Hydra's, a missing value, a word nobody knows, else the error."""
    if isinstance(error.__cause__, UserError):
        return str(error.__cause__)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key.removeprefix('run.')} must be given: {error.full_key.removeprefix('run.')}=..."
    if str(error).startswith("Could not override") and "No match in the defaults list" in str(error):
        group = str(error).split("'")[1]
        whole = group.split("/")[0]
        return f"{group} is no part of this {whole}: leave it out, or choose another {whole}"
    if odd := UNEXPECTED.search(str(error)):
        name = f"{odd['node'].removeprefix('run.')}.{odd['key']}"
        return f"{name} is no setting of {odd['kind']}: leave it out; where an experiment sets it, add ~{name}"
    if str(error).startswith("You must specify"):
        return " ".join(str(error).split())
    bare = [word for word in words if "=" not in word and not word.startswith(("-", "~"))]
    if bare:
        return f"{bare[0]} is no setting: every word is name=value, without blanks around the ="
    overrides = [word.lstrip("+~").split("=", 1) for word in words if "=" in word and not word.startswith("-")]
    groups = {str(folder.relative_to(conf)): sorted(f.stem for f in folder.glob("*.yaml")) for folder in folders(conf)}
    for name, value in overrides:
        for choice in value.strip("[]").split(",") if name in groups else ():
            if choice not in groups[name] and choice != "null":
                return f"{name}={choice} is not known; {nearest(choice, groups[name])}"
    keys = known_keys(conf, command, [f"{name}={value}" for name, value in overrides if name in groups])
    for name, _ in overrides:
        if name not in keys and name not in groups and not name.startswith("hydra"):
            return f"there is no setting {name}; {nearest(name, [*keys, *groups])}"
    return " ".join(str(error).split("\nfull_key")[0].split())


def folders(conf: Path) -> list[Path]:
    return sorted({file.parent for file in conf.rglob("*.yaml")} - {conf})


def nearest(word: str, known: list[str]) -> str:
    begun = [one for one in known if one.startswith(f"{word} ")]
    close = begun or difflib.get_close_matches(word, dict.fromkeys(known), n=3, cutoff=0.5)
    return f"nearest: {', '.join(close)}" if close else f"known: {', '.join(known)}"


def known_keys(conf: Path, command: str, choices: list[str]) -> list[str]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return list(flat(compose(command, [choice for choice in choices if "," not in choice])))


def flat(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in config:
        keys.append(f"{prefix}{key}")
        node = config._get_node(key)
        if OmegaConf.is_dict(node) and not node._is_none() and not node._is_missing() and not node._is_interpolation():
            keys += flat(node, f"{prefix}{key}.")
    return keys
