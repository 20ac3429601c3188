import copy
import itertools
import math
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smallbatch.ema import Average, Halflife, Latest, Power, Profile, trainable
from smallbatch.errors import UserError
from smallbatch.posthoc import Snapshot, blend, load_snapshots, overlap, reconstruct, write_snapshot

PROFILES = [Power(0.05), Power(0.10), Halflife(64), Halflife(64, rampup=math.inf), Latest()]
WIDTHS = (0.05, 0.10)


def walk(steps: int, size: int = 50) -> Tensor:
    """A smooth random trajectory of weights, one row per step."""
    return torch.randn(steps, size, generator=torch.Generator().manual_seed(0)).cumsum(0) / steps**0.5


def follow(profile: Profile, trajectory: Tensor, batch: int = 4) -> list[Tensor]:
    """The average after each step."""
    average, after = Average(profile), []
    for step, weights in enumerate(trajectory, start=1):
        average.update({"w": weights}, images=step * batch, batch=batch)
        after.append(average.weights["w"].clone())
    return after


def exact(relative_std: float, trajectory: Tensor) -> Tensor:
    """Each row weighed, in float64, with the integral of the power-function profile over its step."""
    edges = torch.linspace(0, 1, len(trajectory) + 1, dtype=torch.float64) ** (Power(relative_std).gamma + 1)
    return edges.diff() @ trajectory.double()


def snapshots(trajectory: Tensor, count: int) -> list[Snapshot]:
    every, averages = len(trajectory) // count, {width: follow(Power(width), trajectory) for width in WIDTHS}
    return [
        Snapshot(Power(width), 4 * step, lambda w=after[step - 1]: {"w": w})
        for step in range(every, len(trajectory) + 1, every)
        for width, after in averages.items()
    ]


def rebuilt_error(count: int, relative_std: float) -> float:
    trajectory = walk(2000)
    target = exact(relative_std, trajectory)
    rebuilt = reconstruct(snapshots(trajectory, count), relative_std, images=8000)["w"]
    return float((rebuilt - target).norm() / (target - trajectory[-1]).norm())


@pytest.mark.parametrize(("relative_std", "gamma"), [(0.05, 16.97), (0.10, 6.94), (0.15, 3.56), (0.20, 1.83)])
def test_gamma_is_the_published_one(relative_std, gamma):
    assert Power(relative_std).gamma == pytest.approx(gamma, abs=0.005)


@pytest.mark.parametrize("relative_std", [0.01, 0.05, 0.10, 0.25, 12**-0.5])
def test_gamma_gives_the_profile_its_relative_standard_deviation(relative_std):
    t = (np.arange(200_000) + 0.5) / 200_000
    gamma = Power(relative_std).gamma
    density = (gamma + 1) * t**gamma
    mean = (t * density).mean()
    assert ((t - mean) ** 2 * density).mean() ** 0.5 == pytest.approx(relative_std, rel=1e-5)


@pytest.mark.parametrize("relative_std", [0.05, 0.10, 0.20])
def test_a_power_average_weighs_each_step_with_the_integral_of_its_profile(relative_std):
    trajectory = walk(300)
    torch.testing.assert_close(follow(Power(relative_std), trajectory)[-1], exact(relative_std, trajectory).float())


def test_a_power_average_does_not_see_how_images_are_cut_into_batches():
    whole = math.prod(Power(0.1).keep(images, 1) for images in range(101, 201))
    assert Power(0.1).keep(200, 100) == pytest.approx(whole)


def test_a_halflife_forgets_half_in_its_images():
    profile = Halflife(1000, rampup=math.inf)
    assert math.prod(profile.keep(50 * k, 50) for k in range(1, 21)) == pytest.approx(0.5)


def test_a_halflife_is_capped_at_a_share_of_the_images_seen():
    assert Halflife(1000, rampup=0.05).keep(images=2000, batch=100) == pytest.approx(0.5)
    assert Halflife(1000, rampup=0.05).keep(images=10**6, batch=1000) == pytest.approx(0.5)


