"""A sweep as a Markdown table: every choice against a baseline, in percent, paired over seeds."""

from collections.abc import Mapping

from smallbatch.report.paired import Interval, difference, interval
from smallbatch.report.runs import Label, Run

Groups = Mapping[Label, Mapping[int, Run]]


def markdown(groups: Groups, baseline: Label) -> str:
    """Best first. The bins are of log-SNR, noise on the left; their figures are mean differences in percent."""
    theirs = groups[baseline]
    bins = sorted({logsnr for run in theirs.values() for logsnr in run.per_logsnr})
    head = ["", "mean", "difference, 95 % interval", "seeds", *(f"{logsnr:+.0f}" for logsnr in bins)]
    lines = [_row(head), _row(["---"] * len(head))]
    for label in sorted(groups, key=lambda label: difference(_means(groups[label]), _means(theirs)).mean):
        ours = groups[label]
        cells = [f"`{label}`", f"{interval([run.mean for run in ours.values()]).mean:.4f}"]
        change = difference(_means(ours), _means(theirs))
        cells += ["baseline" if label == baseline else _percent(change), str(change.n)]
        cells += [f"{difference(_at(ours, b), _at(theirs, b)).mean:+.1f}" for b in bins]
        lines.append(_row(cells))
    return "\n".join(lines)


def _means(runs: Mapping[int, Run]) -> dict[int, float]:
    return {seed: run.mean for seed, run in runs.items()}


def _at(runs: Mapping[int, Run], logsnr: float) -> dict[int, float]:
    return {seed: run.per_logsnr[logsnr] for seed, run in runs.items()}


def _percent(change: Interval) -> str:
    text = f"{change.mean:+.2f} % [{change.low:+.2f}, {change.high:+.2f}]"
    return f"**{text}**" if change.real else text


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
