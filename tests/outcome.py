"""What a run came to: its record, its checkpoint and its weights, compared bit for bit."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file


def run_folder(root):
    """The one run below `root`."""
    (found,) = Path(root).glob("digits/*")
    return found


def figures(root):
    return recorded(run_folder(root))


def recorded(folder):
    """The record without what depends on the clock."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    kept = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return [row for row in kept if not row["name"].startswith("speed/")]


def images(root) -> int:
    """Recorded until now: 0 where nothing is."""
    found = list(Path(root).glob("digits/*/metrics.jsonl"))
    whole = found[0].read_text().rpartition("\n")[0] if found else ""
    return json.loads(whole.rpartition("\n")[2])["images"] if whole else 0


def checkpoint(root):
    return saved(run_folder(root))


def saved(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def weights(root):
    return exported(run_folder(root))


def exported(folder):
    """The weights of a run, and the averages stored on the way."""
    return {str(file.relative_to(folder)): load_file(file) for file in folder.rglob("*.safetensors")}


def same_outcome(a, b):
    same_run(run_folder(a), run_folder(b))


def same_run(a, b):
    """Of two folders."""
    same(saved(a), saved(b))
    assert recorded(a) == recorded(b)
    same(exported(a), exported(b))


def same(a, b, at=""):
    """Bit for bit, through everything that a checkpoint holds but the clock."""
    assert type(a) is type(b), at
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), at
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for key in a.keys() - {"seconds", "device_seconds"}:
            same(a[key], b[key], f"{at}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), at
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{at}/{i}")
    else:
        assert a == b, at
