import pytest
import torch

from smallbatch import curves
from smallbatch.diagnostics.cosines import cosines
from smallbatch.diagnostics.diagnostic import column
from smallbatch.diagnostics.interference import Interference
from smallbatch.errors import UserError
from smallbatch.predictions import V
from tests.diagnostics import case_of
from tests.diagnostics.level import level_denoiser
from tests.leaves import SCHEDULES


def test_noise_does_not_pull_a_cosine_to_zero():
    truth = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    noise = torch.randn(16, 3, 402, generator=torch.Generator().manual_seed(0))
    noise[..., :2] += 20 * truth
    cosine, error = cosines(noise)
    raw = torch.nn.functional.normalize(noise.mean(dim=0), dim=1)
    expected = (truth @ truth.T).double()
    assert ((cosine - expected).abs() <= 4 * error + 1e-6).all() and error.max() < 0.05
    assert (raw @ raw.T)[0, 2] > -0.97 > cosine[0, 2]


@pytest.fixture
def run(tmp_path):
    """Images of 0.8 say v = -0.8 sigma: near 0 in the first half of time, and near -0.8 in the second."""
    schedule = SCHEDULES["cosine"]
    curves.write(curves.curve(schedule, torch.ones(100), torch.ones(100)), tmp_path / "loss_curve.csv")
    return case_of(level_denoiser(schedule, V(), -0.5), images=torch.full((24, 1, 8, 8), 0.8), folder=tmp_path)


def test_slots_that_want_something_else_get_worse(run):
    before = run.subjects[0].denoiser.network.value.item()
    diagnostic = Interference(slots=2, trained=None, images=64, batch=16, lr=0.04, points=128, rows=16)
    table = diagnostic.measure(run).table
    change = torch.tensor(column(table, "change")).view(3, 2)  # all, 1, 2 by measured slot
    error = torch.tensor(column(table, "change_se")).view(3, 2)
    assert ((change[1:] * torch.tensor([[-1, 1], [1, -1]])) > 4 * error[1:]).all()
    assert column(table, "against_all", trained="all") == [0, 0]
    assert column(table, "cosine", trained=1) == pytest.approx([1, -1], abs=0.05)
    assert run.subjects[0].denoiser.network.value.item() == before
    assert "of 2 others, 2 get worse and 0 better" in diagnostic.line(table)
    assert diagnostic.figure(table).width > 600


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"trained": [3, 11]}, r"trained=\[3, 11\] must name slots from 1 to 10"),
        ({"slots": 1, "trained": [1]}, "slots=1 must be at least 2"),
        ({"lr": 0.0}, "lr=0.0 must be above 0"),
    ],
)
def test_settings_that_measure_nothing_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        Interference(**settings)


def test_a_run_without_a_curve_is_refused_before_anything_is_trained(run, tmp_path):
    (tmp_path / "loss_curve.csv").unlink()
    with pytest.raises(UserError, match=r"loss_curve.csv is missing: give diagnostics.interference.curve=FILE"):
        Interference().measure(run)
