"""`smallbatch train`: configuration -> objects -> a run folder."""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from smallbatch import status
from smallbatch.callbacks.budget import Budget
from smallbatch.callbacks.checkpoint import AtomicCheckpointIO
from smallbatch.callbacks.ema import EMA
from smallbatch.callbacks.mirrors import Mirror
from smallbatch.callbacks.record import MetricsFile
from smallbatch.callbacks.wandb import sync_command
from smallbatch.cli import cluster, devices, disk, lifeline, naming, plan, runs
from smallbatch.cli.building import from_config
from smallbatch.cli.resume import Start, find_start, open_folder
from smallbatch.data.module import ImageData
from smallbatch.data.stream import micro_batch, whole_images
from smallbatch.denoiser import Denoiser, Steps
from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule
from smallbatch.randomness import key
from smallbatch.status import Status

Export = Callable[[L.Trainer, DiffusionModule], None]


def run(config: DictConfig) -> Path | None:
    """The run folder; None after a dry run."""
    lifeline.follow()
    check(config)
    objects = from_config(config.run)
    check_timesteps(objects)
    if config.dry_run:
        plan.show(plan.plan(config, objects), config.out)
        return None
    cluster.check(config.devices, config.nodes)
    devices.check(config)
    try:
        module = build(config, objects)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"this configuration does not build: {type(error).__name__}: {error}") from error
    folder = naming.run_folder(config, objects["data"].fingerprint)
    if rank_zero_only.rank == 0:  # the others would look while it writes
        disk.check_room(folder, disk.needed(plan.count(module.denoiser.network), config))
    local = open_folder(config, folder)
    start = find_start(config.resume, folder, local, config.batch)
    budget: Budget = objects["callbacks"]["budget"]
    if budget.spent(*start[1:]) >= 1:
        say(f"already trained: {folder}")
        known = status.read(folder) or Status("finished", devices=config.devices * config.nodes)
        note(folder, replace(known, state="finished", images=start.images, seconds=start.seconds, error=None))
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
    for name, least in {"batch": 1, "per_image": 1, "devices": 1, "nodes": 1, "accumulation": 1, "seed": 0}.items():
        if not isinstance(config[name], int) or config[name] < least:
            raise UserError(f"{name}={config[name]} must be a whole number, at least {least}")
    for group in ("data", "optimizer"):
        if config[group].batch != config.batch:
            raise UserError(f"{group}.batch={config[group].batch} follows batch={config.batch}: set batch alone")
    if config.data.per_image != config.per_image:
        raise UserError(f"data.per_image={config.data.per_image} follows per_image={config.per_image}: set that alone")
    whole_images(config.batch, config.per_image)
    micro_batch(config.batch, config.devices * config.nodes, config.accumulation)
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
    others = mirrors(config, objects["logger"], folder, local, start.images)
    trainer = objects["trainer"](
        callbacks=list(callbacks.values()),
        logger=[local, *others],
        plugins=[AtomicCheckpointIO(), *cluster.environment()],
        default_root_dir=folder,
    )
    local.event(f"resumed at {start.images} images" if start.checkpoint else "started")
    say(f"{'resuming' if start.checkpoint else 'training'} in {folder}")
    device = device_name(trainer.strategy.root_device)
    known = Status("training", start.images, start.seconds, config.devices * config.nodes, device, flops)
    note(folder, known)
    if config.devices > 1:
        lifeline.lead()
    try:
        trainer.fit(module, data, ckpt_path=start.checkpoint, weights_only=True)
    except Exception as error:
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        images, seconds = max(start.images, module.images), max(start.seconds, module.seconds)
        with suppress(UserError):  # a disk too full for the checkpoint may be too full for this
            local.event(text)
            note(folder, replace(known, state="failed", images=images, seconds=seconds, error=text))
        close(others, folder, "failed")
        raise
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # what follows in this process is alone
    state = "interrupted" if module.interrupted else "finished"
    local.event(f"{state} at {module.images} images")
    note(folder, replace(known, state=state, images=module.images, seconds=module.seconds))
    close(others, folder, state)


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


def mirrors(config: DictConfig, loggers: dict[str, Any], folder: Path, local: MetricsFile, images: int) -> list[Mirror]:
    """The other loggers, on rank 0, under names of their own, so that a resumed run goes on in the same record.

    Unlike metrics.jsonl they cannot be wound back. Lightning's CSV logger deletes what it finds: a table a start.
    """
    if rank_zero_only.rank > 0:
        return []
    hydra = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    choices = {group: str(choice) for group, choice in hydra.items() if choice and not group.startswith("hydra/")}
    own = {
        "csv": {"version": f"{folder.name}_from_{images}"},
        "tensorboard": {"version": folder.name},
        "wandb": {"choices": choices, "seed": config.seed, "warn": local.warn},
    }
    known = OmegaConf.to_container(config, resolve=True)
    del known["run"]  # repeats the rest
    made = [Mirror(name, partial(make, save_dir=folder, **own[name]), local.warn) for name, make in loggers.items()]
    for mirror in made:
        mirror.log_hyperparams(known | {"choices": choices, "folder": str(folder)})
    return made


def close(mirrors: list[Mirror], folder: Path, state: str) -> None:
    for mirror in mirrors:
        mirror.close(state)
    if mirrors and (command := sync_command(folder)):
        say(f"to upload what Weights & Biases has not got: {command}")


@rank_zero_only
def note(folder: Path, known: Status) -> None:
    status.write(folder, known)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@rank_zero_only
def say(text: str) -> None:
    print(text, flush=True)


@rank_zero_only
def finish(folder: Path) -> None:
    """Says where to look."""
    drawn = sorted(path.name for path in folder.glob("*.png"))
    for what in ("samples", *drawn, "loss_curve.csv", "metrics.jsonl", "model.safetensors"):
        if (folder / what).exists():
            say(f"  {folder / what}")
