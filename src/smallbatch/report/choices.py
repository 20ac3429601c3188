"""Runs that differ in nothing but their seed are one choice: a row of the report."""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from smallbatch.errors import UserError
from smallbatch.report.runs import Run

Label = str  # the settings in which a choice differs from the others


@dataclass(frozen=True)
class Choice:
    label: Label
    settings: Mapping[str, str]  # those of the label
    runs: Mapping[int, Run]  # by seed

    @property
    def first(self) -> Run:
        """That of the lowest seed."""
        return self.runs[min(self.runs)]


def grouped(runs: Iterable[Run]) -> tuple[list[Choice], list[str]]:
    """In the order of their labels; and what was left out: of runs with the same words and seed one counts."""
    runs = list(runs)
    shared = set.intersection(*(set(run.settings.items()) for run in runs))
    if all(len(shared) == len(run.settings) for run in runs):  # all are alike
        shared = set()
    settings: dict[Label, dict[str, str]] = {}
    by_label: dict[Label, dict[int, Run]] = defaultdict(dict)
    left_out = []
    for run in sorted(runs, key=lambda run: (run.status.state != "finished", -run.status.images, run.folder)):
        own = {name: value for name, value in run.settings.items() if (name, value) not in shared}
        label = " ".join(f"{name}={value}" for name, value in own.items()) or "as it is"
        settings[label] = own
        twin = by_label[label].setdefault(run.seed, run)
        if twin is not run:
            left_out.append(f"{run.folder}: the same settings and seed as {twin.folder}, which counts")
    return [
        Choice(label, settings[label], dict(sorted(by_label[label].items()))) for label in sorted(by_label)
    ], left_out


def chosen(words: Sequence[str], choices: Sequence[Choice]) -> Label:
    """The row that has all these words, each a setting (`prediction=v`), its value (`v`), or the whole label."""
    having = [choice for choice in choices if set(words) <= {choice.label, *_words(choice)}]
    least = min((len(choice.settings) for choice in having), default=0)
    having = [choice for choice in having if len(choice.settings) == least]
    said, labels = f"baseline={','.join(words)}", [choice.label for choice in choices]
    if not having:
        near = difflib.get_close_matches(" ".join(words), labels, cutoff=0.1) or labels[:5]
        raise UserError(f"{said} is none of these rows; nearest: {', '.join(near)}")
    if len(having) > 1:
        raise UserError(
            f"{said} is {len(having)} of these rows, as {having[0].label}, {having[1].label}: "
            f"name the words of one, baseline=[{','.join(having[0].settings.values())}]"
        )
    return having[0].label


def _words(choice: Choice) -> list[str]:
    return [*choice.settings.values(), *(f"{name}={value}" for name, value in choice.settings.items())]
