"""One training: the trainer and what it needs, what is recorded of it, and how it ended."""

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
from smallbatch.callbacks.checkpoint import AtomicCheckpointIO
from smallbatch.callbacks.ema import EMA
from smallbatch.callbacks.mirrors import Mirror
from smallbatch.callbacks.record import MetricsFile
from smallbatch.callbacks.wandb import sync_command
from smallbatch.cli import cluster, lifeline, plan, runs
from smallbatch.cli.resume import Start
from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule
from smallbatch.status import State, Status

Export = Callable[[L.Trainer, DiffusionModule], None]


def fit(
    config: DictConfig,
    objects: dict[str, Any],
    module: DiffusionModule,
    folder: Path,
    local: MetricsFile,
    start: Start,
) -> None:
    data, callbacks = objects["data"], objects["callbacks"]
    masking = objects["module"].keywords["objective"].masking
    flops, _ = plan.measure(plan.on_meta(objects["denoiser"], data.spec), masking)
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
    devices, device = config.devices * config.nodes, device_name(trainer.strategy.root_device)
    known = Status("training", start.images, start.seconds, start.device_seconds, devices, device, flops)
    note(folder, known)

    def ended(state: State, error: str | None = None) -> None:
        now = replace(known.reached(module.images, module.seconds), state=state, error=error)
        note(folder, now)  # first: a disk may have room for this alone
        local.event(error or f"{state} at {now.images} images")

    if config.devices > 1:
        lifeline.lead()
    try:
        trainer.fit(module, data, ckpt_path=start.checkpoint, weights_only=True)
    except Exception as error:
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        with suppress(UserError):  # a disk too full for the checkpoint may be too full for this
            ended("failed", text)
        close(others, folder, "failed")
        raise
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # what follows in this process is alone
    state = "interrupted" if module.interrupted else "finished"
    ended(state)
    close(others, folder, state)


def exporter(config: DictConfig, folder: Path, data: L.LightningDataModule, ema: EMA) -> Export:
    """Writes model.safetensors and model.json: enough to sample without the training configuration."""
    known = {
        "denoiser": OmegaConf.to_container(config.run.denoiser, resolve=True),
        "spec": data.spec._asdict(),
        "class_names": data.class_names,
        "text": data.text and data.text.described(),
        "latents": data.autoencoder and data.autoencoder.described(),
        "data_fingerprint": data.made_from,
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
