"""Learning rates and Adam's memory, counted in images."""

from functools import partial

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from smallbatch.callbacks.budget import Budget
from smallbatch.callbacks.cadence import StepCallback
from smallbatch.denoiser import Continuous, Denoiser
from smallbatch.densities import Uniform
from smallbatch.draws import Stratified
from smallbatch.errors import UserError
from smallbatch.learning_rates import MDLRC, Beta1Decay, Constant, Cosine, InverseSqrt, Linear, LinearCooldown
from smallbatch.masking import Unmasked
from smallbatch.module import DiffusionModule
from smallbatch.networks.experts import Experts
from smallbatch.networks.microdit import MicroDiT
from smallbatch.notation import Batch, Condition, ImageSpec
from smallbatch.objective import Objective
from smallbatch.optimizers import adamw
from smallbatch.predictions import V
from smallbatch.timesteps import Timesteps
from smallbatch.weightings import Plain
from tests.leaves import SCHEDULES
from tests.tiny import tiny_denoiser

TABLE = {  # progress: beta1, factor on the rate; from beta1 = 0.9
    0.0: (0.9, 1.0),
    0.25: (0.871, 0.775),
    0.5: (0.818, 0.55),
    0.75: (0.692, 0.325),
    0.9: (0.474, 0.19),
    1.0: (0.0, 0.1),
}
WARMING_UP = [Constant(100), Cosine(100), InverseSqrt(10_000, 100), LinearCooldown(100), Linear(100)]
WARMING_UP += [MDLRC(0.9, 100), Beta1Decay(0.9, 100)]


@pytest.mark.parametrize("leaf", WARMING_UP, ids=lambda leaf: type(leaf).__name__)
def test_warm_up_is_a_straight_line_in_images(leaf):
    assert [leaf(images, 0.0) for images in (25, 50, 100, 200)] == pytest.approx([0.25, 0.5, 1.0, 1.0])


def test_each_shape_passes_through_its_known_points():
    assert [Cosine()(1, p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.5, 0])
    assert [Cosine(floor=0.1)(1, p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.55, 0.1])
    assert [InverseSqrt(100)(n, 0.0) for n in (50, 100, 400)] == pytest.approx([1, 1, 0.5])
    assert [LinearCooldown(cooldown=0.2)(1, p) for p in (0.0, 0.8, 0.9, 1.0)] == pytest.approx([1, 1, 0.5, 0])


def test_a_cooldown_outside_the_budget_is_refused():
    with pytest.raises(UserError, match=r"cooldown=1\.5"):
        LinearCooldown(cooldown=1.5)


def test_adams_second_moment_halves_in_the_same_images_for_every_batch():
    for batch in (8, 64, 512):
        (group,) = adamw([torch.nn.Parameter(torch.zeros(1))], batch, lr=1e-3, beta2_halflife_images=64e3).param_groups
        assert group["betas"][1] ** (64_000 / batch) == pytest.approx(0.5)


def test_mdlrc_follows_its_table_and_its_ablations_one_column_each():
    for progress, (beta1, factor) in TABLE.items():
        assert MDLRC(0.9).beta1(progress) == Beta1Decay(0.9).beta1(progress) == pytest.approx(beta1, abs=5e-4)
        assert MDLRC(0.9)(1, progress) == pytest.approx(factor, abs=1e-12) == Linear(floor=0.1)(1, progress)
        assert Beta1Decay(0.9)(1, progress) == 1 and Linear().beta1(progress) is None


@pytest.mark.parametrize("beta1", [0.5, 0.9, 0.99])
def test_mdlrc_keeps_what_a_fresh_gradient_counts_in_an_update(beta1):
    counts = [MDLRC(beta1)(1, n / 1000) * (1 - MDLRC(beta1).beta1(n / 1000)) for n in range(1001)]
    assert counts == pytest.approx([1 - beta1] * 1001, rel=0, abs=1e-12)


@pytest.mark.parametrize("beta1", [0.0, 1.0])
def test_momentum_that_cannot_decay_is_refused(beta1):
    with pytest.raises(UserError, match=f"beta1={beta1}"):
        MDLRC(beta1)


class Watch(StepCallback):
    """The optimizer's settings of every step."""

    def __init__(self):
        self.seen = []

    def on_step(self, trainer, module):
        (group,) = trainer.optimizers[0].param_groups
        self.seen.append((group["lr"], *group["betas"]))


def module(optimizer, denoiser=None, **options):
    objective = Objective(Timesteps(Stratified(), Uniform()), Plain(), Unmasked())
    return DiffusionModule(denoiser or tiny_denoiser(), objective, optimizer, MDLRC(0.9), batch=4, seed=0, **options)


def train(folder, steps, resume=None):
    """Settings of the steps up to `steps` of a budget of 10, in two micro-batches each; leaves a checkpoint."""
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    watch = Watch()
    limits = dict(max_steps=steps, accumulate_grad_batches=2, callbacks=[Budget(images=40), watch])
    trainer = L.Trainer(default_root_dir=folder, accelerator="cpu", **limits, **off)
    rows = [Batch(torch.rand(2, 1, 8, 8), Condition(torch.zeros(2, dtype=torch.long)))] * 20
    made = module(partial(adamw, batch=4, lr=1e-3))
    trainer.fit(made, DataLoader(rows, batch_size=None), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    return watch.seen


def test_a_run_gives_its_optimizer_these_betas_and_rates_and_a_resumed_run_goes_on_with_them(tmp_path):
    whole, leaf, beta2 = train(tmp_path, 10), MDLRC(0.9), 0.5 ** (4 / 90_000)
    expected = [(1e-3 * leaf(1, n / 10), leaf.beta1(n / 10), beta2) for n in range(10)]
    assert whole == [pytest.approx(settings) for settings in expected]
    assert train(tmp_path, 4) + train(tmp_path, 10, resume=tmp_path / "last.ckpt") == whole


def test_an_optimizer_without_betas_is_refused_where_they_would_move():
    with pytest.raises(UserError, match="MDLRC moves beta1, and SGD has none: use optimizer=adamw"):
        module(torch.optim.SGD).configure_optimizers()


def test_experts_learn_at_their_own_rate_and_every_weight_at_one():
    small = dict(width=16, depth=2, head_width=8, mixer_width=16, mixer_depth=2, experts=2, multiple=8, decoder=1)
    network = partial(MicroDiT, patch=2, **small)
    schedule = SCHEDULES["cosine"]
    denoiser = Denoiser(lambda spec, outputs: network(spec, outputs), schedule, V(), Continuous(), ImageSpec(1, 8, 0))
    made = module(partial(adamw, batch=4, lr=1e-3), denoiser, expert_lr=0.5)
    common, own = made.configure_optimizers().param_groups
    experts = [p for part in denoiser.network.modules() if isinstance(part, Experts) for p in part.parameters()]
    assert (common["lr"], own["lr"]) == (1e-3, 5e-4) and own["params"] == experts and len(experts) == 2
    assert len(common["params"]) + len(experts) == len([*denoiser.network.parameters()])


def test_an_experts_rate_without_experts_is_refused():
    with pytest.raises(UserError, match=r"expert_lr=0.5: Tiny has no experts: leave it at 1"):
        module(partial(adamw, batch=4, lr=1e-3), expert_lr=0.5).configure_optimizers()
