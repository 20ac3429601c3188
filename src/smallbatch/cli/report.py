"""`smallbatch report`: run folders -> a table of paired differences."""

import difflib
from pathlib import Path

from omegaconf import DictConfig

from smallbatch.cli.runs import ELSEWHERE
from smallbatch.errors import UserError
from smallbatch.files import replacing
from smallbatch.report.runs import Label, grouped, load
from smallbatch.report.table import markdown


def run(config: DictConfig) -> None:
    folders = sorted(found.parent for found in Path(str(config.runs)).glob("**/metrics.jsonl"))
    runs = [found for folder in folders if (found := load(folder, config.metric, ELSEWHERE))]
    if not runs:
        raise UserError(f"runs={config.runs}: no run there has measured {config.metric}; give a folder of run folders")
    images = sorted({found.images for found in runs})
    if len(images) > 1:
        least = min(runs, key=lambda found: found.images)
        raise UserError(f"runs={config.runs}: measured at unequal images {images}; let {least.folder} finish")
    groups = grouped(runs)
    baseline = chosen(str(config.baseline), list(groups))
    minutes = sum(found.seconds for found in runs) / 60
    text = f"{config.metric} at {images[0]:,} images; {len(runs)} runs, {minutes:.0f} minutes of training in all\n\n"
    text += markdown(groups, baseline) + "\n"
    print(text, end="")
    if config.out:
        with replacing(Path(config.out)) as partial:
            partial.write_text(text)


def chosen(baseline: str, labels: list[Label]) -> Label:
    """The label that says `baseline`, or a word whose value it is."""
    for label in labels:
        if baseline in (label, label.partition("=")[2]):
            return label
    near = difflib.get_close_matches(baseline, labels, cutoff=0.1) or labels
    raise UserError(f"baseline={baseline} is none of these runs; nearest: {', '.join(near)}")
