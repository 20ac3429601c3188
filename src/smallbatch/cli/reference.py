"""`smallbatch reference`: the moments of a data set, which samples are then held against."""

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from smallbatch.cli.building import from_config
from smallbatch.cli.prepare import NOT_BY
from smallbatch.data.module import Parts
from smallbatch.data.shapes import ENDLESS
from smallbatch.data.store import Source
from smallbatch.errors import UserError
from smallbatch.files import alone
from smallbatch.metrics.reference import check, of_source, read, save
from smallbatch.metrics.stamps import Stamp, stamp_of


def run(config: DictConfig) -> None:
    refuse_odd(config)
    out = Path(config.out).expanduser().absolute()
    data, extractor = from_config(config.data, "data"), from_config(config.extractor, "extractor")
    if data.spec.latents:
        raise UserError("data= holds latents: give data= and the images that they were made from")
    source = getattr(data.parts, config.part)
    n = count(config, source)
    extractor.prepare(data)
    settings = {
        key: value for key, value in OmegaConf.to_container(config.data, resolve=True).items() if key not in NOT_BY
    }
    stamp = stamp_of(data, settings, config.part, extractor, n, config.keep)
    try:
        with alone(out):
            if out.exists():
                refuse_other(out, stamp)
                print(f"{out} is there already, made in the same way")
                return
            source.check()
            device = "cuda" if torch.cuda.is_available() else "cpu"
            made = of_source(source, stamp, extractor, device, config.batch)
            save(made, out)
    except BlockingIOError:
        raise UserError(f"out={out} is being made by another process; wait for it or stop it") from None
    print("; ".join([f"{out}: {n} images of {stamp.data}, {stamp.extractor}", *check(made, extractor, data.spec)]))


def refuse_odd(config: DictConfig) -> None:
    if "data" not in config:
        raise UserError("data must be given: data=cifar10, data=images data.path=DIR, ...")
    for name, least in {"n": 2, "batch": 1, "keep": 0}.items():
        free = name == "n" and config.n is None
        if not free and not (isinstance(config[name], int) and config[name] >= least):
            raise UserError(f"{name}={config[name]} must be a whole number, at least {least}")
    if config.part not in Parts._fields:
        raise UserError(f"part={config.part}: give {' or '.join(Parts._fields)}")
    if not str(config.out).endswith(".npz"):
        raise UserError(f"out={config.out} must end in .npz")


def count(config: DictConfig, source: Source) -> int:
    """Of the images, all of them if n is null."""
    if config.n is None and len(source) >= ENDLESS:
        raise UserError("n=null: this data set never ends, so say how many images: n=50000")
    if (config.n or 2) > len(source):
        raise UserError(f"n={config.n}: the part {config.part} has {len(source)} images")
    return config.n or len(source)


def refuse_other(out: Path, wanted: Stamp) -> None:
    stamp = read(out).stamp
    odd = stamp.other(wanted) if stamp else ["nobody knows what"]
    if odd:
        raise UserError(f"out={out} was made with {'; '.join(odd)}: remove it, or choose another out")
