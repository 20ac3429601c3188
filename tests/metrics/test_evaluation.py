"""Scores of streams of images, and what is said beside them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.metrics.features_by_hand import ByHand, by_hand

from smallbatch.data.digits import Digits
from smallbatch.data.images import to_float
from smallbatch.data.store import Store
from smallbatch.errors import UserError
from smallbatch.metrics.clip_score import ClipJudge
from smallbatch.metrics.evaluation import Evaluation
from smallbatch.metrics.floor import chance
from smallbatch.metrics.frechet import frechet
from smallbatch.metrics.looking import Samples, dealt
from smallbatch.metrics.moments import moments
from smallbatch.metrics.reference import of_source, save
from smallbatch.metrics.shares import real
from smallbatch.metrics.validity import Seen, nearest

CPU = torch.device("cpu")


def pixels(n, seed=0, bright=0):
    noise = torch.randint(0, 200, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    return (noise + bright).byte()


def stream(images, batch):
    return zip(torch.arange(len(images)).split(batch), images.split(batch), strict=True)


def evaluation(tmp_path, reference=None, **settings):
    settings = {"scores": ["frechet"], "n": 40, "floor": False, "extrapolate": False} | settings
    made = Evaluation(**settings, extractor=ByHand(), clip=ClipJudge(""), cache=str(tmp_path), reference=reference)
    data = Digits(batch=8, seed=0, size=8, flip=False)
    made.prepare(data, data.spec, made.n, CPU)
    return made


def judged(made, images, batch=16):
    return made(Samples(len(images), stream(images, batch), Seen(1)))


def by_name(made, images, batch=16):
    return {score.name: score for score in judged(made, images, batch).scores}


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_a_score_is_the_distance_of_all_features_however_they_stream_by(batch, tmp_path):
    made, images = evaluation(tmp_path), pixels(40)
    score, reference = by_name(made, images, batch)["fd_by_hand@40"], made.compared.reference.moments
    assert score.value == pytest.approx(frechet(moments(by_hand(images).double()), reference), rel=1e-9)
    assert score.n == 40 and score.extractor == "by_hand 1" and score.marks == []


def test_every_score_comes_with_its_name_and_the_headline_first(tmp_path):
    wanted = ["frechet", "kernel", "precision_recall"]
    scores = judged(evaluation(tmp_path, scores=wanted, floor=True, extrapolate=True), pixels(60)).scores
    assert [score.name for score in scores] == [
        *("fd_by_hand@60", "fd_by_hand_floor@60", "fd_by_hand_extrapolated@60", "kd_by_hand@60"),
        *("precision_by_hand@60", "recall_by_hand@60", "colour_shift@60", "colour_spread@60", "nearest@20"),
    ]
    headline, floor, endless, kernel = scores[:4]
    assert endless.low < endless.value < endless.high and kernel.error > 0
    assert floor.value < headline.value / 10
    assert "subsets of 60 images instead of 1000" in kernel.marks
    for score in scores:
        assert set(score.record) >= {"name", "value", "n", "marks"} and None not in score.record.values()


def test_images_of_the_data_set_score_as_its_floor(tmp_path):
    made = evaluation(tmp_path, n=200, floor=True)
    held_out = made.data.held_out_store.pixels[:200]
    scores = by_name(made, held_out)
    assert scores["fd_by_hand@200"].value < 4 * scores["fd_by_hand_floor@200"].value
    assert abs(scores["colour_shift@200"].value) < 5 and abs(scores["colour_spread@200"].value - 1) < 0.05


def test_the_floor_of_many_images_follows_from_that_of_few():
    """Over many draws of the same distribution: FD at n, from FD at m."""
    draw = torch.Generator().manual_seed(0)

    def mean_distance(n, reference, draws=200):
        clouds = (torch.randn(n + reference, 6, generator=draw, dtype=torch.float64) for _ in range(draws))
        return np.mean([frechet(moments(cloud[:n]), moments(cloud[n:])) for cloud in clouds])

    measured, wanted = mean_distance(150, 2000), mean_distance(1000, 2000)
    assert measured * chance(1000, 2000) / chance(150, 2000) == pytest.approx(wanted, rel=0.08)
    assert measured / wanted > 3  # so that it says something


def test_a_floor_from_fewer_images_says_so(tmp_path):
    made = evaluation(tmp_path, n=1000, floor=True)
    floor = by_name(made, pixels(1000), 250)["fd_by_hand_floor@1000"]
    m = len(made.data.held_out_store)
    alone = frechet(moments(by_hand(made.data.held_out_store.pixels).double()), made.compared.reference.moments)
    n = made.compared.reference.moments.n
    assert floor.value == pytest.approx(alone * (1 / 1000 + 1 / n) / (1 / m + 1 / n), rel=1e-4)
    assert f"expected from {m} images of the part held_out" in floor.marks[0]


def test_a_reference_of_held_out_images_has_its_floor_from_the_others(tmp_path):
    made = evaluation(tmp_path, n=200, floor=True)
    data = made.data
    stamp = replace(made.compared.reference.stamp, split="held_out")
    held_out = of_source(data.held_out_store, replace(stamp, n=len(data.held_out_store), kept=0), ByHand(), CPU, 64)
    save(held_out, tmp_path / "held_out.npz")
    other = evaluation(tmp_path, str(tmp_path / "held_out.npz"), n=200, floor=True)
    assert by_name(other, pixels(200))["fd_by_hand_floor@200"].value > 0.01
    assert "Digits held_out n=270" in by_name(other, pixels(200))["fd_by_hand@200"].reference


def test_without_enough_real_images_there_is_a_mark_and_no_floor(tmp_path):
    made = evaluation(tmp_path, floor=True)
    made.data.__dict__["held_out_store"] = Store(made.data.held_out_store.pixels[:1], None)
    scores = by_name(made, pixels(40))
    assert "fd_by_hand_floor@40" not in scores
    assert "no floor: of the part held_out there is only n=1" in scores["fd_by_hand@40"].marks


def test_too_few_images_for_a_covariance_are_marked(tmp_path):
    assert "n=6 is no more than the 6 features" in by_name(evaluation(tmp_path), pixels(6))["fd_by_hand@6"].marks[0]
    assert not by_name(evaluation(tmp_path), pixels(7))["fd_by_hand@7"].marks


def test_copies_of_training_images_are_found(tmp_path):
    made = evaluation(tmp_path)
    found = judged(made, made.data.train_store.pixels[100:140])
    ratio = found.scores[-1]
    assert ratio.name == "nearest@20" and ratio.value == 0 and "least 0" in ratio.marks
    assert torch.equal(found.pairs[:20], found.pairs[20:])
    held_out = judged(made, made.data.held_out_store.pixels[:40]).scores[-1]
    assert 0.7 < held_out.value < 1.4


def test_the_nearest_of_a_source_is_found_through_all_chunks():
    source = Digits(batch=8, seed=0, size=8, flip=False).train_store
    wanted = source.pixels[[3, 900, 1400]].clone()
    wanted[:, 0, 0, 0] += 8
    found = nearest(wanted, source, mirrored=False, values=100 * 64)
    assert torch.equal(found.pixels, source.pixels[[3, 900, 1400]])
    torch.testing.assert_close(found.distance, torch.full((3,), 1.0))
    turned = wanted.flip(3)
    assert torch.equal(nearest(turned, source, mirrored=True).pixels, source.pixels[[3, 900, 1400]].flip(3))
    assert (nearest(turned, source, mirrored=False).distance > 10).all()


def test_drifting_colours_are_named(tmp_path):
    made = evaluation(tmp_path)
    real_images = made.data.train_store.pixels[:800]
    drifted = (real_images.float() * 0.5 + 60).byte()
    scores = by_name(made, drifted, 100)
    shift = drifted.double().mean() - made.compared.reference.colours.mean.item()
    assert scores["colour_shift@800"].value == pytest.approx(shift.item(), abs=1e-3)
    spread = drifted.double().std(correction=0) / made.compared.reference.colours.spread.item()
    assert scores["colour_spread@800"].value == pytest.approx(spread.item(), rel=1e-4)


def test_clipped_values_are_counted_and_broken_samples_refused(tmp_path):
    made, seen, x = evaluation(tmp_path), Seen(1), to_float(pixels(40))
    x[:10] = 1.5
    scores = made(Samples(40, seen.quantise(stream(x, 16)), seen)).scores
    assert {score.name: score.value for score in scores}["clipped@40"] == 0.25
    seen, x = Seen(1), to_float(pixels(40))
    x[3, 0, 1, 1], x[7] = torch.nan, torch.inf
    with pytest.raises(UserError, match="2 of 40 samples are not finite"):
        made(Samples(40, seen.quantise(stream(x, 16)), seen))


@pytest.mark.parametrize("labels", [torch.arange(1000) % 10, torch.arange(1000) // 100, torch.arange(1000) % 7])
def test_blocks_share_out_every_class_evenly(labels):
    """With one class a block, leaving one out would change the distance by what that class is worth."""
    counts = torch.zeros(10, 10).long().index_put_((dealt(labels) % 10, labels), torch.tensor(1), accumulate=True)
    present = counts[:, : labels.max() + 1]
    assert (present.amax(dim=0) - present.amin(dim=0)).max() <= 1


def test_extrapolation_is_not_misled_by_classes_in_turn(tmp_path):
    """Ten classes of very different brightness, in turn, as samples are drawn."""
    labels = torch.arange(400) % 10
    images = (pixels(400).long() // 4 + 20 * labels[:, None, None, None]).byte()
    made = evaluation(tmp_path, n=400, extrapolate=True)
    scores = {s.name: s for s in made(Samples(400, stream(images, 50), Seen(1), labels)).scores}
    plain, endless = scores["fd_by_hand@400"].value, scores["fd_by_hand_extrapolated@400"]
    assert endless.high - endless.low < 0.02 * plain and abs(endless.value - plain) < 0.01 * plain


def test_real_images_are_spread_over_their_source():
    source = Digits(batch=8, seed=0, size=8, flip=False).train_store
    numbers, images = zip(*real(source, 30, 7), strict=True)
    assert torch.cat(numbers).tolist() == list(range(30)) and len(torch.cat(images)) == 30


def test_what_a_reference_cannot_be_asked_is_refused(tmp_path):
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(6), sigma=np.eye(6))
    with pytest.raises(UserError, match="made with inception"):
        evaluation(tmp_path, str(tmp_path / "statistics.npz"))
    with pytest.raises(UserError, match="fid is not known: use frechet"):
        evaluation(tmp_path, scores=["fid"])
    with pytest.raises(UserError, match="needs classes, and by_hand has none"):
        evaluation(tmp_path, scores=["inception_score"])
    with pytest.raises(UserError, match=r"n=12 is too small for metrics.extrapolate=true: it needs at least 20 images"):
        evaluation(tmp_path, n=12, extrapolate=True)
    made = Evaluation(["frechet"], 10, False, False, ByHand(), ClipJudge(""), str(tmp_path))
    with pytest.raises(UserError, match="reference must be given"):
        made.prepare(None, Digits(batch=8, seed=0, size=8, flip=False).spec, 10, CPU)
