"""The name of a run folder: a digest of all that determines the result."""

import hashlib
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from smallbatch.errors import UserError

# What a run's result does not depend on: where it goes, what is watched, on how many devices; `run` repeats the rest.
ELSEWHERE = ("run", "root", "name", "logger", "log", "checkpoint", "samples", "validation", "curve", "callbacks")
ELSEWHERE += (
    "metrics",
    "extractor",
    "cache",
    "trainer",
    "devices",
    "nodes",
    "price",
    "resume",
    "minimize",
    "dry_run",
    "out",
    "sampler",
    "check_finite_every_steps",
    "precisions",
)

HOW_READ = ("path", "shards", "memory_gib", "workers")  # of the data: whence and how, not what


def run_id(config: DictConfig, fingerprint: str) -> str:
    """12 letters and digits that stand for all that determines the result."""
    plain = OmegaConf.to_container(config, resolve=True)
    kept = {key: value for key, value in plain.items() if key not in ELSEWHERE}
    if kept["budget"]["money"] is not None:  # the price then says when training ends
        kept["price"] = plain["price"]
    kept["data"] = {key: value for key, value in kept["data"].items() if key not in HOW_READ}
    kept["timesteps"] = by_content(kept["timesteps"])
    if kept["init_from"] is not None:
        kept["init_from"] = digest(f"init_from={kept['init_from']}", weights_of(kept["init_from"]))
    text = json.dumps([kept, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def by_content(timesteps: dict[str, Any]) -> dict[str, Any]:
    """A loss curve counts by what its file says, not by where it lies."""
    proposal = timesteps.get("proposal") or {}
    if not proposal.get("curve"):
        return timesteps
    curve = digest(f"timesteps.proposal.curve={proposal['curve']}", Path(proposal["curve"]))
    return timesteps | {"proposal": proposal | {"curve": curve}}


def weights_of(init_from: str) -> Path:
    """The weights that a run exported."""
    return Path(str(init_from)).expanduser() / "model.safetensors"


def digest(setting: str, path: Path) -> str:
    """Of a file, by which a setting counts, wherever it lies."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{setting} cannot be read ({error.strerror})") from None


def run_folder(config: DictConfig, fingerprint: str) -> Path:
    return Path(config.root).absolute() / str(config.name) / run_id(config, fingerprint)
