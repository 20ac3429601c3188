"""`smallbatch train`: configuration -> objects -> a run folder."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from smallbatch import pictures
from smallbatch.callbacks.budget import Budget
from smallbatch.callbacks.checkpoint import AtomicCheckpointIO
from smallbatch.callbacks.ema import EMA
from smallbatch.callbacks.record import MetricsFile, read
from smallbatch.cli import disk, plan, runs
from smallbatch.cli.building import from_config
from smallbatch.cli.resume import Start, find_start, open_folder
from smallbatch.data.module import ImageData
from smallbatch.data.stream import micro_batch, whole_images
from smallbatch.denoiser import Denoiser, Steps
from smallbatch.errors import UserError
from smallbatch.mixtures import HEADS
from smallbatch.module import DiffusionModule
from smallbatch.randomness import key

Export = Callable[[L.Trainer, DiffusionModule], None]


def run(config: DictConfig) -> Path | None:
    """The run folder; None after a dry run."""
    check(config)
    objects = from_config(config.run)
    check_timesteps(objects)
    if config.dry_run:
        plan.show(plan.plan(config, objects), config.out)
        return None
    if config.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer=gpu, but no GPU is at hand: use trainer=cpu, or trainer=auto to take what there is")
    try:
        module = build(config, objects)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"this configuration does not build: {type(error).__name__}: {error}") from error
    folder = runs.run_folder(config, objects["data"].fingerprint)
    disk.check_room(folder, disk.needed(plan.count(module.denoiser.network), config))
    local = open_folder(config, folder)
    start = find_start(config.resume, folder, local, config.batch)
    budget: Budget = objects["callbacks"]["budget"]
    if budget.spent(start.images, start.seconds) >= 1:
        say(f"already trained: {folder}")
        finish(folder)
        return folder
    objects["callbacks"]["metrics"].prepare(objects["data"])
    fit(config, objects, module, folder, local, start)
    if module.interrupted:
        say(f"stopped by a signal; the same command resumes {folder}")
        sys.exit(128 + (budget.asked or signal.SIGTERM))  # another rank may be the one that was asked
    finish(folder)
    return folder


def check(config: DictConfig) -> None:
    for name, least in {"batch": 1, "per_image": 1, "devices": 1, "accumulation": 1, "seed": 0}.items():
        if not isinstance(config[name], int) or config[name] < least:
            raise UserError(f"{name}={config[name]} must be a whole number, at least {least}")
    for group in ("data", "optimizer"):
        if config[group].batch != config.batch:
            raise UserError(f"{group}.batch={config[group].batch} follows batch={config.batch}: set batch alone")
    if config.data.per_image != config.per_image:
        raise UserError(f"data.per_image={config.data.per_image} follows per_image={config.per_image}: set that alone")
    whole_images(config.batch, config.per_image)
    micro_batch(config.batch, config.devices, config.accumulation)
    if config.precision not in config.precisions:
        raise UserError(f"precision={config.precision} is not known: use {' or '.join(config.precisions)}")


def check_timesteps(objects: dict[str, Any]) -> None:
    """Needs neither the data nor the network."""
    objects["module"].keywords["objective"].timesteps.check(objects["denoiser"].keywords["schedule"])


def build(config: DictConfig, objects: dict[str, Any]) -> DiffusionModule:
    """The module with its network initialised from the seed, laid out and compiled as asked; the data read."""
    objects["data"].setup("fit")
    check_network(plan.on_meta(objects["denoiser"], objects["data"].spec), objects["data"])
    torch.manual_seed(key(config.seed, "initial weights"))
    module = objects["module"](denoiser=objects["denoiser"](spec=objects["data"].spec))
    objects["callbacks"]["grid"].sampler.times(module.denoiser.schedule, torch.device("cpu"))
    network = module.denoiser.network
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    if config.compile:
        network.compile()
    module.configure_optimizers()  # refuses what cannot be before the folder is made
    return module


def check_network(denoiser: Denoiser, data: ImageData) -> None:
    """`denoiser` lives on the meta device."""
    side = denoiser.network.low_resolution
    if side and data.held_out(torch.zeros(1, dtype=torch.long), "cpu").condition.image is None:
        raise UserError(
            f"network.low_resolution={side}: this data set gives no small images to enlarge; set it to null"
        )
    steps, clock = denoiser.schedule.steps, denoiser.clock
    if isinstance(clock, Steps) and steps not in (None, clock.steps):
        raise UserError(f"clock.steps={clock.steps}, but schedule.steps={steps}: give both the same")
    outputs, channels = denoiser.prediction.outputs, denoiser.spec.channels
    maps = plan.answer(denoiser).shape[1]
    if maps != outputs * channels:
        raise UserError(
            f"the prediction needs {outputs} x {channels} = {outputs * channels} maps, the network gives {maps}: "
            "choose another prediction=, or let the network's last layer follow `outputs`"
        )


def fit(
    config: DictConfig,
    objects: dict[str, Any],
    module: DiffusionModule,
    folder: Path,
    local: MetricsFile,
    start: Start,
) -> None:
    data, callbacks = objects["data"], objects["callbacks"]
    flops, _ = plan.measure(plan.on_meta(objects["denoiser"], data.spec))
    callbacks["speed"] = callbacks["speed"](flops_per_image=flops)
    callbacks["checkpoint"] = callbacks["checkpoint"](export=exporter(config, folder, data, callbacks["ema"]))
    trainer = objects["trainer"](
        callbacks=list(callbacks.values()),
        logger=[local, *mirrors(config, objects["logger"], folder, start.images)],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
    )
    local.event(f"resumed at {start.images} images" if start.checkpoint else "started")
    say(f"{'resuming' if start.checkpoint else 'training'} in {folder}")
    try:
        trainer.fit(module, data, ckpt_path=start.checkpoint, weights_only=True)
    except UserError as error:
        local.event(str(error))
        raise
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # what follows in this process is alone
    local.event(f"{'interrupted' if module.interrupted else 'finished'} at {module.images} images")


def exporter(config: DictConfig, folder: Path, data: L.LightningDataModule, ema: EMA) -> Export:
    """Writes model.safetensors and model.json: enough to sample without the training configuration."""
    known = {
        "denoiser": OmegaConf.to_container(config.run.denoiser, resolve=True),
        "spec": data.spec._asdict(),
        "class_names": data.class_names,
        "data_fingerprint": data.fingerprint,
        "ema": ema.keep,
    }

    def export(trainer: L.Trainer, module: DiffusionModule) -> None:
        runs.save(folder, module.denoiser, ema.weights(), known | {"images": module.images})

    return export


def mirrors(config: DictConfig, loggers: dict[str, Any], folder: Path, images: int) -> list[Any]:
    """The other loggers, under the run's own name, so that a resumed run goes on in the same record.

    Unlike metrics.jsonl they cannot be wound back. Lightning's CSV logger deletes what it finds: a table a start.
    """
    versions = {"csv": f"{folder.name}_from_{images}"}
    made = []
    for name, logger in loggers.items():
        try:
            made.append(logger(save_dir=folder, version=versions.get(name, folder.name)))
        except ModuleNotFoundError as error:
            raise UserError(f"logger={name} needs its package ({error}): pip install 'smallbatch[{name}]'") from None
        made[-1].log_hyperparams(OmegaConf.to_container(config, resolve=True))
    return made


@rank_zero_only
def say(text: str) -> None:
    print(text, flush=True)


@rank_zero_only
def finish(folder: Path) -> None:
    """Draws the held-out error, and which head wins where there are several, and says where to look."""
    rows = [row for row in read(folder) if "logsnr" in row]
    errors = latest(rows, {f"val/{name}_mse": name for name in ("x0", "eps", "v")})
    pictures.curves(errors, folder / "loss_per_logsnr.png", "Held-out error per noise level")
    drawn = ["loss_per_logsnr.png", *(["loss_curve.csv"] if (folder / "loss_curve.csv").exists() else [])]
    if any(row["name"].startswith("heads/") for row in rows):
        parts = {what: latest(rows, {f"heads/{head}_{key}": head for head in HEADS}) for key, what in OF_HEADS.items()}
        pictures.panels(parts, folder / "heads_per_logsnr.png", logarithmic=[OF_HEADS["v_mse"]])
        drawn.append("heads_per_logsnr.png")
    for what in ("samples", *drawn, "metrics.jsonl", "model.safetensors"):
        say(f"  {folder / what}")


OF_HEADS = {
    "v_mse": "Training error in v",
    "weight": "Weight in the fused velocity",
    "wins": "Share of wins: smallest error in v",
    "wins_raw": "Share of wins: smallest error in its own space",
}


def latest(rows: list[dict[str, Any]], names: dict[str, str]) -> dict[str, dict[float, float]]:
    """Of each name, under its label: the values of the last record, by log-SNR."""
    rows = [row for row in rows if row["name"] in names]
    series: dict[str, dict[float, float]] = {label: {} for label in names.values()}
    for row in rows:
        if row["images"] == rows[-1]["images"]:
            series[names[row["name"]]][row["logsnr"]] = row["value"]
    return series
