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
    """The record without what depends on the clock."""
    rows = map(json.loads, (run_folder(root) / "metrics.jsonl").read_text().splitlines())
    kept = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return [row for row in kept if not row["name"].startswith("speed/")]


def images(root) -> int:
    """Recorded until now: 0 where nothing is."""
    found = list(Path(root).glob("digits/*/metrics.jsonl"))
    whole = found[0].read_text().rpartition("\n")[0] if found else ""
    return json.loads(whole.rpartition("\n")[2])["images"] if whole else 0


def checkpoint(root):
    return torch.load(run_folder(root) / "checkpoints" / "last.ckpt", weights_only=True)


def weights(root):
    """Those exported, and the averages stored on the way."""
    folder = run_folder(root)
    return {str(file.relative_to(folder)): load_file(file) for file in folder.rglob("*.safetensors")}


def same_outcome(a, b):
    same(checkpoint(a), checkpoint(b))
    assert figures(a) == figures(b)
    same(weights(a), weights(b))


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
