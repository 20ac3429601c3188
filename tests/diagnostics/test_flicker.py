import numpy as np
import pytest
import torch
from PIL import Image

from smallbatch.diagnostics.diagnostic import column
from smallbatch.diagnostics.flicker import Flicker, change, translated
from smallbatch.errors import UserError
from tests.diagnostics.enlarging import LOW, case_of, interpolating


def of_run(table, noise, measure="flicker"):
    (mean,) = column(table, "mean", of="a", noise=noise, measure=measure)
    return mean


def test_a_translation_moves_right_and_down_by_so_many_pixels():
    x = torch.zeros(2, 1, 16, 16)
    x[:, :, 5, 6] = 1.0
    moved = translated(x, torch.tensor([[3.0, 2.0], [0.5, 0.0]]))
    assert torch.allclose(moved[0], x[0].roll((2, 3), dims=(1, 2)), atol=1e-4)
    left, right = moved[1, 0, 5, 6:8].tolist()
    assert left == pytest.approx(right, abs=1e-4) and left > 0.5


def test_the_change_from_frame_to_frame_is_a_root_mean_square_within_each_film():
    films = torch.tensor([0.0, 3.0, 3.0, 100.0, 101.0, 102.0]).reshape(6, 1, 1, 1).expand(6, 1, 2, 2)
    assert change(films, length=3).tolist() == pytest.approx([(9 / 2) ** 0.5, 1.0])


def test_a_still_film_does_not_flicker_from_one_noise_and_does_from_fresh():
    table = Flicker(films=3, length=4, radius=0).measure(case_of(interpolating(0.5), batch=12)).table
    for measure in ("flicker", "colour"):
        assert of_run(table, "one noise", measure) == 0 < of_run(table, "fresh noise", measure)
        assert column(table, "mean", of="truth", measure=measure) == [0]


def test_interpolation_does_not_flicker_and_the_truth_has_its_floor():
    table = Flicker(films=3, length=4).measure(case_of(interpolating())).table
    assert of_run(table, "fresh noise") < 1e-4 < column(table, "mean", of="truth", measure="flicker")[0]
    assert {row["n"] for row in table} == {3}


def test_frames_of_a_folder_are_one_film_without_a_floor(tmp_path):
    rng = np.random.default_rng(0)
    for frame in range(3):
        Image.fromarray(rng.integers(0, 255, (LOW, LOW, 3), dtype=np.uint8)).save(tmp_path / f"{frame}.png")
    diagnostic = Flicker(frames=str(tmp_path))
    table, images = diagnostic.measure(case_of(interpolating(0.5)))
    assert {row["of"] for row in table} == {"a"} and all(row["error"] is None for row in table)
    assert "x0 (a), one noise" in diagnostic.line(table) and diagnostic.figure(table).width > 500
    assert images["frames"].height > 300
    Image.fromarray(rng.integers(0, 255, (2 * LOW, 2 * LOW, 3), dtype=np.uint8)).save(tmp_path / "3.png")
    with pytest.raises(UserError, match=f"frames of {LOW}x{LOW} and of {2 * LOW}x{2 * LOW}: give those of one film"):
        diagnostic.measure(case_of(interpolating()))
    (tmp_path / "3.png").unlink()
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").unlink()
    with pytest.raises(UserError, match="holds one image: a film has at least 2 frames"):
        diagnostic.measure(case_of(interpolating()))


@pytest.mark.parametrize("setting", ["films", "length"])
def test_too_few_films_or_frames_are_refused(setting):
    with pytest.raises(UserError, match=f"diagnostics.flicker.{setting}=1 must be at least 2"):
        Flicker(**{setting: 1})
