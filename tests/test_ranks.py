"""Two processes train what one does, whether they hold the network each or share it out."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from smallbatch.asymmetric import SpeeD
from smallbatch.callbacks.budget import Budget
from smallbatch.callbacks.cadence import StepCallback
from smallbatch.callbacks.ema import EMA
from smallbatch.cli import train
from smallbatch.cli.main import quiet
from smallbatch.curricula import CLTS, CLTSInLogSNR, EasyToHard
from smallbatch.data.digits import Digits
from smallbatch.densities import Density, Uniform
from smallbatch.draws import Draw, LowDiscrepancy, Pairs, Rounds, Stratified
from smallbatch.ema import Halflife
from smallbatch.files import in_turn
from smallbatch.fsdp import FSDP
from smallbatch.fusing import Gate
from smallbatch.learning_rates import Constant
from smallbatch.masking import Unmasked
from smallbatch.mixtures import Mixture
from smallbatch.module import DiffusionModule
from smallbatch.objective import Objective
from smallbatch.optimizers import adamw
from smallbatch.predictions import Prediction, V
from smallbatch.proposals import AsDrawn, Importance, LossProportional, PooledGradient, Proposal, RootLoss
from smallbatch.slots import OnlineSlots
from smallbatch.teaching import OnHeads
from smallbatch.timesteps import Timesteps
from smallbatch.uncertainty import Uncertainty, UncertaintyBinned
from smallbatch.weightings import Plain, Weighting
from tests.cli import TINY
from tests.outcome import figures, run_folder, weights
from tests.processes import FORKS
from tests.tiny import tiny_denoiser

CONF = Path(__file__).parents[1] / "conf"
BATCH, STEPS, CLOSE = 16, 10, 5e-6


class Choice(NamedTuple):
    """What is learned beside the weights; made anew for every training, for it holds state."""

    proposal: Callable[[], Proposal] = AsDrawn
    density: Callable[[], Density] = Uniform
    draw: Callable[[], Draw] = Stratified
    weighting: Callable[[], Weighting] = Plain
    prediction: Callable[[], Prediction] = V


def gate() -> Mixture:
    return Mixture(Gate(), OnHeads())


learned = partial(Uncertainty, Plain(), 16)
binned = partial(UncertaintyBinned, Plain())
CHOICES = {  # few bins, so that all have been seen after some steps
    "stratified": Choice(),
    "importance": Choice(partial(Importance, 8, 2), draw=LowDiscrepancy, weighting=learned),
    "root_loss": Choice(partial(RootLoss, 8), prediction=gate),
    "pooled_gradient": Choice(partial(PooledGradient, 8), weighting=binned),
    "loss_proportional": Choice(partial(LossProportional, 8), weighting=learned, prediction=gate),
    "slots": Choice(partial(OnlineSlots, 3, bins=8), draw=partial(Rounds, 3), weighting=binned, prediction=gate),
    "clts": Choice(density=CLTS, weighting=learned),
    "clts_logsnr": Choice(density=CLTSInLogSNR, weighting=binned),
    "easy_to_hard": Choice(density=partial(EasyToHard, 4, 1.0, patience_images=32), prediction=gate),
    "speed": Choice(density=SpeeD, draw=Pairs, weighting=learned),
}
SPLITS = {"ddp": ("ddp", 1), "ddp, accumulation 2": ("ddp", 2), "fsdp, accumulation 2": (FSDP, 2)}
HALF = "importance"  # the training that goes on elsewhere


class Seen(StepCallback):
    """The rows that this rank's denoiser was given, and the losses of all."""

    def __init__(self) -> None:
        self.x: list[Tensor] = []
        self.t: list[Tensor] = []
        self.losses: list[Tensor] = []

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        module.denoiser.register_forward_pre_hook(self.look)

    def look(self, denoiser: nn.Module, given: tuple[Any, ...]) -> None:
        self.x.append(given[0])
        self.t.append(given[1].t)

    def on_step(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        self.losses.append(module.observed.loss)

    def found(self) -> dict[str, Tensor]:
        """(steps, rows of a step, ...)"""
        return {name: torch.stack(getattr(self, name)) for name in ("x", "t", "losses")}


def module_of(choice: Choice) -> DiffusionModule:
    times = Timesteps(choice.draw(), choice.density(), choice.proposal())
    denoiser = tiny_denoiser(prediction=choice.prediction(), spec=Digits(BATCH, 0).spec)
    objective = Objective(times, choice.weighting(), Unmasked(), drop_condition=0.2)
    return DiffusionModule(denoiser, objective, partial(adamw, batch=BATCH, lr=0.01), Constant(), BATCH, 0, clip_norm=1)


def fit(
    folder: Path, name: str, strategy: Any, micros: int, devices: int, start: Path | None = None, stop: int = STEPS
):
    """Trains `stop` of STEPS optimizer steps and keeps what was seen and a checkpoint."""
    seen, words = Seen(), dict(accumulate_grad_batches=micros, max_steps=stop, devices=devices)
    words |= dict(callbacks=[Budget(BATCH * STEPS), EMA({"a": Halflife(100)}, "a"), seen], default_root_dir=folder)
    words |= dict(max_epochs=-1, use_distributed_sampler=False, limit_val_batches=0, num_sanity_val_steps=0)
    words |= dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = L.Trainer(accelerator="cpu", strategy=strategy, **words)
    trainer.fit(module_of(CHOICES[name.split(",")[0]]), Digits(BATCH, 0), ckpt_path=start, weights_only=True)
    trainer.save_checkpoint(folder / f"{name}.ckpt")
    torch.save(seen.found(), folder / f"{name}.{trainer.global_rank}.seen")


def command(root: Path, *words: str) -> None:
    """`smallbatch train` without the command line."""
    more = ["trainer.accelerator=cpu", "validation.count=33", "ema.snapshot_every_images=64", "budget.images=64"]
    more += ["batch=16", "weighting=uncertainty", "prediction=mixed_gate", "sampler.steps=4", f"root={root}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*TINY, *more, *words])
    train.run(config)


def alone(folder: Path) -> None:
    for name in CHOICES:
        fit(folder, name, "auto", 1, 1)
    fit(folder, f"{HALF}, half", "auto", 1, 1, stop=STEPS // 2)
    command(folder)


def together(folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank_zero_only.rank, world_size=2)
    for name in CHOICES:
        for split, (strategy, micros) in SPLITS.items():
            fit(folder, f"{name}, {split}", strategy if strategy == "ddp" else strategy(), micros, 2)
    fit(folder, f"{HALF}, half by fsdp", FSDP(), 2, 2, stop=STEPS // 2)
    fit(folder, f"{HALF}, fsdp after one", FSDP(), 1, 2, start=folder / f"{HALF}, half.ckpt")
    fit(folder, f"{HALF}, ddp after fsdp", "ddp", 1, 2, start=folder / f"{HALF}, half by fsdp.ckpt")
    command(folder / "fsdp", "trainer=fsdp", "devices=2")


def alone_again(folder: Path) -> None:
    fit(folder, f"{HALF}, one after fsdp", "auto", 2, 1, start=folder / f"{HALF}, half by fsdp.ckpt")


def process(work: Callable[[Path], None], folder: Path, rank: int, ranks: int) -> None:
    """As torchrun starts it."""
    torch.set_num_threads(1)
    quiet()
    rank_zero_only.rank = rank
    if ranks > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
        os.environ |= {name: str(number) for name, number in numbers.items()}
        os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    work(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What all trainings left; of several workers of pytest one trains."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ranks"
    with in_turn(folder):
        if not (folder / "done").exists():
            folder.mkdir()
            for work, ranks in ((alone, 1), (together, 2), (alone_again, 1)):
                start(work, folder, ranks)
            (folder / "done").touch()
    return folder


def start(work: Callable[[Path], None], folder: Path, ranks: int) -> None:
    given = [(work, folder, rank, ranks) for rank in range(ranks)]
    started = [FORKS.Process(target=process, args=args, daemon=True) for args in given]
    for one in started:
        one.start()
    wait([one.sentinel for one in started], timeout=600)  # for the first: where one has died the other waits for it
    if any(one.exitcode for one in started):
        for one in started:
            one.kill()
    for one in started:
        one.join(60)
        assert one.exitcode == 0, f"{work.__name__}: {one.exitcode}"


def tensors(tree: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """What a checkpoint holds, by name, without the clock and Lightning's own counters."""
    if isinstance(tree, dict | list | tuple):
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from tensors(part, f"{at}/{key}")
    elif not at.endswith("seconds") and not at.startswith(("/loops", "/epoch")):
        yield at, tree


def furthest(folder: Path, ours: str, theirs: str) -> float:
    """The largest difference between two checkpoints, of values above 1 in proportion; all but tensors is equal."""
    one, other = (dict(tensors(torch.load(folder / f"{name}.ckpt", weights_only=True))) for name in (ours, theirs))
    assert one.keys() == other.keys()
    found = 0.0
    for name, value in one.items():
        if isinstance(value, Tensor):
            assert value.shape == other[name].shape and value.dtype == other[name].dtype, name
            difference = (value.double() - other[name]).abs() / value.double().abs().clamp(min=1)
            found = max(found, difference.max().item())
        else:
            assert value == other[name], name
    return found


def seen(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    return torch.load(folder / f"{name}.{rank}.seen", weights_only=True)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("choice", CHOICES)
def test_two_processes_do_what_one_does(choice, split, folder):
    """To float32 rounding: every row's loss at every step, and all that a checkpoint holds. Measured: below 1e-6."""
    one, two = seen(folder, choice), seen(folder, f"{choice}, {split}")
    torch.testing.assert_close(two["losses"], one["losses"], rtol=CLOSE, atol=CLOSE)
    assert furthest(folder, choice, f"{choice}, {split}") < CLOSE


@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_learned_was_past_its_warm_up(choice, folder):
    """Else two processes would only have agreed on where everything starts."""
    state = torch.load(folder / f"{choice}.ckpt", weights_only=True)["state_dict"]
    for name, value in state.items():
        if name.startswith("objective.timesteps.proposal") and name.endswith((".weight", ".count")):
            assert (value >= (2 if name.endswith("count") else 1e-9)).all(), name
        if name.endswith(("opened", "coefficients")):
            assert (value != (1 if name.endswith("opened") else 0)).all(), name


@pytest.mark.parametrize("split", SPLITS)
def test_each_rank_sees_rows_of_its_own_that_together_are_those_of_one_process(split, folder):
    one = seen(folder, "stratified")
    ranks = [seen(folder, f"stratified, {split}", rank) for rank in range(2)]
    micros = SPLITS[split][1]
    for name in ("x", "t"):
        parts = [rank[name].unflatten(0, (STEPS, micros)) for rank in ranks]
        together = torch.stack(parts, dim=2).flatten(1, 3)
        torch.testing.assert_close(together, one[name], rtol=CLOSE, atol=CLOSE)
    slots = [(rank["t"].reshape(STEPS, -1) * BATCH).long() for rank in ranks]
    assert torch.equal(torch.cat(slots, dim=1).sort(dim=1).values, torch.arange(BATCH).expand(STEPS, -1))
    first, second = (rank["x"].reshape(STEPS, BATCH // 2, -1) for rank in ranks)
    assert torch.cdist(first, second).min() > 0.1  # one row's noise is no other's


@pytest.mark.parametrize("how", ["fsdp after one", "ddp after fsdp", "one after fsdp"])
def test_a_run_goes_on_with_other_devices_and_another_strategy(how, folder):
    assert furthest(folder, HALF, f"{HALF}, {how}") < CLOSE


def test_a_checkpoint_of_shared_weights_is_one_file_like_any_other(folder):
    assert (folder / f"{HALF}, half by fsdp.ckpt").is_file()
    assert furthest(folder, f"{HALF}, half", f"{HALF}, half by fsdp") < CLOSE


def test_sharing_the_weights_out_leaves_the_run_folder_as_it_is(folder):
    """The same name, checkpoint, figures, export, snapshots and pictures; nothing of a second rank's."""
    one, two = runs = [run_folder(root) for root in (folder, folder / "fsdp")]
    names = [{str(path.relative_to(run)) for path in run.rglob("*")} for run in runs]
    assert one.name == two.name and names[0] == names[1] and "samples/000000064.png" in names[0]
    assert furthest(one / "checkpoints", "last", two / "checkpoints" / "last") < CLOSE
    for ours, theirs in zip(figures(folder), figures(folder / "fsdp"), strict=True):
        assert theirs["name"] == ours["name"] and theirs["value"] == pytest.approx(ours["value"], rel=CLOSE)
    torch.testing.assert_close(weights(folder / "fsdp"), weights(folder), rtol=2e-3, atol=CLOSE)  # stored as float16
