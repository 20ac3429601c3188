"""`smallbatch report`: run folders -> one page, a table, or figures for other programs."""

import glob
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from smallbatch.cli.naming import ELSEWHERE
from smallbatch.errors import UserError, printable
from smallbatch.files import replacing
from smallbatch.report import choices, compared, restated, runs
from smallbatch.report.markdown import markdown, plain
from smallbatch.report.page import page
from smallbatch.report.tidy import tidy

FORMATS = {".html": page, ".md": lambda made: f"{heading(made)}\n\n{markdown(made)}\n", ".csv": tidy}
EQUAL = {"images": (runs.read, compared.report), "flops": (restated.read, restated.report)}


def run(config: DictConfig) -> Path | None:
    """What was written; None where the table went to the terminal."""
    out = None if config.out is None else Path(str(config.out))
    if out is not None and out.suffix not in FORMATS:
        raise UserError(f"out={out} must end in {', '.join(FORMATS)}")
    if config.equal not in EQUAL:
        raise UserError(f"equal={config.equal} must be {' or '.join(EQUAL)}")
    for name, value in {"images": config.images, "price.per_device_hour": config.price.per_device_hour}.items():
        if value is not None and (not isinstance(value, int | float) or value <= 0):
            raise UserError(f"{name}={value} must be a number above 0")
    made = read(config)
    if out is None:
        print(*map(printable, FORMATS[".md"](made).split("\n")), sep="\n", end="")
    else:
        with replacing(out) as partial:
            partial.write_text(FORMATS[out.suffix](made), encoding="utf-8", errors="replace")
        print(f"{printable(heading(made))}\n  {out}")
    for line in made.left_out:
        print(printable(f"left out: {line}"))
    return out


def read(config: DictConfig) -> compared.Report:
    read_run, compare = EQUAL[config.equal]
    found, left_out = [], []
    for folder in folders(config.runs):
        try:
            found.append(read_run(folder, ELSEWHERE, config.price.per_device_hour))
        except UserError as error:
            left_out.append(str(error))
    if not found:
        raise UserError(left_out[0] if left_out else f"runs={config.runs}: no run folder there; name what train made")
    made, twins = choices.grouped(found)
    measured = [c.label for c in made if any(str(config.metric) in run.points for run in c.runs.values())]
    baseline = measured[0] if len(measured) > 1 else None
    if config.baseline is not None:
        words = config.baseline if isinstance(config.baseline, ListConfig) else [config.baseline]
        baseline = choices.chosen([str(word) for word in words], made)
    return compare(made, str(config.metric), baseline, config.images, left_out + twins)


def folders(given: str | ListConfig) -> list[Path]:
    """The run folders in folders, named or as globs; each once."""
    asked = [str(one) for one in given] if isinstance(given, ListConfig) else [str(given)]
    there = [Path(path) for one in asked for path in sorted(glob.glob(one)) or [one]]
    for path in there:
        if not path.is_dir():
            raise UserError(f"runs={path}: there is no such folder")
    return list(dict.fromkeys(found for path in there for found in runs.folders(path)))


def heading(made: compared.Report) -> str:
    hours = sum(run.device_hours for run in made.runs)
    at = restated.at(made, made.main.images, whose=f"`{plain(made.baseline or '')}`") if made.main else ""
    where = f"{made.main.metric} at {at}; " if made.main else ""
    count = {"run": len(made.runs), "choice": len(made.choices)}
    runs, rows = (f"{n} {what}{'s' * (n != 1)}" for what, n in count.items())
    return f"{where}{runs} of {rows}, {hours:.2f} device-hours in all"
