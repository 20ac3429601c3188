"""`smallbatch prepare`: a data set read and cropped once, into a packed store or EDM's zip."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from smallbatch.cli.building import from_config
from smallbatch.cli.naming import HOW_READ
from smallbatch.data.captions import Captions
from smallbatch.data.edm_zip import write_zip
from smallbatch.data.module import ImageData, Parts
from smallbatch.data.packing import pack, refuse_too_large
from smallbatch.errors import UserError
from smallbatch.files import alone

NOT_BY = (*HOW_READ, "batch", "seed", "flip")  # what the pixels do not depend on


def run(config: DictConfig) -> None:
    if "data" not in config:
        raise UserError("data must be given: data=imagenet data.path=DIR, data=images data.path=DIR, ...")
    out = Path(config.out).expanduser().absolute()
    data = from_config(config.data, "data")
    if isinstance(data, Captions):
        raise UserError("data=captions: a store keeps images and their classes, no captions: train with data=captions")
    try:
        with alone(out):
            (to_zip if out.suffix == ".zip" else to_store)(config, data, out)
    except BlockingIOError:
        raise UserError(f"out={out} is being made by another process; wait for it or stop it") from None


def to_store(config: DictConfig, data: ImageData, out: Path) -> None:
    settings = OmegaConf.to_container(config.data, resolve=True)
    pack(data, {key: value for key, value in settings.items() if key not in NOT_BY}, out)
    train, held_out = map(len, data.parts)
    print(f"{out}: {train} images to train on, {held_out} held out; train with data=store data.path={out}")


def to_zip(config: DictConfig, data: ImageData, out: Path) -> None:
    if config.part not in Parts._fields:
        raise UserError(f"part={config.part}: a zip holds one part: {' or '.join(Parts._fields)}")
    if out.exists():
        raise UserError(f"out={out} is there already: remove it, or choose another out")
    source = getattr(data.parts, config.part)
    refuse_too_large(out, source, spec=data.spec)  # PNG may save half of it: a bound is enough
    write_zip(source, out)
    print(f"{out}: {len(source)} images; train with data=images data.path={out} data.size={data.spec.size}")
