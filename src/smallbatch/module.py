"""The Lightning face of a denoiser and its objective: one optimizer step, counted in images."""

from collections.abc import Callable, Iterable

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from smallbatch.denoiser import Denoiser
from smallbatch.ema import trainable
from smallbatch.errors import UserError
from smallbatch.learning_rates import LearningRate
from smallbatch.networks.experts import Experts
from smallbatch.notation import Batch, Observed
from smallbatch.objective import Objective
from smallbatch.randomness import Step, seed_layers
from smallbatch.sharding import clip_, shard


class DiffusionModule(L.LightningModule):
    """`batch` counts the rows of an optimizer step over all ranks and micro-batches; experts learn at `expert_lr` times
    the rate.

    Callbacks read `images`, `window_ended`, `observed` and `grad_norm`. The budget sets `progress`, `seconds` and
    `interrupted`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        objective: Objective,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        lr_schedule: LearningRate,
        batch: int,
        seed: int,
        clip_norm: float | None = None,
        expert_lr: float = 1.0,
    ):
        super().__init__()
        if clip_norm is not None and clip_norm <= 0:
            raise UserError(f"{clip_norm=} must be above 0, or null for no clipping")
        if not expert_lr > 0:
            raise UserError(f"{expert_lr=} must be above 0, and 1 for the rate of all other weights")
        self.denoiser, self.objective, self.expert_lr = denoiser, objective, expert_lr
        self.optimizer, self.lr_schedule = optimizer, lr_schedule
        self.batch, self.seed, self.clip_norm = batch, seed, torch.inf if clip_norm is None else clip_norm
        self.progress = 0.0  # share of the budget spent
        self.seconds = 0.0  # spent in training, over all resumptions
        self.window_ended = False  # whether the last micro-batch completed an optimizer step
        self.interrupted = False  # whether a signal asked training to stop after this step
        self.grad_norm: Tensor = torch.tensor(0.0)
        self.observed: Observed | None = None  # all rows of the last optimizer step
        self._micro_batches: list[Observed] = []

    def configure_model(self) -> None:
        """Where the strategy shares weights out, the network's: never the schedule, the objective, or a buffer."""
        if self.device_mesh is not None:
            shard(self.denoiser.network, self.device_mesh["data_parallel"])

    @property
    def images(self) -> int:
        """Rows of all optimizer steps done."""
        return self.global_step * self.batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.window_ended = False
        step = self.step(micro=len(self._micro_batches))
        seed_layers(self.seed, "dropout", step.index, step.micro, step.rank, device=self.device)
        loss = self.objective(self.denoiser, batch.x0, batch.condition, step)
        self._micro_batches.append(loss.observed)
        return loss.value

    def step(self, micro: int = 0) -> Step:
        t = self.trainer
        where = dict(rank=t.global_rank, ranks=t.world_size, micro=micro, micros=t.accumulate_grad_batches)
        return Step(self.seed, self.global_step, self.images, self.progress, **where)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        factor, beta1 = self.lr_schedule(self.images + self.batch, self.progress), self.lr_schedule.beta1(self.progress)
        for group in optimizer.param_groups:
            group["lr"] = factor * group.setdefault("initial_lr", group["lr"])
            if beta1 is not None:
                group["betas"] = (beta1, *group["betas"][1:])
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        self.grad_norm = clip_(trained, self.clip_norm)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Optimizer, closure: Callable) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, closure)
        self.observed = self._all_rows()
        self.objective.observe(self.observed)
        self.denoiser.prediction.observe(self.observed)
        self.window_ended = True

    def _all_rows(self) -> Observed:
        """The step's rows of every rank and micro-batch in global order; empties the list."""
        fields = [None if f[0] is None else torch.stack(f) for f in zip(*self._micro_batches, strict=True)]
        self._micro_batches.clear()
        if self.trainer.world_size > 1:  # (ranks, micros, rows, ...) -> micros first
            fields = [None if f is None else self.all_gather(f).transpose(0, 1).flatten(0, 1) for f in fields]
        return Observed(*(None if f is None else f.flatten(0, 1) for f in fields))

    def configure_optimizers(self) -> Optimizer:
        network = {*trainable(self.denoiser.network).values()}
        experts = self.experts() if self.expert_lr != 1 else []
        optimizer = self.optimizer(p for p in self.parameters() if p in network - {*experts})
        if experts:
            optimizer.add_param_group({"params": experts, "lr": self.expert_lr * optimizer.defaults["lr"]})
        learned = [p for p in self.parameters() if p.requires_grad and p not in network]
        if learned:  # in a group of their own: no optimizer takes one of which some are shared out and some are not
            optimizer.add_param_group({"params": learned})
        if self.lr_schedule.beta1(self.progress) is not None and "betas" not in optimizer.defaults:
            names = f"{type(self.lr_schedule).__name__} moves beta1, and {type(optimizer).__name__} has none"
            raise UserError(f"lr_schedule: {names}: use optimizer=adamw, or lr_schedule=linear for the rate alone")
        return optimizer

    def experts(self) -> list[nn.Parameter]:
        """The weights of the network's experts."""
        network = self.denoiser.network
        found = [p for part in network.modules() if isinstance(part, Experts) for p in part.parameters()]
        if not found:
            raise UserError(f"expert_lr={self.expert_lr}: {type(network).__name__} has no experts: leave it at 1")
        return found
