"""`smallbatch train`: configuration -> objects -> a run folder."""

import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from smallbatch import status
from smallbatch.callbacks.budget import Budget
from smallbatch.cli import cluster, devices, disk, initial, lifeline, naming, plan
from smallbatch.cli.building import from_config
from smallbatch.cli.fitting import fit, note, say
from smallbatch.cli.resume import find_start, open_folder
from smallbatch.data.stream import micro_batch, whole_images
from smallbatch.denoiser import Denoiser, Steps
from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule
from smallbatch.notation import ImageSpec
from smallbatch.randomness import key
from smallbatch.status import Status


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
    if budget.spent(start.images, start.seconds, start.device_seconds) >= 1:
        say(f"already trained: {folder}")
        known = status.read(folder) or Status("finished", devices=config.devices * config.nodes)
        spent = {"images": start.images, "seconds": start.seconds, "device_seconds": start.device_seconds}
        note(folder, replace(known, state="finished", **spent, error=None))
        finish(folder)
        if config.metrics.scores and not (folder / "metrics" / f"{start.images:09d}.json").exists():
            say(f"its last scores were not recorded; to draw them: {scoring(config, folder)}")
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
    if config.noise_condition != 0 and config.data.get("low_size") is None:
        raise UserError(f"noise_condition={config.noise_condition} needs small images: give data.low_size too")
    whole_images(config.batch, config.per_image)
    micro_batch(config.batch, config.devices * config.nodes, config.accumulation)
    if devices.shares_weights(config):
        devices.check_sharing(config)
    if config.precision not in config.precisions:
        raise UserError(f"precision={config.precision} is not known: use {' or '.join(config.precisions)}")


def check_timesteps(objects: dict[str, Any]) -> None:
    """Needs neither the data nor the network."""
    objects["module"].keywords["objective"].timesteps.check(objects["denoiser"].keywords["schedule"])


def build(config: DictConfig, objects: dict[str, Any]) -> DiffusionModule:
    """The module with its network initialised, laid out and compiled as asked; the data read."""
    text = initial.vocabulary(objects["text"], config.init_from)
    if text is not None:
        for line in objects["data"].tell(text):
            say(line)
        if not objects["data"].brings_text:
            objects["data"].text.prepare()
    objects["data"].setup("fit")
    if objects["data"].autoencoder is not None:
        objects["data"].autoencoder.prepare()  # pictures of samples need it
    drawn_up = plan.on_meta(objects["denoiser"], objects["data"].spec)
    check_network(drawn_up, objects["data"].spec)
    objects["module"].keywords["objective"].masking.check(drawn_up.network)
    if config.init_from is not None:
        initial.check(drawn_up, config.init_from, objects["data"].autoencoder)
    torch.manual_seed(key(config.seed, "initial weights"))
    module = objects["module"](denoiser=objects["denoiser"](spec=objects["data"].spec))
    if config.init_from is not None:
        initial.load(module.denoiser, config.init_from)
    objects["callbacks"]["grid"].sampler.times(module.denoiser.schedule, torch.device("cpu"))
    network = module.denoiser.network
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    if config.compile:
        network.compile()
    objects["callbacks"]["metrics"].check(objects["data"])
    module.configure_optimizers()  # refuses what cannot be before the folder is made
    return module


def check_network(denoiser: Denoiser, spec: ImageSpec) -> None:
    """Whether it fits the images; `denoiser` lives on the meta device."""
    if denoiser.spec.low_size != spec.low_size:
        kind = type(denoiser.network).__name__
        raise UserError(f"data.low_size={spec.low_size}: {kind} enlarges no images: leave it out, or network=unet")
    if denoiser.spec.text != spec.text:
        kind = type(denoiser.network).__name__
        raise UserError(f"text: {kind} hears no text: network=microdit_shapes, or text=none")
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


def scoring(config: DictConfig, folder: Path) -> str:
    """The command that draws the scores which training asks for."""
    words = [f"run={folder}", f"n={config.metrics.n}", f"steps={config.sampler.steps}"]
    words += [f"guidance={config.sampler.guidance}"]
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        words += [f"{group}={hydra.runtime.choices[group]}" for group in ("metrics", "extractor", "sampler")]
        words += [word for word in hydra.overrides.task if word.startswith(("metrics.", "extractor.", "sampler/"))]
    return shlex.join(["smallbatch", "evaluate", *words])


@rank_zero_only
def finish(folder: Path) -> None:
    """Says where to look."""
    drawn = sorted(path.name for path in folder.glob("*.png"))
    for what in ("samples", *drawn, "loss_curve.csv", "metrics.jsonl", "model.safetensors"):
        if (folder / what).exists():
            say(f"  {folder / what}")
