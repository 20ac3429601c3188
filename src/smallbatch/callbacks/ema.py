"""Averages of the network's weights, kept while training, lent to whoever samples, measures or exports."""

import difflib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import lightning as L
from torch import Tensor

from smallbatch.callbacks.cadence import StepCallback, passed
from smallbatch.ema import Average, Power, Profile, Weights, trainable
from smallbatch.errors import UserError
from smallbatch.posthoc import write_snapshot
from smallbatch.sharding import whole_weights


class EMA(StepCallback):
    """Per profile one average of the trainable parameters of `module.denoiser.network`; `keep` names the one used."""

    def __init__(self, profiles: dict[str, Profile], keep: str, snapshot_every_images: int | None = None):
        self.averages = {name: Average(profile) for name, profile in profiles.items()}
        self.keep = keep
        self.snapshot_every_images = snapshot_every_images
        self.is_swapped = False
        self.average()
        if any("/" in name for name in profiles):
            raise UserError(f"ema.profiles={list(profiles)}: a name must not contain /")
        if snapshot_every_images is not None:
            self._check_snapshots()

    def _check_snapshots(self) -> None:
        if self.snapshot_every_images < 1:
            raise UserError(f"ema.snapshot_every_images={self.snapshot_every_images}: give at least 1, or null")
        if not any(isinstance(average.profile, Power) for average in self.averages.values()):
            raise UserError(f"ema.snapshot_every_images needs a Power profile; {list(self.averages)} has none")

    def average(self, name: str | None = None) -> Average:
        wanted, known = name or self.keep, list(self.averages)
        if wanted not in known:
            near = ", ".join(difflib.get_close_matches(wanted, known) or known)
            raise UserError(f"no EMA profile is named {wanted!r}; nearest: {near}")
        return self.averages[wanted]

    @contextmanager
    def swapped(self, module: L.LightningModule, name: str | None = None) -> Iterator[None]:
        """The network with averaged weights, all of them on every rank; before the first update, with its own."""
        self._refuse("swap again")
        network = module.denoiser.network
        with self.average(name).swapped(network), whole_weights(network):
            self.is_swapped = True
            try:
                yield
            finally:
                self.is_swapped = False

    def weights(self, name: str | None = None) -> Weights:
        """An average in float32, whole, on the CPU of the first rank. Every rank must call this."""
        average = self.average(name)
        if not average.weights:
            raise RuntimeError("there is no average before the first optimizer step")
        return average.for_file().weights

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.parameters = trainable(module.denoiser.network)
        for average in self.averages.values():
            average.follow(self.parameters)

    def on_step(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._refuse("update")
        for average in self.averages.values():
            average.update(self.parameters, module.images, module.batch)
        if passed(module.images, module.batch, self.snapshot_every_images):
            averages = {name: average.for_file() for name, average in self.averages.items()}
            if trainer.is_global_zero:
                folder = Path(trainer.default_root_dir) / "checkpoints" / "ema"
                write_snapshot(folder / f"{module.images:09d}.safetensors", averages, module.images)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        self._refuse("save")
        return {name: dict(average.weights) for name, average in self.averages.items()}

    def load_state_dict(self, state_dict: dict[str, dict[str, Tensor]]) -> None:
        if state_dict.keys() != self.averages.keys():
            raise UserError(f"the checkpoint averages {list(state_dict)}, ema.profiles asks {list(self.averages)}")
        for name, weights in state_dict.items():
            self.averages[name].weights = {key: value.clone() for key, value in weights.items()}

    def _refuse(self, action: str) -> None:
        if self.is_swapped:
            raise RuntimeError(f"cannot {action} while the network holds averaged weights")


def averaged(trainer: L.Trainer, module: L.LightningModule) -> AbstractContextManager[None]:
    """The weights that the run's EMA keeps, for measuring and sampling."""
    (ema,) = (callback for callback in trainer.callbacks if isinstance(callback, EMA))
    return ema.swapped(module)
