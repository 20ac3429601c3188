"""Scores of the averaged weights' samples while training."""

from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn

from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.ema import averaged
from smallbatch.callbacks.record import Figure, record
from smallbatch.data.module import ImageData
from smallbatch.errors import UserError
from smallbatch.generation import generate, of_class
from smallbatch.metrics.evaluation import Evaluation
from smallbatch.metrics.judged import Judged, write
from smallbatch.metrics.looking import Samples
from smallbatch.metrics.shares import share
from smallbatch.metrics.validity import NotFinite, Seen
from smallbatch.module import DiffusionModule
from smallbatch.sampler import Sampler


class Metrics(ImagesCallback):
    """The same noise and the same classes in turn, or the same held-out images to enlarge, every time.

    Without scores it does nothing.

    Figures go to the record; all that must be known of them to metrics/IMAGES.json.

    What it holds is no part of the module: no checkpoint and no average knows of it.
    """

    def __init__(
        self, evaluation: Evaluation, sampler: Sampler, every_images: int | None, seed: int = 0, batch: int = 250
    ):
        super().__init__(every_images)
        if evaluation.scores and evaluation.n is None:
            raise UserError("metrics.n=null: say how many images to draw")
        if batch < 1:
            raise UserError(f"metrics.batch={batch} must be at least 1")
        self.evaluation, self.sampler, self.seed, self.batch = evaluation, sampler, seed, batch

    def due(self, module: DiffusionModule) -> bool:
        return bool(self.evaluation.scores) and super().due(module)

    def check(self, data: ImageData) -> None:
        """Refuses what the data cannot be scored by."""
        if self.evaluation.scores and data.spec.latents:
            raise UserError(
                "metrics: latents are no images to compare with: leave metrics out, and when it is trained run "
                "`smallbatch evaluate run=RUN data=...` with the images that they were made from"
            )
        for judge in self.evaluation.judges:
            if data.text is None:
                raise UserError(f"metrics.scores={judge.score} needs prompts: choose text=words, or metrics=quick")

    def prepare(self, data: ImageData) -> None:
        """Refuses what could not be scored, and measures the real images, before training starts."""
        if self.evaluation.scores:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            self.evaluation.prepare(data, data.spec, self.evaluation.n, device)

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        spec, n, data = module.denoiser.spec, self.evaluation.n, trainer.datamodule
        labels = torch.arange(n) % spec.classes if spec.classes else None
        told, prompts = of_class(labels), data.captions(torch.arange(n)) if spec.text else None
        if spec.told_by_data:
            told, labels = data.told, data.labels(torch.arange(n))
        seen = Seen(spec.channels)
        module.eval()
        with averaged(trainer, module):  # in float32, whatever training is in: as `smallbatch evaluate` draws them
            images = generate(module.denoiser, self.sampler, told, share(n), self.seed, self.batch)
            try:
                judged = self.evaluation(Samples(n, seen.quantise(images), seen, labels, (), prompts, module.device))
            except NotFinite as error:  # the next samples may be sound
                rank_zero_warn(f"at {module.images} images: {error}")
                judged = Judged([], None)
        module.train()
        record(trainer, module, [Figure(f"metrics/{score.name}", score.value, score.n) for score in judged.scores])
        if trainer.is_global_zero and judged.scores:
            asked = {"images": module.images, "seed": self.seed, "steps": self.sampler.steps}
            asked |= {"guidance": self.sampler.guidance}
            write(judged, Path(trainer.default_root_dir) / "metrics" / f"{module.images:09d}.json", asked)
