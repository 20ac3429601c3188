"""Which patches are hidden is drawn evenly and by image alone; the loss is that of what was seen."""

from functools import partial

import pytest
import torch

from smallbatch.denoiser import Continuous, Denoiser
from smallbatch.densities import Uniform
from smallbatch.draws import Stratified
from smallbatch.errors import UserError
from smallbatch.masking import Deferred, MaskDiT, Naive, Routed, Unmasked
from smallbatch.networks.dit import DiT
from smallbatch.networks.microdit import MicroDiT
from smallbatch.networks.unet import UNet
from smallbatch.notation import Condition, ImageSpec, Way
from smallbatch.objective import Objective
from smallbatch.predictions import Eps
from smallbatch.randomness import Step
from smallbatch.timesteps import Timesteps
from smallbatch.variances import LearnedVariance
from smallbatch.weightings import Plain
from tests.chi_square import fits
from tests.leaves import MIXTURES, PREDICTIONS, SCHEDULES, TABLES

cases = pytest.mark.parametrize
STEP = Step(seed=0, index=0, images=0, progress=0.0)
SPEC = ImageSpec(2, 8, 3)
DIT = partial(DiT, patch=2, width=8, depth=4, heads=2, mixer=1, decoder=1)
MASKED = {Naive: Way.NAIVE, Deferred: Way.DEFERRED, MaskDiT: Way.MASKDIT, Routed: Way.ROUTED}
every_masking = cases("masking", MASKED, ids=lambda masking: masking.__name__)


def network(patches_per_side: int = 4) -> DiT:
    return DIT(SPEC._replace(size=2 * patches_per_side), 1)


