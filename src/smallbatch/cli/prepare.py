"""`smallbatch prepare`: a data set read, cropped and, if asked, encoded once, into a store or EDM's zip."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from smallbatch.cli import lifeline
from smallbatch.cli.building import from_config
from smallbatch.cli.evaluate import launched
from smallbatch.cli.fitting import say
from smallbatch.cli.naming import HOW_READ
from smallbatch.data.edm_zip import write_zip
from smallbatch.data.encoding import Encoders, Work, encode
from smallbatch.data.making import refuse_too_large
from smallbatch.data.module import CAPTIONS_LEARNED, ImageData, Parts
from smallbatch.data.packing import pack
from smallbatch.data.store import size_in_bytes
from smallbatch.errors import UserError, printable
from smallbatch.files import alone
from smallbatch.text.encoder import words_for
from smallbatch.text.storage import STORAGES
from smallbatch.text.words import Words

LARGEST_MIB = 1024  # of a shard: LitData numbers its bytes in 32 bits, and it must fit into memory
NOT_BY = (*HOW_READ, "batch", "seed", "flip")  # what the pixels do not depend on


def run(config: DictConfig) -> None:
    if "data" not in config:
        raise UserError("data must be given: data=imagenet data.path=DIR, data=images data.path=DIR, ...")
    out = Path(config.out).expanduser().absolute()
    data = from_config(config.data, "data")
    asked = {part: config[part] and from_config(config[part], part) for part in ("latents", "text")}
    encoders = Encoders(asked["latents"], asked["text"], config.storage)
    try:
        if out.suffix == ".zip":
            refuse_features(config, data)
            with alone(out):
                to_zip(config, data, out)
        elif has_captions(data) or any(encoders[:2]) or data.spec.latents:
            to_shards(config, data, encoders, out)
        else:
            with alone(out):
                to_store(config, data, out)
    except BlockingIOError:
        raise UserError(f"out={out} is being made by another process; wait for it or stop it") from None


def made_with(config: DictConfig) -> dict[str, Any]:
    settings = OmegaConf.to_container(config.data, resolve=True)
    return {key: value for key, value in settings.items() if key not in NOT_BY}


def to_store(config: DictConfig, data: ImageData, out: Path) -> None:
    pack(data, made_with(config), out)
    train, held_out = map(len, data.parts)
    print(f"{out}: {train} images to train on, {held_out} held out; train with data=store data.path={out}")


def to_shards(config: DictConfig, data: ImageData, encoders: Encoders, out: Path) -> None:
    """By `devices` processes; the first one holds the store, and the others end when it does."""
    check(config, data, encoders)
    lifeline.follow()
    with alone(out) if rank_zero_only.rank == 0 else nullcontext():
        if config.devices > 1:
            lifeline.lead()
        fabric = launched(config.devices)
        work = Work(fabric.global_rank, fabric.world_size, fabric.device, fabric.barrier, config.at_once)
        encode(data, made_with(config), encoders, out, int(config.shard_mib * 2**20), work)
    if fabric.global_rank == 0:
        train, held_out = map(len, data.parts)
        heard = f" {words_for(encoders.text.described())}" if encoders.text else ""
        print(f"{out}: {train} images to train on, {held_out} held out; train with data=shards data.path={out}{heard}")


def has_captions(data: ImageData) -> bool:
    return data.parts.train.captions(torch.arange(1)) is not None


def check(config: DictConfig, data: ImageData, encoders: Encoders) -> None:
    for name in ("devices", "at_once"):
        if not isinstance(config[name], int) or config[name] < 1:
            raise UserError(f"{name}={config[name]} must be a whole number, at least 1")
    if not isinstance(config.shard_mib, int | float) or not 0 < config.shard_mib <= LARGEST_MIB:
        raise UserError(f"shard_mib={config.shard_mib} must be a number above 0, at most {LARGEST_MIB}")
    if config.storage not in STORAGES:
        raise UserError(f"storage={config.storage} is not known: use one of {', '.join(STORAGES)}")
    if encoders.text is None:
        return
    captions = data.parts.train.captions(torch.arange(min(CAPTIONS_LEARNED, len(data.parts.train))))
    if captions is None:
        raise UserError(f"text: {type(data).__name__} has no captions: choose data=captions, or leave text out")
    if isinstance(encoders.text, Words):
        raise UserError("text=words is trained with the network, on captions, which a store keeps: leave text out")
    for line in encoders.text.misfits(captions):
        say(printable(line))


def refuse_features(config: DictConfig, data: ImageData) -> None:
    for part in ("latents", "text"):
        if config[part]:
            raise UserError(f"{part}: a zip holds images alone: give out=STORE, a folder, or leave {part} out")
    if data.spec.latents:
        raise UserError("a zip holds images, and these are latents: give out=STORE, a folder")


def to_zip(config: DictConfig, data: ImageData, out: Path) -> None:
    if config.part not in Parts._fields:
        raise UserError(f"part={config.part}: a zip holds one part: {' or '.join(Parts._fields)}")
    if out.exists():
        raise UserError(f"out={out} is there already: remove it, or choose another out")
    source = getattr(data.parts, config.part)
    refuse_too_large(out, size_in_bytes(source, data.spec))  # PNG may save half of it: a bound is enough
    write_zip(source, out)
    print(f"{out}: {len(source)} images; train with data=images data.path={out} data.size={data.spec.size}")
