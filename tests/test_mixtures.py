"""Several heads in one output."""

import pytest
import torch

from smallbatch.cli import runs, trust
from smallbatch.densities import Uniform
from smallbatch.draws import Stratified
from smallbatch.errors import UserError
from smallbatch.fusing import ClosedForm, Gate, Winners, nearest, place, scales, winner
from smallbatch.masking import Unmasked
from smallbatch.mixtures import HEADS, Mixture
from smallbatch.notation import Condition, NoiseLevel, Observed
from smallbatch.objective import Objective
from smallbatch.randomness import Step
from smallbatch.running import interpolate
from smallbatch.teaching import Both, OnBlend, OnHeads, SmallestCommon, SmallestRaw
from smallbatch.timesteps import Timesteps
from smallbatch.variances import LearnedVariance
from smallbatch.weightings import InV, Plain
from tests.leaves import FUSES, PATHS, SCHEDULES, TABLES, TEACHES, WEIGHTINGS
from tests.tiny import tiny_denoiser

cases = pytest.mark.parametrize
every_schedule = cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
every_fuse = cases("fuse", FUSES.values(), ids=FUSES)
CENTRES = torch.linspace(-15, 15, 16).double()
PAIRS = [(f, t) for f in FUSES for t in TEACHES if f != "winners" or t.startswith("min")]


def a_batch(schedule, rows=9):
    torch.manual_seed(0)
    level = schedule(torch.linspace(0.05, 0.95, rows).double())
    x0, eps = torch.randn(2, rows, 2, 4, 4, dtype=torch.float64)
    return level, x0, eps, torch.randn(rows, 6, 4, 4, dtype=torch.float64)


def targets(level, x0, eps):
    return torch.cat([a * x0 + b * eps for a, b in (head.basis(level) for head in HEADS.values())], dim=1)


def native(level):
    """What a unit of error in v is in each head's own space, (b, 3, 1)."""
    return (scales(level) * torch.tensor([-1, 1, 1]))[:, :, None]


def at(logsnr, path="preserving"):
    alpha, sigma = PATHS[path](logsnr)
    return NoiseLevel(torch.zeros_like(logsnr), alpha[:, None, None, None], sigma[:, None, None, None])


def seen(logsnr, gram):
    """What a step observes, as far as a gate looks."""
    row = torch.zeros_like(logsnr)
    return Observed(row, row, logsnr, row, row, row, row, torch.zeros(len(row), 3), gram)


def gate_after(logsnr, gram, **settings):
    gate = Gate(halflife_images=1e9, prior_rows=1e-9, **settings)
    gate.observe(seen(logsnr, gram))
    return gate


