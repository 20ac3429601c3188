"""Run folders: their lock, and the way back from disk to a denoiser."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from smallbatch.believed import believed
from smallbatch.cli import trust
from smallbatch.data.module import ImageData
from smallbatch.denoiser import Denoiser
from smallbatch.ema import overwrite
from smallbatch.errors import UserError
from smallbatch.files import inside, read_json, replacing
from smallbatch.latents.autoencoder import Autoencoder
from smallbatch.notation import ImageSpec, TextSpec
from smallbatch.posthoc import blend, load_snapshots, reconstruct
from smallbatch.sharding import for_file
from smallbatch.text.encoder import TextEncoder


def within(folder: Path, part: str) -> Path:
    """Where a command writes unasked: not through a link that leads out of a folder that somebody may have made."""
    path = folder / part
    if not inside(folder, path):
        raise UserError(f"{path} is a link out of {folder}: remove it, or give out=")
    return path


def lock(folder: Path) -> None:
    """Holds the folder until this process ends, however it ends."""
    if folder in _held:
        return
    file = open(folder / ".lock", "a")  # noqa: SIM115
    for _ in range(20):  # a second: a report holds it for a moment, to see who does
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            _held[folder] = file
            return
    raise UserError(f"{folder} is being trained by another process; wait for it or stop it")


_held: dict[Path, Any] = {}  # open files: closing one would let go


def let_go() -> None:
    """In a process that reads data for this one: it may outlive it by seconds, and would hold on to the folder."""
    for file in _held.values():
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=let_go)


def save(folder: Path, denoiser: Denoiser, weights: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """model.safetensors: `weights` of the network (an average's), the rest of the denoiser as it is; model.json.

    Every rank must call this; the first one writes.
    """
    state = denoiser.state_dict() | {f"network.{name}": value for name, value in weights.items()}
    whole = {name: for_file(value).contiguous() for name, value in state.items()}
    if rank_zero_only.rank > 0:
        return
    with replacing(folder / "model.safetensors") as partial:
        save_file(whole, partial)
    with replacing(folder / "model.json") as partial:
        partial.write_text(json.dumps(about, indent=1) + "\n")


HOLDS = {"denoiser": dict, "spec": dict, "class_names": list, "data_fingerprint": str, "images": int}


def about(folder: Path) -> dict[str, Any]:
    """What model.json says, with its `spec` as an ImageSpec."""
    path = folder / "model.json"
    if not path.exists():
        near = sorted(str(found.parent) for found in folder.glob("**/model.json"))[:3]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; give the folder that `train` printed"
        raise UserError(f"run={folder} holds no model.json{hint}")
    try:
        known = read_json(path)
        for name, kind in HOLDS.items():
            if not isinstance(known[name], kind):
                raise ValueError(f"{name}={known[name]}")
        text = known["spec"].get("text")
        return known | {"spec": believed(ImageSpec(**known["spec"] | {"text": text and TextSpec(*text)}))}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); train again to export it") from None


def load(folder: str | Path, device: torch.device | str = "cpu") -> Denoiser:
    """The denoiser of a run folder, with its exported weights, ready to sample.

    Nobody vouches for the folder: what model.json names is checked before it is built, and first built without memory.
    """
    path, weights, known = Path(folder) / "model.json", Path(folder) / "model.safetensors", about(Path(folder))
    shapes = shapes_in(weights)

    def build() -> Denoiser:
        return trust.built(known["denoiser"], path, "denoiser", Denoiser, spec=known["spec"])

    with trust.no_larger_than(shapes, weights), torch.device("meta"):
        refuse_other_shapes(build(), shapes, path, weights)
    denoiser = build()
    denoiser.load_state_dict(load_file(weights))
    return denoiser.eval().to(device)


def data_of(folder: Path) -> ImageData:
    """The data set that a run was trained on."""
    path = folder / "config.yaml"
    if not path.exists():
        raise UserError(f"run={folder} holds no config.yaml, which names its data: give data=...")
    known = trust.read_yaml(path)
    described = known.get("data") if isinstance(known, dict) else None
    if not isinstance(described, dict) or "_target_" not in described:
        raise UserError(f"{path} names no data set: give data=...")
    data = trust.built(described, path, "data", ImageData)
    data.may_download = False  # nobody here chose where to
    return told(data, folder)


def text_of(folder: Path) -> TextEncoder | None:
    """What a run hears its captions with; None where it hears none."""
    described = about(folder).get("text")
    return described and trust.built(described, folder / "model.json", "text", TextEncoder)


def autoencoder_of(folder: Path) -> Autoencoder | None:
    """Whose latents a run draws; None where it draws pixels."""
    described = about(folder).get("latents")
    return described and trust.built(described, folder / "model.json", "latents", Autoencoder)


def told(data: ImageData, folder: Path) -> ImageData:
    """The data with its captions said as the run hears them."""
    if (text := text_of(folder)) is not None:
        data.tell(text)
        if data.text.spec != text.spec:
            here, needed = (f"{of.length} tokens of {of.width}" for of in (data.text.spec, text.spec))
            raise UserError(f"run={folder} hears {needed}, the data brings {here}: give data of the same storage=")
    return data


def refuse_other_images(folder: Path, known: ImageSpec, data: ImageData) -> None:
    """`known` is what the network of a run has seen."""
    refuse_other_latents(f"run={folder}", autoencoder_of(folder) if known.latents else None, data.autoencoder)
    for what in ("size", "channels", "low_size"):
        here, needed = getattr(data.spec, what), getattr(known, what)
        if here != needed:
            raise UserError(f"run={folder} has {what} {needed}, the data {here}: give data.{what}={needed}")


def refuse_other_latents(who: str, learned: Autoencoder | None, here: Autoencoder | None) -> None:
    theirs, ours = (one and one.described() for one in (learned, here))
    if theirs != ours:
        raise UserError(f"{who} has learned {of_what(theirs)}, the data holds {of_what(ours)}: use the same")


def of_what(latents: dict[str, Any] | None) -> str:
    """Latents of which autoencoder."""
    if latents is None:
        return "pixels"
    return "latents of " + ", ".join(f"{key}={value}" for key, value in latents.items() if key != "_target_")


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a safetensors file, from its head alone."""
    try:
        if not path.is_file():
            raise FileNotFoundError("it is no file")
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); train it again to export") from None


def refuse_other_shapes(denoiser: Denoiser, shapes: dict[str, tuple[int, ...]], path: Path, weights: Path) -> None:
    built = {name: tuple(tensor.shape) for name, tensor in denoiser.state_dict().items()}
    for name in sorted(built.keys() | shapes.keys()):
        if built.get(name) != shapes.get(name):
            there, wanted = (of.get(name, "none") for of in (shapes, built))
            raise UserError(f"{path}: {name} has shape {wanted}, in {weights} {there}: train it again to export both")


def reaverage(denoiser: Denoiser, folder: str | Path, relative_std: float) -> float:
    """Gives the network an average of another width, rebuilt from snapshots; returns its profile's misfit."""
    path, images = Path(folder) / "checkpoints" / "ema", about(Path(folder))["images"]
    with trust.damaged(path, "an average"):
        snapshots = load_snapshots(path)
        overwrite(dict(denoiser.network.named_parameters()), reconstruct(snapshots, relative_std, images))
        return blend(snapshots, relative_std, images).misfit
