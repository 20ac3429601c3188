"""The runs, the images and the noise that diagnostics look at; what could not be compared is refused here."""

from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.progress import track

from smallbatch.cli import conditions, runs, trust
from smallbatch.cli.building import from_config
from smallbatch.cli.evaluate import compared
from smallbatch.data.module import ImageData
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Part, Subject
from smallbatch.errors import UserError, printable
from smallbatch.generation import of_class
from smallbatch.weightings import Plain, Weighting

MOST = 1 << 16  # samples of which a class is known


def folders(config: DictConfig) -> list[Path]:
    if config.run is None:
        return []
    return [Path(str(one)) for one in (config.run if isinstance(config.run, ListConfig) else [config.run])]


def case_of(config: DictConfig, diagnostics: dict[str, Diagnostic]) -> Case:
    """Refuses, before anything is measured, what a diagnostic could not do with these runs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    named = zip(folders(config), names_of(folders(config)), strict=True)
    subjects = [subject(folder, name, device) for folder, name in named]
    refuse_number(len(subjects), diagnostics)
    refuse_unlike(subjects)
    refuse_latents(subjects, diagnostics)
    told_by_data = any(one.denoiser.spec.told_by_data for one in subjects)
    looking = any(diagnostic.needs_data for diagnostic in diagnostics.values())
    data = data_of(config, subjects) if looking or told_by_data else None
    held_out = data and Part(len(data.held_out_store), lambda numbers: data.held_out(numbers, device))
    train = data and Part(len(data.train_store), lambda numbers: data.training(numbers, device))
    classes = max((one.denoiser.spec.classes for one in subjects), default=0)
    labels = conditions.choose(config.labels, MOST, classes, config.seed)
    told = (lambda numbers: held_out.around(numbers).condition) if told_by_data else of_class(labels)
    sampler = from_config(config.sampler, "sampler")
    return Case(subjects, held_out, train, told, sampler, config.seed, config.batch, device, shown)


def names_of(folders: list[Path]) -> list[str]:
    """The last parts of every path, as many as tell them apart, and at least two."""
    paths = [folder.resolve().parts for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError(f"run= names a run twice: {', '.join(map(str, folders))}")
    ends = (["/".join(path[-parts:]) for path in paths] for parts in count(2))
    return next(names for names in ends if len(set(names)) == len(names))


def subject(folder: Path, name: str, device: torch.device) -> Subject:
    path, known = folder / "config.yaml", {}
    if path.exists():
        known = trust.read_yaml(path)
    weighting = known.get("weighting") if isinstance(known, dict) else None
    made = trust.built(weighting, path, "weighting", Weighting) if weighting else Plain()
    if made.state_dict():
        print(printable(f"{name}: what its weighting had learned is not in its folder, and taken as at the start"))
    return Subject(name, runs.load(folder, device), made.to(device), folder)


def refuse_number(given: int, diagnostics: dict[str, Diagnostic]) -> None:
    for name, diagnostic in diagnostics.items():
        least, most = diagnostic.least_runs, diagnostic.most_runs
        if given < least or (most is not None and given > most):
            needs = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
            raise UserError(f"diagnostic={name} looks at {needs} runs, not {given}: give run=FOLDER or run=[A,B]")


def refuse_unlike(subjects: list[Subject]) -> None:
    """Runs that are compared make and see images of one kind."""
    classes = {one.denoiser.spec.classes for one in subjects} - {0}
    if len(classes) > 1:
        raise UserError(f"run= names runs of {' and '.join(map(str, sorted(classes)))} classes: compare runs alike")
    for one in subjects[1:]:
        first = subjects[0]
        for what in ("size", "channels", "low_size", "text"):
            here, there = (getattr(run.denoiser.spec, what) for run in (one, first))
            if here != there:
                raise UserError(f"run={one.folder} has {what} {here}, run={first.folder} {there}: compare runs alike")


def refuse_latents(subjects: list[Subject], diagnostics: dict[str, Diagnostic]) -> None:
    for name, diagnostic in diagnostics.items():
        for one in subjects:
            if diagnostic.of_pixels and one.denoiser.spec.latents:
                raise UserError(f"diagnostic={name} measures pixels, and run={one.folder} draws latents: leave one out")


def data_of(config: DictConfig, subjects: list[Subject]) -> ImageData:
    """What data= names, else what the first run was trained on. Says where a run may have seen what is held out."""
    first = folders(config)[0]
    data = runs.told(from_config(config.data, "data"), first) if "data" in config else runs.data_of(first)
    for one in subjects:
        runs.refuse_other_images(one.folder, one.denoiser.spec, data)
        refuse_other_classes(one, data)
        for mark in compared(runs.about(one.folder)["data_fingerprint"], data):
            print(printable(f"{one.name}: {mark}"))
    return data


def refuse_other_classes(one: Subject, data: ImageData) -> None:
    """The data's labels are told to the network; where it knows none, or the data has none, it is told nothing."""
    mine, there = one.denoiser.spec.classes, data.spec.classes
    if mine and there and mine != there:
        raise UserError(f"run={one.folder} knows {mine} classes, the data {there}: give data= of the same classes")


def shown(steps: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    return track(steps, what, total, console=Console(stderr=True))