def test_a_short_run_under_a_long_halflife_leaves_its_first_weights():
    trajectory = torch.ones(100, 1)
    trajectory[0] = 0
    assert follow(Halflife(10**9), trajectory)[-1].item() > 0.999
    assert follow(Halflife(10**9, rampup=math.inf), trajectory)[-1].item() < 0.001


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_the_average_of_constant_weights_is_those_weights(profile):
    assert torch.equal(follow(profile, torch.full((20, 3), 0.1))[-1], torch.full((3,), 0.1))


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_the_first_update_takes_the_weights_as_they_are(profile):
    weights = torch.randn(5)
    assert torch.equal(follow(profile, weights[None])[0], weights)


def test_latest_is_the_weights_of_the_last_step():
    trajectory = walk(5)
    assert torch.equal(follow(Latest(), trajectory)[-1], trajectory[-1])


def test_an_average_is_float32_whatever_the_weights_are():
    assert [w.dtype for w in follow(Power(0.1), walk(3).bfloat16())] == [torch.float32] * 3


def test_an_average_owns_its_memory():
    weights, average = {"w": torch.zeros(3)}, Average(Power(0.1))
    average.update(weights, images=4, batch=4)
    weights["w"].fill_(7)
    assert average.weights["w"].eq(0).all()


def test_an_average_refuses_other_parameters():
    average = Average(Power(0.1))
    average.update({"w": torch.zeros(3)}, images=4, batch=4)
    with pytest.raises(AssertionError, match="'v'"):
        average.update({"v": torch.zeros(3)}, images=8, batch=4)


def averaged(network: nn.Module) -> Average:
    average = Average(Power(0.1))
    average.update({name: p + 1 / 3 for name, p in trainable(network).items()}, images=4, batch=4)
    return average


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_swapping_keeps_the_storage_and_restores_every_bit(dtype, mode):
    network = nn.Linear(4, 3).to(dtype)
    before, where, average = copy.deepcopy(network.state_dict()), network.weight.data_ptr(), averaged(network)
    with mode(), average.swapped(network):
        assert torch.equal(network.weight, average.weights["weight"].to(dtype))
        assert network.weight.data_ptr() == where
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network(torch.ones(4, dtype=dtype)).sum().backward()


def test_swapping_restores_after_an_error():
    network = nn.Linear(4, 3)
    before = network.weight.detach().clone()
    with pytest.raises(ZeroDivisionError), averaged(network).swapped(network):
        1 / 0  # noqa: B018
    assert torch.equal(network.weight, before)


def test_before_the_first_update_swapping_yields_the_current_weights():
    network = nn.Linear(4, 3)
    before = network.weight.detach().clone()
    with Average(Power(0.1)).swapped(network):
        assert torch.equal(network.weight, before)


def test_buffers_and_frozen_parameters_are_not_averaged():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Linear(2, 2, bias=False).requires_grad_(False))
    assert trainable(network).keys() == {"0.weight", "0.bias"}


def test_compiling_in_place_keeps_the_names():
    network = nn.Linear(4, 3)
    names = trainable(network).keys()
    network.compile()
    assert trainable(network).keys() == names


def test_overlap_is_the_integral_of_the_product():
    g, t = np.array([(16.97, 800), (6.94, 800), (6.94, 300), (1.83, 1000)], dtype=np.float64).T
    x = (np.arange(100_000) + 0.5) / 100
    values = np.stack([(a + 1) * x**a / b ** (a + 1) * (x < b) for a, b in zip(g, t, strict=True)])
    np.testing.assert_allclose(overlap(g, t, g, t), values @ values.T / 100, rtol=1e-3)


