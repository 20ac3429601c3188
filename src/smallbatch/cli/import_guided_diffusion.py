"""`smallbatch import guided_diffusion`: a run folder from a checkpoint that others trained."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from smallbatch import status
from smallbatch.believed import believed
from smallbatch.cli import plan, runs, tensors
from smallbatch.cli.building import from_config
from smallbatch.cli.main import conf_dir
from smallbatch.cli.resume import describe
from smallbatch.cli.shapes import Shapes, misfit, shapes_of
from smallbatch.cli.train import check_network
from smallbatch.data.module import refuse_low_size
from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.networks.guided_diffusion import published
from smallbatch.networks.unet import UNet
from smallbatch.notation import ImageSpec
from smallbatch.status import Status

COMMAND = ("smallbatch", "import", "guided_diffusion")
GROUP = "model"  # of the configuration, which names them
AS_PUBLISHED = "sampler=ancestral sampler/grid=respaced steps=250"


def run(config: DictConfig) -> None:
    out = Path(config.out).expanduser()
    refuse_odd(config, out)
    check_network(drawn_up := on_meta(config), spec_of(config))
    wanted = shapes_of(published(drawn_up.network))
    saved = tensors.read(Path(config.weights).expanduser(), "weights")
    if odd := misfit(wanted, shapes_of(saved)):
        raise UserError(f"weights={config.weights} does not fit: {odd}; {advice(shapes_of(saved))}")
    denoiser = from_config(config.denoiser)(spec=spec_of(config))
    for name, weight in published(denoiser.network).items():
        weight.copy_(saved[name])
    write(out, config, denoiser)
    print(f"{out}\nas it was published to be used: smallbatch sample run={shlex.quote(str(out))} n=4 {AS_PUBLISHED}")


def refuse_odd(config: DictConfig, out: Path) -> None:
    if out.exists():
        raise UserError(f"out={out} is there already: remove it, or choose another out")
    if not isinstance(config.images, int) or config.images < 0:
        raise UserError(f"images={config.images} must be a whole number, at least 0")
    if OmegaConf.is_missing(config.data, "size"):
        raise UserError(f"model= is missing: {', '.join(models())}; or describe it by network=... and data.size=...")
    try:
        believed(spec_of(config))
    except ValueError as error:
        raise UserError(str(error).replace("spec.", "data.")) from None
    refuse_low_size(spec_of(config))


def spec_of(config: DictConfig) -> ImageSpec:
    return ImageSpec(**config.data)


def on_meta(config: DictConfig) -> Denoiser:
    """What the settings describe, without memory."""
    denoiser = plan.on_meta(from_config(config.denoiser), spec_of(config))
    if not isinstance(denoiser.network, UNet):
        raise UserError(f"guided-diffusion's network is a U-Net, not {type(denoiser.network).__name__}: network=unet")
    return denoiser


def advice(there: Shapes) -> str:
    """Which of the published models these tensors would fit."""
    fits = [f"model={name}" for name, wanted in every_model() if misfit(wanted, there) is None]
    return f"it fits {' or '.join(fits)}" if fits else "nor does it fit any model that guided-diffusion publishes"


def every_model() -> Iterator[tuple[str, Shapes]]:
    for name in models():
        config = compose("import_guided_diffusion", [f"{GROUP}={name}"])
        yield name, shapes_of(published(on_meta(config).network))


def models() -> list[str]:
    return sorted(file.stem for file in (conf_dir() / GROUP).glob("*.yaml"))


def write(out: Path, config: DictConfig, denoiser: Denoiser) -> None:
    """A run folder. What nobody told us of the weights is left empty: the names of classes, and which images."""
    known = {
        "denoiser": OmegaConf.to_container(config.denoiser, resolve=True),
        "spec": spec_of(config)._asdict(),
        "class_names": [],
        "data_fingerprint": "",
        "images": config.images,
    }
    out.mkdir(parents=True)
    runs.save(out, denoiser, {}, known)
    describe(out, config, [*COMMAND, *HydraConfig.get().overrides.task])
    status.write(out, Status("finished", images=config.images))
