"""A report as a table for other programs: CSV, a row for every run and metric, every digit."""

import csv
import io
from pathlib import Path

from smallbatch.report.compared import Report

COLUMNS = ("run", "choice", "seed", "state", "metric", "value", "images", "seconds", "compared")
COLUMNS += ("equal", "device_hours", "money", "flops", "command", "error")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def tidy(report: Report) -> str:
    """The value at the images compared, else (compared=0) the last; a run that has measured nothing has one row.

    With equal=flops, `images` are those of the baseline that cost as much.
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for choice in report.choices:
        for seed, run in choice.runs.items():
            start, end = [run.folder, choice.label, seed, run.status.state], [report.equal, run.device_hours, run.money]
            end += [run.flops, run.command, run.status.error]
            rows = []
            for metric in report.comparisons:
                cell = report.comparisons[metric].cells.get(choice.label)
                point = cell and cell.points.get(seed)
                last = point or next(iter(run.points.get(metric, [])[-1:]), None)
                if last:
                    rows.append([*start, metric, last.value, last.images, last.seconds, int(point is not None), *end])
            rows = rows or [[*start, None, None, run.images, run.status.seconds, 0, *end]]
            table.writerows([harmless(cell) for cell in row] for row in rows)
    return out.getvalue()


def harmless(cell: Path | str | float | None) -> Path | str | float | None:
    """Words that a spreadsheet would take for a formula, marked as words; numbers as they are."""
    return f"'{cell}" if isinstance(cell, Path | str) and str(cell).startswith(FORMULA) else cell
