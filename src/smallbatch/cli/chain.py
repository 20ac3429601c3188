"""`smallbatch chain experiment=NAME`: the commands of conf/chain/NAME.yaml one after another, each run's folder known
to those that follow. Other words go to every stage that trains; STAGE:word goes to one stage, and wins over its own.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from smallbatch.cli import trust
from smallbatch.cli.hints import nearest
from smallbatch.cli.main import conf_dir, dispatch
from smallbatch.errors import UserError

COMMON = "train"  # the one entry that is no stage: the words of every stage that trains


def run(words: list[str]) -> None:
    """`experiment=NAME`, and more words; the same again go on where they stopped."""
    chosen = [word for word in words if word.startswith("experiment=")]
    known = {file.stem: file for file in sorted((conf_dir() / "chain").glob("*.yaml"))}
    if {"-h", "--help"} & {*words}:
        print(f"{__doc__}\nKnown: {', '.join(known)}")
        return
    if len(chosen) != 1:
        raise UserError(f"name one chain as experiment=NAME; known: {', '.join(known)}")
    name = chosen[0].partition("=")[2]
    if name not in known:
        raise UserError(f"experiment={name} is no chain; {nearest(name, [*known])}")
    if {"-m", "--multirun"} & {*words}:
        raise UserError("a chain trains one run a stage: leave out -m")
    more = [word for word in words if word not in chosen]
    refuse_stages_own(more, known[name])
    planned = stages(known[name])
    follow(planned, shared_out(more, planned))


def refuse_stages_own(words: Sequence[str], path: Path) -> None:
    """What tells the stages apart is said of one stage, not of all."""
    lines = {name: line for name, line in trust.read_yaml(path).items() if name != COMMON}
    own = {key_of(word): name for name, line in lines.items() for word in shlex.split(line)[1:]}
    for word in words:
        if (key := key_of(word)) in own:
            raise UserError(f"{word}: stage {own[key]} sets {key} itself; for that stage alone say {own[key]}:{word}")


def stages(path: Path) -> dict[str, list[str]]:
    """The words of every stage; {NAME} stands for the folder of the run that stage NAME trained."""
    said = trust.read_yaml(path)
    common = said.pop(COMMON, "")
    split = {name: shlex.split(line) for name, line in said.items()}
    return {
        name: [command, *(shlex.split(common) if command == "train" else []), *rest]
        for name, (command, *rest) in split.items()
    }


def shared_out(words: Sequence[str], stages: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What a user adds to each stage: the words for every stage that trains, then those for it alone."""
    to_all = [word for word in words if ":" not in key_of(word)]
    to_one = [word.partition(":") for word in words if ":" in key_of(word)]
    for stage, _, word in to_one:
        if stage not in stages:
            raise UserError(f"{stage}:{word}: there is no such stage; {nearest(stage, [*stages])}")
    return {
        name: [*(to_all if command == "train" else []), *(word for stage, _, word in to_one if stage == name)]
        for name, (command, *_) in stages.items()
    }


def follow(stages: Mapping[str, list[str]], more: Mapping[str, list[str]]) -> None:
    made: dict[str, Path] = {}
    for number, (name, (command, *words)) in enumerate(stages.items(), start=1):
        filled = last_of_each([*(word.format_map(made) for word in words), *more[name]])
        print(f"{number}/{len(stages)} {name}: {shlex.join(['smallbatch', command, *filled])}", flush=True)
        folder = dispatch(command, [sys.argv[0], command, *filled])
        if command == "train" and folder is None:
            raise UserError("these words train nothing: leave out dry_run and -m")
        made[name] = folder


def last_of_each(words: Sequence[str]) -> list[str]:
    """Of words that set the same, the last."""
    return [*{key_of(word): word for word in words}.values()]


def key_of(word: str) -> str:
    """What a word sets."""
    return word.lstrip("+").partition("=")[0]
