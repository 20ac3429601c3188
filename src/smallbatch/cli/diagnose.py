"""`smallbatch diagnose`: questions to trained runs, each answered by a table, a picture and a line."""

import csv
import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from smallbatch import pictures
from smallbatch.cli import cases, runs
from smallbatch.cli.building import from_config
from smallbatch.diagnostics.diagnostic import Diagnostic, Found, Table
from smallbatch.errors import UserError, printable
from smallbatch.files import replacing


def run(config: DictConfig) -> None:
    diagnostics: dict[str, Diagnostic] = from_config(config.get("diagnostics", OmegaConf.create()), "diagnostics")
    if not diagnostics:
        raise UserError("diagnostic= is missing: name one, or several as diagnostic=[A,B]; --help lists them")
    check(config)
    case = cases.case_of(config, diagnostics)
    for diagnostic in diagnostics.values():
        diagnostic.check(case)
    out = Path(config.out) if config.out else runs.within(cases.folders(config)[0], "diagnostics")
    others = "" if config.out else "".join(f"_{one.folder.name}" for one in case.subjects[1:])
    for name, diagnostic in diagnostics.items():
        found = diagnostic.measure(case)
        for path in write(out, name + others, diagnostic, found, [str(folder) for folder in cases.folders(config)]):
            print(path)
        print(printable(f"{name}: {diagnostic.line(found.table)}"))


def check(config: DictConfig) -> None:
    for name, least in {"batch": 1, "seed": 0}.items():
        if not isinstance(config[name], int) or config[name] < least:
            raise UserError(f"{name}={config[name]} must be a whole number, at least {least}")
    if config.run is None and config.out is None:
        raise UserError("out= is missing: without a run, name a folder for what is found")
    for place in () if config.out is None else (Path(config.out), *Path(config.out).parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"out={config.out}: {place} is no folder: choose another out")


def write(out: Path, name: str, diagnostic: Diagnostic, found: Found, among: list[str]) -> list[Path]:
    """NAME.csv, NAME.png, further pictures, and NAME.json with the line that a report shows.

    In the first run's own folder NAME holds the others' too, so that none takes the place of its own.
    """
    write_csv(found.table, out / f"{name}.csv")
    drawn = {f"{name}.png": diagnostic.figure(found.table)}
    drawn |= {f"{name}_{what}.png": picture for what, picture in found.images.items()}
    for file, picture in drawn.items():
        pictures.save(picture, out / file)
    said = {"diagnostic": name, "runs": among, "line": diagnostic.line(found.table), "pictures": list(drawn)}
    with replacing(out / f"{name}.json") as partial:
        partial.write_text(json.dumps(said, indent=1) + "\n")
    return [out / f"{name}.csv", *(out / file for file in drawn)]


def write_csv(table: Table, path: Path) -> None:
    with replacing(path) as partial, open(partial, "w", newline="") as file:
        written = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        written.writeheader()
        written.writerows({key: f"{x:.7g}" if isinstance(x, float) else x for key, x in row.items()} for row in table)
