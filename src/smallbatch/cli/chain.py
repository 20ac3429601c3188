"""`smallbatch chain experiment=NAME`: the commands of conf/chain/NAME.yaml one after another, each run's folder known
to those that follow.
"""

import shlex
import sys
from pathlib import Path

from smallbatch.cli import trust
from smallbatch.cli.hints import nearest
from smallbatch.cli.main import conf_dir, dispatch
from smallbatch.errors import UserError

COMMON = "train"  # the one entry that is no stage: the words of every stage that trains


def run(words: list[str]) -> None:
    """`experiment=NAME`, and words that go to every stage that trains; the same again go on where they stopped."""
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
    more, planned = [word for word in words if word not in chosen], stages(known[name])
    refuse_stages_own(more, known[name])
    follow(planned, more)


def refuse_stages_own(words: list[str], path: Path) -> None:
    """What tells the stages apart is theirs."""
    lines = {name: line for name, line in trust.read_yaml(path).items() if name != COMMON}
    own = {word.partition("=")[0]: name for name, line in lines.items() for word in shlex.split(line)[1:]}
    for word in words:
        if (key := word.lstrip("+").partition("=")[0]) in own:
            raise UserError(f"{word}: stage {own[key]} sets {key} itself; leave it out, or copy {path.name}")


def stages(path: Path) -> dict[str, list[str]]:
    """The words of every stage; {NAME} stands for the folder of the run that stage NAME trained."""
    said = trust.read_yaml(path)
    common = said.pop(COMMON, "")
    split = {name: shlex.split(line) for name, line in said.items()}
    return {
        name: [command, *(shlex.split(common) if command == "train" else []), *rest]
        for name, (command, *rest) in split.items()
    }


def follow(stages: dict[str, list[str]], more: list[str]) -> None:
    made: dict[str, Path] = {}
    for number, (name, (command, *words)) in enumerate(stages.items(), start=1):
        filled = [word.format_map(made) for word in words] + (more if command == "train" else [])
        print(f"{number}/{len(stages)} {name}: {shlex.join(['smallbatch', command, *filled])}", flush=True)
        folder = dispatch(command, [sys.argv[0], command, *filled])
        if command == "train" and folder is None:
            raise UserError("these words train nothing: leave out dry_run and -m")
        made[name] = folder