def random_gram(rows, amount=1.0):
    errors = torch.randn(rows, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return amount * errors @ errors.transpose(1, 2) / 8


@every_schedule
@every_fuse
def test_perfect_heads_decode_to_image_and_noise(fuse, schedule):
    level, x0, eps, _ = a_batch(schedule)
    got = Mixture(fuse(), SmallestRaw()).decode(targets(level, x0, eps), level.mix(x0, eps), level)
    torch.testing.assert_close(got.x0, x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.eps, eps, atol=1e-5, rtol=1e-5)


@every_schedule
@every_fuse
def test_the_two_readings_mix_to_x_t(fuse, schedule):
    level, x0, eps, out = a_batch(schedule)
    x_t = level.mix(x0, eps)
    torch.testing.assert_close(level.mix(*Mixture(fuse(), SmallestRaw()).decode(out, x_t, level)[:2]), x_t)


@every_schedule
@every_fuse
def test_the_decoded_image_is_the_weighted_mean_of_the_heads_images(fuse, schedule):
    level, x0, eps, out = a_batch(schedule)
    mixture, x_t = Mixture(fuse(), SmallestRaw()), level.mix(x0, eps)
    each = torch.stack([head.x0 for head in mixture.each(out, x_t, level)], dim=1)
    mean = (mixture.fuse.weights(level)[..., None, None, None] * each).sum(dim=1)
    torch.testing.assert_close(mixture.decode(out, x_t, level).x0, mean, rtol=1e-5, atol=1e-5)


@every_fuse
def test_weights_sum_to_one_whatever_was_observed(fuse):
    fuse = fuse()
    rows = seen(torch.linspace(-17, 17, 500), random_gram(500))
    fuse.observe(rows._replace(factor=torch.rand(500, 3)))
    total = fuse.weights(at(torch.linspace(-18, 18, 41).double())).sum(dim=1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


@every_schedule
def test_the_closed_form_has_inverse_variance_weights_of_equal_native_errors(schedule):
    level = a_batch(schedule)[0]
    precision = scales(level).square()
    expected = precision / precision.sum(dim=1, keepdim=True)
    torch.testing.assert_close(ClosedForm().weights(level), expected)


@cases("logsnr", [-15.0, 15.0])
def test_the_closed_form_has_no_singularity_in_float32(logsnr):
    level, (x0, eps, _) = at(torch.full((4,), logsnr)), torch.randn(3, 4, 2, 4, 4)
    out, x_t = torch.randn(4, 6, 4, 4), level.mix(x0, eps)
    mixture = Mixture(ClosedForm(), OnBlend())
    head = out.chunk(3, dim=1)
    blend = (head[2] + level.alpha * head[1] - level.sigma * head[0]) / 2
    torch.testing.assert_close(mixture.velocity(out, x_t, level), blend, rtol=1e-6, atol=1e-6)
    assert torch.equal(mixture.velocity(out, 1e6 * x_t, level), mixture.velocity(out, x_t, level))


@cases("path", PATHS)
def test_the_same_heads_fuse_to_the_same_velocity_on_every_path(path):
    logsnr = torch.linspace(-8, 8, 9).double()
    (x0, eps), out = torch.randn(2, 9, 2, 4, 4).double(), torch.randn(9, 6, 4, 4).double()
    mixture = Mixture(gate_after(logsnr, random_gram(9)), OnBlend())
    here, there = (mixture.velocity(out, level.mix(x0, eps), level) for level in (at(logsnr), at(logsnr, path)))
    torch.testing.assert_close(there, here)


@every_schedule
def test_half_the_heads_own_errors_are_the_mean_error_in_v_and_never_below_the_blends(schedule):
    level, x0, eps, out = a_batch(schedule)
    native, blend = (Mixture(ClosedForm(), teach).terms(out, x0, eps, level) for teach in (OnHeads(), OnBlend()))
    own = (OnHeads().shares(native.error) * native.error).sum(dim=1)
    in_v = torch.diagonal(native.gram, dim1=1, dim2=2)
    torch.testing.assert_close(own, (ClosedForm().weights(level) * in_v).sum(dim=1), rtol=1e-5, atol=0)
    assert (blend.error[:, 0] < own).all()


@every_schedule
@every_fuse
def test_the_error_of_the_fused_velocity_is_the_gram_seen_through_the_weights(fuse, schedule):
    level, x0, eps, out = a_batch(schedule)
    mixture = Mixture(fuse(), SmallestRaw())
    g, gram = mixture.fuse.weights(level), mixture.terms(out, x0, eps, level).gram
    fused = HEADS["v"].terms(mixture.velocity(out, level.mix(x0, eps), level), x0, eps, level).error
    torch.testing.assert_close(torch.einsum("bj,bjk,bk->b", g, gram, g), fused[:, 0], rtol=1e-4, atol=1e-9)


def test_the_gram_over_seen_pixels_averages_to_the_gram_over_all():
    level, x0, eps, out = a_batch(SCHEDULES["cosine"])
    mixture, parts = Mixture(ClosedForm(), OnHeads()), torch.zeros(2, 9, 1, 4, 4).double()
    parts[0, :, :, :1], parts[1, :, :, 1:] = 1, 1
    top, rest = (mixture.terms(out, x0, eps, level, part).gram for part in parts)
    torch.testing.assert_close((top + 3 * rest) / 4, mixture.terms(out, x0, eps, level).gram)


@cases("fuse", ["closed_form", "gate"])
@cases("teach", ["blend", "min_raw", "min_common"])
def test_columns_that_compete_and_the_blend_have_the_gain_of_their_own_output(fuse, teach):
    """Weighted in v, they are errors of a velocity."""
    level, x0, eps, out = a_batch(SCHEDULES["cosine"])
    terms = Mixture(FUSES[fuse](), TEACHES[teach]).terms(out, x0, eps, level)
    in_v = torch.diagonal(terms.gram, dim1=1, dim2=2)
    blend = Mixture(FUSES[fuse](), OnBlend()).terms(out, x0, eps, level).error
    expected = {1: blend, 3: in_v}[terms.error.shape[1]]
    torch.testing.assert_close(InV()(terms, level) * terms.error, expected, rtol=1e-5, atol=0)


@cases("teach", [OnHeads(), Both()], ids=["native", "both"])
def test_a_weighting_counts_the_heads_own_errors_as_errors_in_v(teach):
    level, x0, eps, out = a_batch(SCHEDULES["cosine"])
    terms = Mixture(ClosedForm(), teach).terms(out, x0, eps, level)
    torch.testing.assert_close(InV()(terms, level), torch.ones_like(terms.error))


# the published rule


@every_schedule
def test_at_equal_image_errors_the_smallest_raw_loss_is_x0_near_data_and_eps_near_noise_and_never_v(schedule):
    level, x0, eps, guess = a_batch(schedule, rows=8)  # none at log-SNR 0
    pair = level.unmix(level.mix(x0, eps), guess[:, :2])
    terms = Mixture(Winners(), SmallestRaw()).terms(targets(level, *pair[:2]), x0, eps, level)
    wins = SmallestRaw().shares(terms.error)
    near_data = level.logsnr.flatten() > 0
    assert torch.equal(wins, torch.stack([near_data, ~near_data, torch.zeros_like(near_data)], dim=1).to(wins))


@every_schedule
def test_on_one_shared_output_the_smallest_raw_loss_is_a_weight_on_the_error_in_v(schedule):
    level, x0, eps, guess = a_batch(schedule)
    pair = level.unmix(level.mix(x0, eps), guess[:, :2])
    terms = Mixture(Winners(), SmallestRaw()).terms(targets(level, *pair[:2]), x0, eps, level)
    smallest = (SmallestRaw().shares(terms.error) * terms.error).sum(dim=1)
    weight = torch.minimum(level.unit.alpha, level.unit.sigma).square().flatten()
    torch.testing.assert_close(smallest, weight * terms.gram[:, 2, 2], rtol=1e-5, atol=0)


@cases("teach", [SmallestRaw(), SmallestCommon()], ids=["raw", "common"])
def test_only_the_winner_of_each_image_is_taught(teach):
    level, x0, eps, out = a_batch(SCHEDULES["cosine"])
    error = Mixture(Winners(), teach).terms(out.requires_grad_(), x0, eps, level).error
    (gradient,) = torch.autograd.grad((teach.shares(error) * error).sum(), out)
    taught = gradient.view(9, 3, -1).ne(0).any(dim=2)
    assert torch.equal(taught, error.argmin(dim=1)[:, None] == torch.arange(3)) and taught.any(dim=0).sum() > 1


def test_a_batch_has_one_winner():
    weighted = torch.tensor([[1.0, 2.0, 3.0], [9.0, 2.0, 3.0]])
    assert SmallestRaw("batch").shares(weighted).tolist() == [[0, 1, 0], [0, 1, 0]]
    assert SmallestRaw("image").shares(weighted).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_both_add_the_heads_loss_to_the_blends():
    level, x0, eps, out = a_batch(SCHEDULES["cosine"])

    def loss(teach):
        error = Mixture(ClosedForm(), teach).terms(out, x0, eps, level).error
        return (teach.shares(error) * error).sum(dim=1)

    torch.testing.assert_close(loss(Both(0.3)), loss(OnBlend()) + 0.3 * loss(OnHeads()))


@cases("per", ["image", "batch"])
@cases("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_winners_counts_the_heads_that_were_taught(weighting, per):
    teach, outputs = SmallestRaw(per), []
    denoiser = tiny_denoiser(prediction=Mixture(Winners(), teach))
    denoiser.network.register_forward_hook(lambda network, inputs, out: outputs.append(out) or out.retain_grad())
    loss = an_objective(weighting)(denoiser, *images(), STEP)
    loss.value.backward()
    taught = outputs[0].grad.view(16, 3, -1).abs().amax(dim=2)
    assert torch.equal(taught.argmax(dim=1), winner(loss.observed).argmax(dim=1))


def test_the_share_of_wins_is_the_weight():
    winners, logsnr = Winners(halflife_images=1e9, prior_rows=1e-6), torch.full((100,), 3.0)
    rows = torch.arange(100)
    factor = torch.zeros(100, 3).index_put((rows, torch.where(rows < 80, 0, 2)), torch.tensor(0.5))
    winners.observe(seen(logsnr, None)._replace(factor=factor))
    torch.testing.assert_close(winners.weights(at(logsnr[:1])), torch.tensor([[0.8, 0.0, 0.2]]), atol=1e-5, rtol=0)


# the gate


def blue(gram):
    solved = torch.linalg.solve(gram, torch.ones_like(gram[:, :, 0]))
    return solved / solved.sum(dim=1, keepdim=True)


def ridged(gate, gram, level):
    """G + r D, with r from its definition in v."""
    alpha, sigma = level.alpha.flatten(), level.sigma.flatten()
    left = (alpha * sigma)[:, None] * torch.tensor([1.0, -1.0, 0.0]).double()
    pair = torch.stack([sigma.square(), alpha.square(), -torch.ones_like(alpha)], dim=1)
    power = [torch.einsum("bj,bjk,bk->b", part, gram, part) for part in (left, pair)]
    r = gate.ridge * (power[0] + power[1] / 2) / 2
    return gram + r[:, None, None] * torch.diag_embed(scales(level) ** -2.0)


@cases("ridge", [1e-6, 1e-2, 1.0])
def test_the_gate_is_the_best_linear_unbiased_combination(ridge):
    logsnr = CENTRES[3:13]
    gram, level = random_gram(10), at(logsnr)
    gate = gate_after(logsnr, gram, ridge=ridge, reach=1e6)
    torch.testing.assert_close(gate.weights(level), blue(ridged(gate, gram, level)), rtol=1e-5, atol=1e-5)


def test_no_other_weights_of_sum_one_have_less_variance():
    logsnr = CENTRES[4:12]
    gram, level = random_gram(8), at(logsnr)
    gate = gate_after(logsnr, gram, reach=1e6)
    g, total = gate.weights(level), ridged(gate, gram, level)
    least = torch.einsum("bj,bjk,bk->b", g, total, g)
    for _ in range(50):
        move = torch.randn(8, 3).double()
        other = g + move - move.mean(dim=1, keepdim=True)
        assert (torch.einsum("bj,bjk,bk->b", other, total, other) > least).all()


@cases("shared", [0.5, 10.0, 1e4])
def test_the_gate_ignores_what_all_heads_share_with_its_ridge(shared):
    gram = random_gram(16, 1e-3)
    alone, together = (gate_after(CENTRES, g).weights(at(CENTRES)) for g in (gram, gram + shared))
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


def test_a_new_gate_is_the_closed_form_at_every_level_not_only_at_the_centres():
    level = at(torch.linspace(-18, 18, 73).double())
    torch.testing.assert_close(Gate().weights(level), ClosedForm().weights(level), rtol=1e-12, atol=0)


def test_a_strong_ridge_leads_to_the_closed_form_and_not_to_equal_thirds():
    gate = gate_after(CENTRES, random_gram(16), ridge=1e6)
    torch.testing.assert_close(gate.weights(at(CENTRES)), ClosedForm().weights(at(CENTRES)), rtol=1e-4, atol=1e-4)


def test_perfect_heads_leave_the_closed_form():
    gate = gate_after(CENTRES, torch.zeros(16, 3, 3))
    torch.testing.assert_close(gate.weights(at(CENTRES)), ClosedForm().weights(at(CENTRES)))


@every_schedule
def test_on_errors_of_known_covariance_the_observed_gate_errs_least(schedule):
    """The heads share an error of size 1, and own errors of 0.3, 0.1 and 0.2, each in its own space, correlated."""
    torch.manual_seed(0)
    level, x0, eps, _ = a_batch(schedule, rows=400)
    own = torch.linalg.cholesky(torch.tensor([[0.09, 0.01, 0.03], [0.01, 0.01, 0.0], [0.03, 0.0, 0.04]]).double())
    common = torch.randn(400, 1, 32).double()
    error = own @ torch.randn(400, 3, 32).double() + native(level) * common
    out, mixture = targets(level, x0, eps) + error.view(400, 6, 4, 4), Mixture(Gate(prior_rows=1e-6), OnHeads())
    gram = mixture.terms(out, x0, eps, level).gram
    mixture.observe(seen(level.logsnr.flatten(), gram))
    fuses = [
        mixture.fuse.weights(level),
        ClosedForm().weights(level),
        *torch.eye(3).double()[:, None].expand(-1, 400, -1),
    ]
    beyond = [torch.einsum("bj,bjk,bk->b", g, gram, g).mean() - common.square().mean() for g in fuses]
    assert beyond[0] < 0.75 * beyond[1] and beyond[1] < min(beyond[2:]), beyond


@every_schedule
def test_float32_outputs_suffice_for_the_gate(schedule):
    """Own errors of a thousandth beside a shared error of 1, up to the ends of the schedule."""
    torch.manual_seed(0)
    rows = 2048
    level = schedule(torch.linspace(0, 1, rows).double())
    x0, eps, common = torch.randn(3, rows, 2, 4, 4, dtype=torch.float64)
    error = native(level) * common.flatten(1)[:, None] + 1e-3 * torch.randn(rows, 3, 32)
    out = targets(level, x0, eps) + error.view(rows, 6, 4, 4)

    def weights(dtype):
        now = NoiseLevel(*(part.to(dtype) for part in (level.t, level.alpha, level.sigma)))
        mixture = Mixture(Gate(prior_rows=1e-6), OnHeads())
        gram = mixture.terms(out.to(dtype), x0.to(dtype), eps.to(dtype), now).gram
        mixture.observe(seen(now.logsnr.flatten(), gram))
        return mixture.fuse.table

    torch.testing.assert_close(weights(torch.float32), weights(torch.float64), rtol=0, atol=0.01)


def test_a_gate_keeps_within_reach():
    wild = torch.tensor([[1.0, 0.999, -9.0], [0.999, 1.0, -9.0], [-9.0, -9.0, 90.0]]).double().expand(16, 3, 3)
    table = gate_after(CENTRES, wild, ridge=1e-9).table
    assert table[:, 0].abs().max() <= 1.5 and (table[:, 1] - 0.5).abs().max() <= 1.5
    assert gate_after(CENTRES, wild, ridge=1e-9, reach=100).table.abs().max() > 0.5


def test_tables_are_read_in_straight_lines_between_the_centres_that_rows_fall_to():
    table = torch.stack([CENTRES, CENTRES.square()], dim=1)
    got = interpolate(table, place(torch.tensor([-99.0, -15.0, 0.5, 15.0, 99.0]), len(table)))
    torch.testing.assert_close(got[:, 0], torch.tensor([-15.0, -15.0, 0.5, 15.0, 15.0]).double())
    assert nearest(torch.tensor([-99.0, -14.1, -13.9, 0.1, 99.0]), 16).tolist() == [0, 0, 1, 8, 15]


# in training

STEP = Step(seed=0, index=0, images=0, progress=0.0)


def images(rows=16):
    torch.manual_seed(1)
    return torch.rand(rows, 1, 8, 8) * 2 - 1, Condition(torch.arange(rows) % 3)


def an_objective(weighting):
    return Objective(Timesteps(Stratified(), Uniform()), weighting, Unmasked())


def trains(prediction, weighting, schedule=SCHEDULES["cosine"], steps=1):
    denoiser, objective = tiny_denoiser(schedule, prediction), an_objective(weighting)
    optimizer = torch.optim.AdamW(denoiser.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = objective(denoiser, *images(), STEP)
        loss.value.backward()
        optimizer.step()
        denoiser.prediction.observe(loss.observed)
    assert loss.value.isfinite() and all(p.isfinite().all() for p in denoiser.state_dict().values())
    return denoiser


@cases("fuse, teach", PAIRS)
@every_schedule
def test_every_combination_trains_on_every_schedule(fuse, teach, schedule):
    trains(Mixture(FUSES[fuse](), TEACHES[teach]), Plain(), schedule)


@cases("fuse, teach", [("gate", "both"), ("winners", "min_raw")])
@cases("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_every_weighting_trains(fuse, teach, weighting):
    trains(Mixture(FUSES[fuse](), TEACHES[teach]), weighting)


@cases("fuse, teach", PAIRS)
def test_a_mixture_has_a_learned_variance(fuse, teach):
    table = TABLES["ddpm_linear"]
    denoiser = trains(LearnedVariance(Mixture(FUSES[fuse](), TEACHES[teach]), table), Plain(), table)
    level, out = table(torch.tensor([0.3, 0.7])), torch.randn(2, 4, 8, 8)
    told = denoiser.prediction.decode(out, torch.randn(2, 1, 8, 8), level)
    assert torch.equal(told.variance, (out[:, 3:] + 1) / 2) and told.x0.shape == (2, 1, 8, 8)
    assert len(denoiser.prediction.each(out, told.x0, level)) == 3


def described(fuse, teach):
    """The denoiser of `tiny_denoiser`, as model.json describes it."""
    node = {"_target_": "smallbatch.denoiser.Denoiser", "_partial_": True, "data_std": 0.5}
    node["network"] = {"_target_": "tests.tiny.Tiny", "_partial_": True}
    node["schedule"] = {
        "_target_": "smallbatch.schedules.Cosine",
        "path": {"_target_": "smallbatch.schedules.VariancePreserving"},
    }
    node["clock"] = {"_target_": "smallbatch.denoiser.Continuous"}
    parts = {"fuse": {"_target_": f"smallbatch.fusing.{fuse}"}, "teach": {"_target_": f"smallbatch.teaching.{teach}"}}
    node["prediction"] = {"_target_": "smallbatch.mixtures.Mixture", **parts}
    spec = {"channels": 1, "size": 8, "classes": 3}
    return {"denoiser": node, "spec": spec, "class_names": [], "data_fingerprint": "", "images": 0}


@cases("fuse, teach", [("gate", "blend"), ("winners", "min_raw")])
def test_a_saved_model_denoises_as_before_with_what_its_fuse_has_learned(fuse, teach, tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "PACKAGES", (*trust.PACKAGES, "tests"))
    made = Mixture(FUSES[fuse](), TEACHES[teach])
    trained = trains(made, Plain(), steps=3)
    runs.save(tmp_path, trained, {}, described(type(made.fuse).__name__, type(made.teach).__name__))
    loaded, x, level = runs.load(tmp_path), images()[0], SCHEDULES["cosine"](torch.full((16,), 0.5))
    expected = trained.denoise(x, level, Condition()).x0
    assert torch.equal(loaded.denoise(x, level, Condition()).x0, expected)
    loaded.prediction.fuse.load_state_dict(FUSES[fuse]().state_dict())
    assert not torch.equal(loaded.denoise(x, level, Condition()).x0, expected)


@cases(
    "make, line",
    [
        (lambda: Mixture(Winners(), OnBlend()), "OnBlend has no winners to fuse by"),
        (lambda: SmallestRaw("pixel"), "teach.per=pixel is not known: use image or batch"),
        (lambda: Both(0.0), "native=0.0 must be above 0"),
        (lambda: Gate(bins=1), "bins=1 must be at least 2"),
        (lambda: Gate(ridge=0.0), "ridge=0.0"),
        (lambda: Winners(prior_rows=0.0), "prior_rows=0.0 above 0"),
        (lambda: Gate(halflife_images=0.0), "halflife_images=0.0 must be above 0"),
    ],
)
def test_what_cannot_be_mixed_is_refused(make, line):
    with pytest.raises(UserError, match=line):
        make()
