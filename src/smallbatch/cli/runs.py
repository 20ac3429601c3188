"""Run folders: their name, their lock, and the way back from disk to a denoiser."""

import fcntl
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from smallbatch.denoiser import Denoiser
from smallbatch.ema import overwrite
from smallbatch.errors import UserError
from smallbatch.files import replacing
from smallbatch.notation import ImageSpec
from smallbatch.posthoc import blend, load_snapshots, reconstruct

# What a run's result does not depend on: where it goes, what is watched, on how many devices; `run` repeats the rest.
ELSEWHERE = ("run", "root", "name", "logger", "log", "checkpoint", "samples", "validation", "curve", "callbacks")
ELSEWHERE += (
    "metrics",
    "extractor",
    "cache",
    "trainer",
    "devices",
    "resume",
    "dry_run",
    "out",
    "sampler",
    "check_finite_every_steps",
    "precisions",
)

HOW_READ = ("path", "memory_gib", "workers")  # of the data: whence and how, not what


def run_id(config: DictConfig, fingerprint: str) -> str:
    """12 letters and digits that stand for all that determines the result."""
    plain = OmegaConf.to_container(config, resolve=True)
    kept = {key: value for key, value in plain.items() if key not in ELSEWHERE}
    kept["data"] = {key: value for key, value in kept["data"].items() if key not in HOW_READ}
    kept["timesteps"] = by_content(kept["timesteps"])
    text = json.dumps([kept, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def by_content(timesteps: dict[str, Any]) -> dict[str, Any]:
    """A loss curve counts by what its file says, not by where it lies."""
    proposal = timesteps.get("proposal") or {}
    if not proposal.get("curve"):
        return timesteps
    try:
        digest = hashlib.sha256(Path(proposal["curve"]).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"timesteps.proposal.curve={proposal['curve']} cannot be read ({error.strerror})") from None
    return timesteps | {"proposal": proposal | {"curve": digest}}


def run_folder(config: DictConfig, fingerprint: str) -> Path:
    return Path(config.root).absolute() / str(config.name) / run_id(config, fingerprint)


def lock(folder: Path) -> None:
    """Holds the folder until this process ends, however it ends."""
    if folder in _held:
        return
    file = open(folder / ".lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{folder} is being trained by another process; wait for it or stop it") from None
    _held[folder] = file


_held: dict[Path, Any] = {}  # open files: closing one would let go


def save(folder: Path, denoiser: Denoiser, weights: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """model.safetensors: `weights` of the network (an average's), the rest of the denoiser as it is; model.json."""
    state = denoiser.state_dict() | {f"network.{name}": value for name, value in weights.items()}
    with replacing(folder / "model.safetensors") as partial:
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, partial)
    with replacing(folder / "model.json") as partial:
        partial.write_text(json.dumps(about, indent=1) + "\n")


def about(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not path.exists():
        near = sorted(str(found.parent) for found in folder.glob("**/model.json"))[:3]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; give the folder that `train` printed"
        raise UserError(f"run={folder} holds no model.json{hint}")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} cannot be read ({error}); train again to export it") from None


def load(folder: str | Path, device: torch.device | str = "cpu") -> Denoiser:
    """The denoiser of a run folder, with its exported weights, ready to sample."""
    known = about(Path(folder))
    denoiser = instantiate(known["denoiser"], _convert_="all")(spec=ImageSpec(**known["spec"]))
    try:
        denoiser.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(f"run={folder}: model.safetensors cannot be read ({error}); train it again to export") from None
    return denoiser.eval().to(device)


def reaverage(denoiser: Denoiser, folder: str | Path, relative_std: float) -> float:
    """Gives the network an average of another width, rebuilt from snapshots; returns its profile's misfit."""
    snapshots = load_snapshots(Path(folder) / "checkpoints" / "ema")
    images = about(Path(folder))["images"]
    overwrite(dict(denoiser.network.named_parameters()), reconstruct(snapshots, relative_std, images))
    return blend(snapshots, relative_std, images).misfit
