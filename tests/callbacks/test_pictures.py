import time
from functools import partial

import numpy as np
import pytest
import torch
from tests.tiny import tiny_denoiser

from smallbatch import run_plots
from smallbatch.callbacks.pictures import COLUMNS, Pictures, densities, draw
from smallbatch.densities import Uniform
from smallbatch.draws import Stratified
from smallbatch.learning_rates import LinearCooldown
from smallbatch.masking import Unmasked
from smallbatch.module import DiffusionModule
from smallbatch.objective import Objective
from smallbatch.timesteps import Timesteps
from smallbatch.weightings import Plain

LOSS = {"name": "train/loss", "value": 1.0}


def rows(name, images, values):
    return [{"name": name, "images": images, "logsnr": at, "value": value, "n": 4} for at, value in values.items()]


HELD_OUT = [row for space in ("x0", "eps", "v") for row in rows(f"val/{space}_mse", 8, {-1.0: 0.1, 1.0: 0.2})]
HEADS = [
    row
    for head in ("x0", "eps", "v")
    for what in ("v_mse", "weight", "wins", "wins_raw")
    for row in rows(f"heads/{head}_{what}", 8, {-1.0: 0.1, 1.0: 0.2})
]


@pytest.mark.parametrize(
    "record, expected",
    [
        ([], set()),
        ([{"name": "train/loss", "images": 8, "value": 1.0, "n": 8}], set()),
        (HELD_OUT, {"loss_per_logsnr", "loss_over_images"}),
        (rows("train/loss", 8, {1.0: 0.3}), {"timesteps_over_images"}),
        (HEADS, {"heads_per_logsnr", "heads_over_images"}),
    ],
    ids=["nothing", "means alone", "held out", "drawn", "heads"],
)
def test_a_picture_is_drawn_of_what_the_record_has(record, expected):
    drawn = draw(record)
    assert set(drawn) == expected
    assert all(np.asarray(picture).std() > 1 for picture in drawn.values())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("record", [HELD_OUT, HEADS], ids=["held out", "heads"])
def test_a_record_without_a_finite_value_is_drawn(record, value):
    assert set(draw([row | {"value": value} for row in record])) == set(draw(record))


def test_a_density_integrates_to_one_over_the_log_snr_whatever_was_put_together():
    generator = np.random.default_rng(0)
    every = [(i, at) for i in range(8, 8001, 8) for at in (-15.0, 3.0, 5.0)]
    record = [LOSS | {"images": i, "logsnr": at, "n": int(generator.integers(1, 9))} for i, at in every]
    columns, whole = densities(record)
    assert COLUMNS / 2 < len(columns) <= COLUMNS and list(columns)[-1] == 8000
    for curve in (*columns.values(), whole):
        assert sum(curve.values()) * run_plots.BIN == pytest.approx(1)
    drawn = sum(row["n"] for row in record if row["logsnr"] == 3.0) / sum(row["n"] for row in record)
    assert whole[3.0] * run_plots.BIN == pytest.approx(drawn)


def test_a_heat_map_has_later_on_the_right_and_data_at_the_top():
    picture = run_plots.heat({100: {-1.0: 1e-3, 1.0: 1e-3}, 200: {-1.0: 1e-3, 1.0: 1.0}}, "", "")
    pixels = np.asarray(picture).astype(int)[:, : picture.width * 3 // 4]  # without the scale of colours
    yellow = (pixels[..., 0] > 200) & (pixels[..., 2] < 80)
    violet = (pixels[..., 0] < 100) & (pixels[..., 1] < 30) & (pixels[..., 2] > 60)
    for axis, sign in ((0, -1), (1, 1)):  # upwards, to the right
        assert sign * (np.nonzero(yellow)[axis].mean() - np.nonzero(violet)[axis].mean()) > 40


def test_pictures_are_left_out_where_they_would_take_much_of_the_time_but_not_at_the_end():
    objective = Objective(Timesteps(Stratified(), Uniform()), Plain(), Unmasked())
    module = DiffusionModule(tiny_denoiser(), objective, partial(torch.optim.AdamW), LinearCooldown(), 8, seed=0)
    callback = Pictures(every_images=1)
    callback.cost, callback.last = 0.1, time.monotonic() - 10
    assert callback.due(module)
    callback.last = time.monotonic() - 1
    assert not callback.due(module)
    module.progress = 1.0
    assert callback.due(module)
