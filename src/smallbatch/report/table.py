"""A sweep as a Markdown table: every choice against a baseline, in percent, paired over seeds."""

from collections.abc import Mapping

from smallbatch.errors import UserError
from smallbatch.report.paired import Interval, difference, interval
from smallbatch.report.runs import Label, Run

Runs = Mapping[int, Run]  # by seed


def markdown(groups: Mapping[Label, Runs], baseline: Label) -> str:
    """Best first; of every choice the seeds that the baseline has too.

    The bins are of log-SNR, noise on the left; their figures are mean differences in percent.
    """
    theirs = groups[baseline]
    bins = sorted({logsnr for run in theirs.values() for logsnr in run.per_logsnr})
    head = ["", "mean", "difference, 95 % interval", "seeds", *(f"{logsnr:+.0f}" for logsnr in bins)]
    rows = sorted((_row(label, runs, theirs, bins) for label, runs in groups.items()), key=lambda row: row[0])
    return "\n".join(_line(cells) for cells in (head, ["---"] * len(head), *(cells for _, cells in rows)))


def _row(label: Label, ours: Runs, theirs: Runs, bins: list[float]) -> tuple[float, list[str]]:
    """Its difference, and its cells."""
    if not ours.keys() & theirs.keys():
        raise UserError(f"{label} has the seeds {sorted(ours)}, the baseline {sorted(theirs)}: train one seed for both")
    change = difference(_means(ours), _means(theirs))
    mean = interval([run.mean for seed, run in ours.items() if seed in theirs]).mean
    cells = [f"`{label}`", f"{mean:.4f}", "baseline" if ours is theirs else _percent(change), str(change.n)]
    return change.mean, cells + [_at(ours, theirs, logsnr) for logsnr in bins]


def _means(runs: Runs) -> dict[int, float]:
    return {seed: run.mean for seed, run in runs.items()}


def _at(ours: Runs, theirs: Runs, logsnr: float) -> str:
    mine, its = ({seed: run.per_logsnr.get(logsnr, 0.0) for seed, run in runs.items()} for runs in (ours, theirs))
    measured = any(mine[seed] and its[seed] for seed in mine.keys() & its.keys())
    return f"{difference(mine, its).mean:+.1f}" if measured else ""


def _percent(change: Interval) -> str:
    if change.n == 1:
        return f"{change.mean:+.2f} %, one seed"
    text = f"{change.mean:+.2f} % [{change.low:+.2f}, {change.high:+.2f}]"
    return f"**{text}**" if change.real else text


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
