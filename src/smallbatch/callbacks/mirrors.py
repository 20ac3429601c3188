"""Other loggers repeat what the run folder records. None of them can stop training."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image as PILImage

from smallbatch.errors import UserError

Act = Callable[[Logger], None]


class Mirror(Logger):
    """A logger that `make` starts, on rank 0. The first exception that it raises is told in one line; from then on it
    is left alone."""

    def __init__(self, name: str, make: Callable[[], Logger], warn: Callable[[str], None]):
        super().__init__()
        self._name, self.warn = name, warn
        self.logger: Logger | None = None
        try:
            self.logger = make()
        except ModuleNotFoundError as error:
            raise UserError(f"logger={name} needs its package ({error}): pip install 'smallbatch[{name}]'") from None
        except Exception as error:
            self._leave(error)

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> None:
        """None: only the run folder has one."""

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self._attempt(lambda logger: logger.log_hyperparams(params))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._attempt(lambda logger: logger.log_metrics(metrics, step))

    def log_image(self, name: str, picture: PILImage.Image, images: int) -> None:
        self._attempt(lambda logger: log_image(logger, name, picture, images))

    def close(self, state: str) -> None:
        """`state` as in status.json."""
        self._attempt(lambda logger: close(logger, state))
        self.logger = None

    def _attempt(self, act: Act) -> None:
        if self.logger is None:
            return
        try:
            act(self.logger)
        except Exception as error:  # whatever it is: the local record is whole without this logger
            self._leave(error)

    def _leave(self, error: Exception) -> None:
        abandon(self.logger)
        self.logger = None
        self.warn(f"logger={self._name} failed ({one_line(error)}): left alone from here on; metrics.jsonl has it all")


def one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def log_image(logger: Logger, name: str, picture: PILImage.Image, images: int) -> None:
    """Where a logger takes pictures."""
    match logger:
        case WandbLogger():
            from wandb import Image  # an extra

            logger.log_metrics({"images": images, name: Image(picture)}, step=images)
        case TensorBoardLogger():
            pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(name, pixels, images, dataformats="HWC")


def abandon(logger: Logger | None) -> None:
    """A service that is gone must not be waited for when this process ends."""
    if isinstance(logger, WandbLogger):
        import wandb

        with contextlib.suppress(Exception):  # it says that it is gone
            wandb.teardown()


def close(logger: Logger, state: str) -> None:
    done = state == "finished"
    logger.finalize("success" if done else "failed")
    if isinstance(logger, WandbLogger):  # Lightning leaves its run open: the next of this process would go on in it
        if state == "interrupted":
            logger.experiment.mark_preempting()
        logger.experiment.finish(exit_code=0 if done else 1)