def denoiser_of(prediction=PREDICTIONS["v"], schedule=SCHEDULES["cosine"]) -> Denoiser:
    torch.manual_seed(0)
    made = Denoiser(DIT, schedule, prediction, Continuous(), SPEC, 0.5)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def images(rows: int = 6) -> tuple[torch.Tensor, Condition]:
    x0 = torch.rand(rows, 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return x0, Condition(torch.arange(rows) % 3)


def lost(masking, denoiser=None, step=STEP):
    objective = Objective(Timesteps(Stratified(), Uniform()), Plain(), masking, drop_condition=0.2)
    return objective(denoiser or denoiser_of(), *images(), step)


def noised(denoiser: Denoiser):
    """The level, the noise and the network's input that `lost` has drawn."""
    x0, condition = images()
    level = denoiser.schedule(lost(Unmasked(), denoiser).t)
    eps = STEP.draw("noise", torch.randn, x0.shape)
    drop = STEP.draw("dropped conditions", torch.rand, (len(x0),)) < 0.2
    return x0, eps, level, level.mix(x0, eps), denoiser.network.forget(condition, drop)


def hidden(masking, rows: int, patches_per_side: int = 4, step: Step = STEP):
    side = 2 * patches_per_side
    return masking(step, torch.zeros(rows, 2, side, side), network(patches_per_side))


def of_patch(maps: torch.Tensor, number: int) -> torch.Tensor:
    row, column = divmod(number, 4)
    return maps[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]


@every_masking
@cases("ratio, side, count", [(0.75, 4, 4), (0.5, 3, 4), (0.9, 4, 1), (0.7, 5, 7), (0.9, 10, 10)])
def test_exactly_the_asked_share_of_each_image_is_kept(masking, ratio, side, count):
    keep = hidden(masking(ratio), 5, side).keep
    assert keep.way is MASKED[masking] and keep.patches.shape == (5, count)
    assert all(len({*row}) == count and min(row) >= 0 and max(row) < side**2 for row in keep.patches.tolist())


@cases("masking", [Naive, Deferred, MaskDiT])
def test_seen_are_the_pixels_of_what_is_kept(masking):
    keep, seen = hidden(masking(0.75), 3)
    for row, patches in enumerate(keep.patches.tolist()):
        for number in range(16):
            assert of_patch(seen[row], number).eq(number in patches).all()


def test_routed_patches_are_scored_as_all_others():
    keep, seen = hidden(Routed(0.5), 3)
    assert keep.patches.shape == (3, 8) and seen is None


def test_each_image_and_each_step_hides_patches_of_its_own_and_the_same_each_time():
    steps = [Step(0, index, 0, 0.0) for index in (0, 1, 0)]
    one, other, again = (hidden(Deferred(0.75), 64, step=step).keep.patches.sort(dim=1).values for step in steps)
    assert len({tuple(row) for row in one.tolist()}) > 50 and not torch.equal(one, other) and torch.equal(one, again)


def test_what_is_hidden_does_not_depend_on_ranks_and_micro_batches():
    together = hidden(Deferred(0.75), 8).keep.patches
    parts = [
        hidden(Deferred(0.75), 2, step=Step(0, 0, 0, 0.0, rank=rank, ranks=2, micro=micro, micros=2)).keep.patches
        for micro in range(2)
        for rank in range(2)
    ]
    assert torch.equal(torch.cat(parts), together)


def test_all_patches_are_kept_equally_often():
    patches = torch.cat([hidden(Naive(0.75), 512, step=Step(0, i, 0, 0.0)).keep.patches for i in range(8)])
    edges = torch.arange(17) - 0.5
    assert fits(patches[:, 0].double(), edges, torch.ones(16))  # the first of an image
    counts = patches.flatten().bincount(minlength=16).double()
    assert (counts / len(patches) - 0.25).abs().max() < 4 * (0.25 * 0.75 / len(patches)) ** 0.5


@cases("masking", [Naive, Deferred])
def test_the_loss_is_the_mean_over_what_was_kept(masking):
    denoiser, keep = denoiser_of(), hidden(masking(0.75), 6).keep
    x0, eps, level, x_t, told = noised(denoiser)
    error = (denoiser(x_t, level, told, keep) - (level.alpha * eps - level.sigma * x0)).square()
    expected = [
        torch.stack([of_patch(image, number) for number in patches]).mean()
        for image, patches in zip(error, keep.patches.tolist(), strict=True)
    ]
    torch.testing.assert_close(lost(masking(0.75), denoiser).per_image, torch.stack(expected).detach())


def test_the_loss_of_routed_patches_is_the_mean_over_all():
    denoiser, keep = denoiser_of(), hidden(Routed(0.5), 6).keep
    x0, eps, level, x_t, told = noised(denoiser)
    error = (denoiser(x_t, level, told, keep) - (level.alpha * eps - level.sigma * x0)).square()
    torch.testing.assert_close(lost(Routed(0.5), denoiser).per_image, error.mean(dim=(1, 2, 3)).detach())


def test_maskdit_restores_what_is_hidden():
    """Equation 5 in loops, on the share `restore`, besides the loss on what is kept."""
    denoiser, keep = denoiser_of(), hidden(MaskDiT(0.5), 6).keep
    _, _, level, x_t, told = noised(denoiser)
    restored = denoiser.prediction.decode(denoiser(x_t, level, told, keep), x_t, level).x0
    expected = []
    for image, noisy, patches in zip(restored, x_t, keep.patches.tolist(), strict=True):
        errors = []
        for number in {*range(16)} - {*patches}:
            there = of_patch(noisy, number)
            target = (there - there.mean()) / (there.var() + 1e-6).sqrt()
            errors.append((of_patch(image, number) - target).square().mean())
        expected.append(torch.stack(errors).mean().detach())
    found = lost(MaskDiT(0.5, restore=0.3), denoiser).per_image - lost(MaskDiT(0.5, restore=0), denoiser).per_image
    torch.testing.assert_close(found, 0.3 * torch.stack(expected), rtol=1e-4, atol=1e-5)


@every_masking
def test_a_ratio_of_0_is_plain_training_bit_for_bit(masking):
    gradients = []
    for one in (masking(0.0), masking([0.5, 0.0]), Unmasked()):
        denoiser = denoiser_of()
        loss = lost(one, denoiser, Step(0, 0, 0, progress=0.7))
        loss.value.backward()
        gradients.append([loss.value, loss.per_image, *(p.grad for p in denoiser.parameters())])
    for plain, *others in zip(gradients[-1], *gradients[:-1], strict=True):
        assert all(torch.equal(plain, other) for other in others)


def test_falling_ratios_last_even_parts_of_training():
    masking = Deferred([0.75, 0.5, 0.25, 0])
    at = [0.0, 0.24, 0.25, 0.49, 0.5, 0.74, 0.75, 0.99, 1.0, 1.5]
    kept = [hidden(masking, 2, step=Step(0, 0, 0, progress)).keep for progress in at]
    assert [16 if keep is None else keep.patches.shape[1] for keep in kept] == [4, 4, 8, 8, 12, 12, *[16] * 4]


@every_masking
@cases("prediction", [*MIXTURES.values(), "learned"], ids=[*MIXTURES, "eps_learned_variance"])
def test_it_trains_mixed_heads_and_learned_variances(masking, prediction):
    schedule = TABLES["ddpm_linear"]
    denoiser = denoiser_of(LearnedVariance(Eps(), schedule) if prediction == "learned" else prediction, schedule)
    loss = lost(masking(0.5), denoiser)
    loss.value.backward()
    assert loss.per_image.isfinite().all() and all(p.grad.any() for p in denoiser.network.leave.parameters())


@cases("masking", [Naive, Deferred])
def test_the_bound_of_a_learned_variance_is_that_of_what_was_kept(masking):
    schedule = TABLES["ddpm_linear"]
    learned = LearnedVariance(Eps(), schedule)
    denoiser, keep = denoiser_of(learned, schedule), hidden(masking(0.75), 6).keep
    x0, eps, level, x_t, told = noised(denoiser)
    mean, fraction = learned._split(denoiser(x_t, level, told, keep))
    every = (mean - eps).square() + learned.bound(x0, Eps().decode(mean, x_t, level).x0, fraction, level)
    expected = [
        torch.stack([of_patch(image, number) for number in patches]).mean()
        for image, patches in zip(every, keep.patches.tolist(), strict=True)
    ]
    torch.testing.assert_close(lost(masking(0.75), denoiser).per_image, torch.stack(expected).detach())


@cases("ratio", [1.0, -0.1, [], [0.5, 0.75], [0.5, 0.5], [0.9, 0.8, 0.7, 0.6, 0.5]])
def test_ratios_that_hide_all_or_do_not_fall_are_refused(ratio):
    with pytest.raises(UserError, match="must be a share from 0 to below 1, or up to 4 that fall"):
        Deferred(ratio)


def test_a_negative_weight_of_what_is_restored_is_refused():
    with pytest.raises(UserError, match=r"masking.restore=-1 must be at least 0"):
        MaskDiT(0.5, restore=-1)


@every_masking
def test_a_ratio_that_keeps_too_few_is_refused(masking):
    masking(0.9).check(network())
    with pytest.raises(UserError, match=r"masking.ratio=0.95 keeps none of 16 patches, and DiT must see 1"):
        masking([0.95, 0.5]).check(network())
    choosy = MicroDiT(SPEC, 1, width=8, depth=3, head_width=4, mixer_width=4, multiple=4)
    masking(0.75).check(choosy)
    with pytest.raises(UserError, match=r"ratio=0.8 keeps 3 of 16 patches, and MicroDiT must see 4: give a smaller"):
        masking(0.8).check(choosy)


@every_masking
def test_a_unet_is_refused(masking):
    unet = UNet(SPEC, 1, width=8, multipliers=[1], blocks=1, attention_at=[], heads=1)
    Unmasked().check(unet)
    with pytest.raises(UserError, match=f"masking={MASKED[masking].value}: UNet sees every pixel: network=dit_s"):
        masking(0.5).check(unet)


def test_a_network_too_shallow_for_a_way_is_refused_that_way_alone():
    shallow = DIT(SPEC, 1, depth=2)
    Naive(0.5).check(shallow), Deferred(0.5).check(shallow), MaskDiT(0.5).check(shallow)
    with pytest.raises(UserError, match=r"masking=routed: no block of DiT is left between network\.mixer and"):
        Routed(0.5).check(shallow)