@pytest.mark.parametrize("relative_std", WIDTHS)
@pytest.mark.parametrize("step", [400, 2000])
def test_a_stored_average_is_rebuilt_exactly(relative_std, step):
    trajectory = walk(2000)
    rebuilt = reconstruct(snapshots(trajectory, count=20), relative_std, images=4 * step)["w"]
    torch.testing.assert_close(rebuilt, follow(Power(relative_std), trajectory)[step - 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("relative_std", [0.075, 0.15, 0.20])
def test_the_rebuilt_average_nears_the_true_one_as_snapshots_are_added(relative_std):
    errors = [rebuilt_error(count, relative_std) for count in (2, 5, 20, 100)]
    assert all(later < earlier / 2 for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 1e-3


def stored(*profiles: tuple[float, int]) -> list[Snapshot]:
    return [Snapshot(Power(width), images, dict) for width, images in profiles]


def test_the_misfit_falls_with_every_snapshot_and_vanishes_where_the_target_is_stored():
    every = stored(*((width, t) for t in range(100, 1001, 100) for width in WIDTHS))
    misfits = [blend(every[-n:], 0.15, images=1000).misfit for n in (1, 2, 4, 10, 20)]
    assert misfits == sorted(misfits, reverse=True)
    assert blend(every, 0.05, images=700).misfit < 1e-7


def test_shares_sum_to_one_and_bear_repeated_profiles():
    repeated = stored((0.10, 500), (0.10, 1000), (0.10, 1000), (0.05, 1000))
    assert blend(repeated, 0.15, images=1000).shares.sum() == pytest.approx(1)
    assert blend(repeated, 0.10, images=1000).misfit < 1e-7


def test_reconstruction_never_looks_past_its_time():
    later = Snapshot(Power(0.05), 401, lambda: pytest.fail("read"))
    reconstruct([*snapshots(walk(100), count=10), later], 0.15, images=400)


def test_snapshots_come_back_from_disk_as_float16(tmp_path):
    averages = {
        "narrow": Average(Power(0.05)),
        "wide": Average(Power(0.10)),
        "classic": Average(Halflife(10)),
    }
    for step, weights in enumerate(walk(6), start=1):
        for average in averages.values():
            average.update({"a.w": weights, "b": weights[:3]}, images=step, batch=1)
        write_snapshot(tmp_path / f"{step:09d}.safetensors", averages, images=step)
    loaded = load_snapshots(tmp_path)
    assert [(s.profile.relative_std, s.images) for s in loaded[-2:]] == [(0.05, 6), (0.10, 6)] and len(loaded) == 12
    assert loaded[-1].load().keys() == {"a.w", "b"}
    assert torch.equal(loaded[-1].load()["b"], averages["wide"].weights["b"].half())
    rebuilt = reconstruct(loaded, 0.10, images=6)
    torch.testing.assert_close(rebuilt["a.w"], averages["wide"].weights["a.w"], rtol=2**-11, atol=1e-6)


def test_one_snapshot_is_in_memory_at_a_time():
    alive = weakref.WeakSet()

    def load() -> dict[str, Tensor]:
        assert not alive
        weights = torch.ones(3)
        alive.add(weights)
        return {"w": weights}

    reconstruct([Snapshot(Power(0.1), images, load) for images in (1, 2, 3)], 0.15, images=3)


def test_a_snapshot_bears_any_memory_format(tmp_path):
    average, weights = Average(Power(0.1)), torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    average.update({"w": weights}, images=1, batch=1)
    write_snapshot(tmp_path / "1.safetensors", {"p": average}, images=1)
    assert torch.equal(load_snapshots(tmp_path)[0].load()["w"], weights.half())


def test_a_snapshot_leaves_no_other_file(tmp_path):
    average = Average(Power(0.1))
    average.update({"w": torch.zeros(3)}, images=1, batch=1)
    write_snapshot(tmp_path / "ema" / "000000001.safetensors", {"p": average}, images=1)
    assert [path.name for path in (tmp_path / "ema").iterdir()] == ["000000001.safetensors"]


def test_no_snapshot_before_the_time_asked_is_a_user_error():
    with pytest.raises(UserError, match="images=10"):
        reconstruct(snapshots(walk(100), count=2), 0.1, images=10)


@pytest.mark.parametrize("make", [lambda: Power(0.0), lambda: Power(0.3), lambda: Halflife(0)])
def test_impossible_profiles_are_refused(make):
    with pytest.raises(UserError, match="0"):
        make()
