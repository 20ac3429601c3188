"""A report as a Markdown table: every choice against a baseline, paired over seeds."""

import re

from smallbatch.report import text
from smallbatch.report.choices import Choice, Label
from smallbatch.report.compared import BySeed, Cell, Report, values_per_logsnr
from smallbatch.report.findings import found
from smallbatch.report.paired import percentage

MARKS = re.compile(r"([\\`*\[\]<>&])")  # of markdown, wherever in a line


def markdown(report: Report) -> str:
    """Best first; the rows that were not measured there last. The bins are of log-SNR, noise on the left; their figures
    are mean differences in percent.
    """
    bins = sorted({logsnr for choice in report.choices for logsnr in _bins(report, choice.label)})
    head = ["", "mean", "difference, 95 % interval", "p", "seeds", "state", *(f"{logsnr:+.0f}" for logsnr in bins)]
    rows = [_row(report, choice, bins) for choice in report.choices]
    used = [i for i in range(len(head)) if i < 2 or any(row[i] for row in rows)]
    table = [head, ["---"] * len(head), *rows]
    lines = [f"| {' | '.join(row[i] for i in used)} |" for row in table]
    return "\n".join([*lines, *_found(report)])


def _found(report: Report) -> list[str]:
    """What diagnostics say of the runs, after a blank line."""
    lines = [
        f"- `{plain(choice.label)}` seed {seed}, {_escaped(finding.name)}: {_escaped(finding.line)}"
        for choice in report.choices
        for seed, run in choice.runs.items()
        for finding in found(run)
    ]
    return ["", *lines] if lines else []


def _row(report: Report, choice: Choice, bins: list[float]) -> list[str]:
    cell = report.main.cells.get(choice.label) if report.main else None
    states = [run.status.state for run in choice.runs.values()]
    missing = [f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != "finished"]
    start = [f"`{plain(choice.label)}`"]
    if cell is None:
        return [*start, "", "", "", "", ", ".join(missing) or "not measured there", *("" for _ in bins)]
    change, n = _change(report, choice, cell), str(cell.level.n)
    start += [text.number(cell.level.mean), change, text.probability(cell.p), n, ", ".join(missing)]
    return start + [_at(report, choice.label, logsnr) for logsnr in bins]


def _escaped(said: str) -> str:
    """Shown as it is: anyone may have written it."""
    return MARKS.sub(r"\\\1", said)


def plain(label: Label) -> str:
    """As it may stand in a cell, between backquotes."""
    return label.replace("`", "'").replace("|", "\\|")


def _change(report: Report, choice: Choice, cell: Cell) -> str:
    if choice.label == report.baseline:
        return "baseline"
    if cell.change is None:
        return "no seed shared" if report.baseline else ""
    said = text.change(cell.change, report.main.unit)
    return f"**{said}**" if cell.resolved else said


def _bins(report: Report, label: Label | None) -> BySeed:
    cell = report.main.cells.get(label) if report.main else None
    return values_per_logsnr(report.choice(label), cell, report.main.metric) if cell else {}


def _at(report: Report, label: Label, logsnr: float) -> str:
    change = percentage(_bins(report, label).get(logsnr, {}), _bins(report, report.baseline).get(logsnr, {}))
    return f"{change.mean:+.1f}" if change else ""
