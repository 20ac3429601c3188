"""References: made from a data set, kept in a file, refused where they do not fit."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smallbatch.data import reading
from smallbatch.data.digits import Digits
from smallbatch.data.packed import Packed
from smallbatch.data.packing import pack
from smallbatch.data.shapes import ENDLESS, Shapes
from smallbatch.data.store import Store
from smallbatch.errors import UserError
from smallbatch.metrics.extractors import Extractor, Features
from smallbatch.metrics.reference import at_hand, check, of_source, open_reference, read, save
from smallbatch.metrics.rows import batches, spread
from smallbatch.metrics.stamps import Stamp, fingerprints, of_images, resizing, stamp_of
from smallbatch.notation import ImageSpec

cases = pytest.mark.parametrize
SETTINGS = {"_target_": "smallbatch.data.digits.Digits", "size": 8, "per_image": 1}
GREY8, COLOUR8 = ImageSpec(1, 8, 0), ImageSpec(3, 8, 0)


class Colours(Extractor):
    """Mean and spread of each channel: few features, but real ones."""

    dimension = 6

    def __init__(self, name="colours", weights="1"):
        self.name, self.weights = name, weights

    def prepare(self, data): ...

    @property
    def identity(self):
        return f"{self.name} {self.weights}"

    @contextmanager
    def on(self, device):
        yield lambda pixels: Features(colours(pixels), None)


def colours(pixels):
    flat = pixels.float().expand(-1, 3, -1, -1).flatten(2)
    return torch.cat([flat.mean(dim=2), flat.std(dim=2)], dim=1)


def noise(n=40, size=8, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def vectors_of(images):
    return colours(torch.from_numpy(images).permute(0, 3, 1, 2)).double()


def digits(size=8):
    return Digits(batch=1, seed=0, size=size)


def made(n=200, keep=50, batch=64, data=None, extractor=None):
    data, extractor = data or digits(), extractor or Colours()
    return of_source(data.parts.train, stamp_of(data, SETTINGS, "train", extractor, n, keep), extractor, "cpu", batch)


def refused(act):
    with pytest.raises(UserError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def opened(path, extractor=None, keep=10):
    return open_reference(path, extractor or Colours(), "cpu", 16, keep)


def close(moments, mean, covariance):
    torch.testing.assert_close(moments.mean, mean, rtol=1e-10, atol=0)
    torch.testing.assert_close(moments.covariance, covariance, rtol=1e-8, atol=1e-8)


def test_the_moments_are_those_of_all_features():
    data = digits()
    n = len(data.parts.train)
    features = colours(data.parts.train.pixels).double()
    close(made(n).moments, features.mean(dim=0), features.T.cov())
    assert made(n).moments.n == n


@cases("batch", [1, 7, 128, 1000])
def test_no_batch_changes_what_is_made(batch):
    one, other = made(), made(batch=batch)
    close(other.moments, one.moments.mean, one.moments.covariance)
    assert torch.equal(one.vectors, other.vectors) and one.stamp.pixels == other.stamp.pixels != ""


def test_the_kept_vectors_are_of_images_spread_over_all():
    data = digits()
    kept = made(n=len(data.parts.train), keep=100).vectors
    features = colours(data.parts.train.pixels)
    rows = torch.tensor([(features == vector).all(dim=1).nonzero()[0, 0] for vector in kept])
    slots = rows * 100 // len(features)
    assert len(kept) == 100 and (slots - torch.arange(100)).abs().max() <= 1
    assert made(keep=0).vectors is None and len(made(n=20, keep=50).vectors) == 20


@cases("count, length", [(0, 5), (1, 1), (5, 5), (7, 10), (10_000, 50_000), (50_000, ENDLESS)])
def test_rows_are_spread_one_to_a_stretch(count, length):
    rows = spread(count, length)
    ends = [i * length // max(count, 1) for i in range(count + 1)]
    assert all(low <= row < high for low, row, high in zip(ends, rows.tolist(), ends[1:], strict=False))
    assert len(rows) == count and torch.equal(rows, spread(count, length))


def test_a_part_of_images_that_repeat_their_classes_in_turn_holds_every_class():
    classes = spread(1000, 10_000) % 10
    assert classes.bincount(minlength=10).min() > 60


@cases("count", [300, 700])
def test_rows_come_in_batches_with_their_pixels_also_from_several_processes(count, monkeypatch):
    monkeypatch.setattr(reading, "SLOW", 500)
    pixels = torch.arange(1000).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    rows = spread(count, 1000)
    given = list(batches(Store(pixels, None), rows, 150, "reading"))
    assert [len(some) for some, _ in given] == [150] * (count // 150) + [count % 150] * (count % 150 > 0)
    assert torch.equal(torch.cat([some for some, _ in given]), rows)
    assert torch.equal(torch.cat([seen for _, seen in given]), pixels[rows])


def test_a_file_gives_back_all_that_was_saved(tmp_path):
    kept = made()
    save(kept, tmp_path / "a.npz")
    back = read(tmp_path / "a.npz")
    assert torch.equal(back.moments.mean, kept.moments.mean) and back.moments.n == 200
    assert torch.equal(back.moments.covariance, kept.moments.covariance) and torch.equal(back.vectors, kept.vectors)
    assert back.stamp == kept.stamp and back.stamp.pixels == kept.stamp.pixels and back.marks == ()
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_the_colours_are_those_of_the_images(tmp_path):
    np.savez(tmp_path / "batch.npz", images := noise())
    save(opened(tmp_path / "batch.npz"), tmp_path / "a.npz")
    for reference in (opened(tmp_path / "batch.npz"), read(tmp_path / "a.npz")):
        mean, spread = reference.colours
        np.testing.assert_allclose(mean, images.reshape(-1, 3).mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(spread, images.reshape(-1, 3).std(axis=0), rtol=1e-9)


def test_a_data_set_is_measured_once_for_each_extractor_and_size(tmp_path):
    def files():
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("Digits*")}

    def asked(size=8, weights="1", keep=50, batch=64):
        return at_hand(digits(size), Colours(weights=weights), "cpu", batch, keep, tmp_path)

    first = asked()
    before = files()
    again = asked(batch=100)
    assert files() == before and len(before) == 1
    assert torch.equal(first.moments.mean, again.moments.mean) and again.stamp.other(first.stamp) == []
    whole = made(n=1527)
    assert again.stamp == replace(whole.stamp, settings={"size": 8, "train": 1527, "held_out": 270})
    assert torch.equal(again.vectors, whole.vectors) and again.marks == ()
    others = [asked(size=16), asked(weights="2"), asked(keep=40)]
    assert sorted(files()) == sorted(Path(one.name).name for one in (first, *others)) and len(files()) == 4


def test_of_a_large_set_a_part_is_measured_unasked_and_that_is_marked(tmp_path, monkeypatch):
    monkeypatch.setattr("smallbatch.metrics.reference.MOST", 100)
    large = at_hand(digits(), Colours(), "cpu", 64, 50, tmp_path)
    endless = at_hand(Shapes(batch=1, seed=0), Colours(), "cpu", 64, 50, tmp_path)
    assert large.moments.n == endless.moments.n == 100
    assert large.marks == ("reference of n=100 of 1527 images",) and endless.marks == ()


def test_a_file_is_what_other_tools_read(tmp_path):
    save(made(), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found["mu"].shape == (6,) and found["sigma"].shape == (6, 6)
        assert found["mu"].dtype == found["sigma"].dtype == np.float64
        assert json.loads(str(found["stamp"]))["extractor"] == "colours 1"


def test_the_stamp_says_what_the_images_are():
    data = digits(16)
    stamp = made(data=data).stamp
    assert (stamp.data, stamp.split, stamp.size, stamp.channels) == ("Digits", "train", 16, 1)
    assert (stamp.n, stamp.kept, stamp.settings, stamp.images) == (200, 50, {"size": 8}, [data.fingerprint])


@cases(
    "name, size, filter, crop",
    [
        ("Digits", 8, "none", "none"),
        ("Digits", 16, "bicubic", "none"),
        ("Cifar10", None, "none", "none"),
        ("Images", None, "none", "none"),
        ("Images", 64, "box by halves, then bicubic", "centre"),
        ("ImageNet", 64, "box by halves, then bicubic", "centre"),
        ("Theirs", 64, "unknown", "unknown"),
    ],
)
def test_the_stamp_says_how_images_came_to_their_size(name, size, filter, crop):
    assert resizing(name, {} if size is None else {"size": size}) == (filter, crop)


def test_a_store_is_stamped_as_what_it_was_packed_from(tmp_path):
    data = digits()
    pack(data, {"_target_": SETTINGS["_target_"], "size": 8}, tmp_path / "store")
    packed = Packed(str(tmp_path / "store"), batch=1, seed=0)
    stamp = made(data=packed).stamp
    assert (stamp.data, stamp.settings, stamp.filter) == ("Digits", {"size": 8}, "none")
    assert stamp.pixels == made(data=data).stamp.pixels and data.fingerprint in stamp.images
    assert check(made(data=packed), Colours(), GREY8, fingerprints(data)) == []
    assert check(made(data=data), Colours(), GREY8, fingerprints(packed)) == []


def test_an_endless_set_is_measured_over_all_of_it():
    data = Shapes(batch=1, seed=0)
    shapes = of_source(data.parts.train, stamp_of(data, {}, "train", Colours(), 30, 0), Colours(), "cpu", 8)
    assert shapes.moments.n == 30 and shapes.moments.covariance.trace() > 1


def test_stamps_agree_whoever_wrote_them_and_name_what_differs():
    stamp = made().stamp
    assert stamp.other(replace(stamp, pixels="", smallbatch="9.9")) == []
    assert stamp.other(replace(stamp, n=100, crop="centre")) == ["n=200, not 100", "crop=none, not centre"]


def foreign(path, images=None, d=6, **more):
    features = vectors_of(noise() if images is None else images)
    moments = {"mu": features.mean(dim=0).numpy()[:d], "sigma": features.T.cov().numpy()[:d, :d]}
    np.savez(path / "theirs.npz", **moments | more)
    return path / "theirs.npz"


def test_mu_and_sigma_alone_serve_inception_and_are_marked(tmp_path):
    inception = Colours("inception")
    reference = opened(foreign(tmp_path), inception)
    features = vectors_of(noise())
    close(reference.moments, features.mean(dim=0), features.T.cov())
    assert reference.moments.n == 0 and reference.vectors is None and reference.stamp is None
    assert check(reference, inception, GREY8, ["abc"]) == ["reference without a stamp: theirs.npz"]


def test_mu_and_sigma_alone_serve_no_other_extractor(tmp_path):
    reference = opened(foreign(tmp_path))
    line = refused(lambda: check(reference, Colours(), COLOUR8))
    assert "theirs.npz was made with inception, this is colours 1: give extractor=inception, or make another" in line
    reference = opened(foreign(tmp_path, d=5))
    assert "has 5 features, inception 1 has 6" in refused(lambda: check(reference, Colours("inception"), COLOUR8))


def test_images_in_a_file_or_a_folder_are_measured_now(tmp_path):
    images = noise()
    np.savez(tmp_path / "batch.npz", images)
    (tmp_path / "folder").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "folder" / f"{number:03}.png")
    features = vectors_of(images)
    pixels = set()
    for name in ("batch.npz", "folder"):
        reference = opened(tmp_path / name)
        close(reference.moments, features.mean(dim=0), features.T.cov())
        assert reference.moments.n == 40 and len(reference.vectors) == 10
        assert check(reference, Colours(), COLOUR8) == []
        assert check(reference, Colours(), COLOUR8, ["abc"]) == [
            f"reference not known to be of the samples' data set: {name}"
        ]
        pixels.add(reference.stamp.pixels)
    assert len(pixels) == 1


def test_a_reference_of_jpegs_is_marked(tmp_path):
    for number, image in enumerate(noise(n=7)):
        Image.fromarray(image).save(tmp_path / f"{number}.jpg")
    assert check(opened(tmp_path), Colours(), COLOUR8) == [
        "7 of 7 images are JPEG, whose artefacts change the distance"
    ]


def test_of_statistics_beside_images_those_are_used_that_fit_the_extractor(tmp_path):
    """As in guided-diffusion's files: mu and sigma of all images, arr_0 some of them."""
    theirs, some = vectors_of(noise(seed=1)), vectors_of(noise())
    path = foreign(tmp_path, noise(seed=1), arr_0=noise(), mu_s=np.ones(3), sigma_s=np.eye(3))
    inception, other = opened(path, Colours("inception")), opened(path)
    close(inception.moments, theirs.mean(dim=0), theirs.T.cov())
    close(other.moments, some.mean(dim=0), some.T.cov())
    for reference in (inception, other):
        assert (torch.cdist(reference.vectors.double(), some).min(dim=1).values < 1e-3).all()
        assert len(reference.vectors) == 10
    assert check(inception, Colours("inception"), COLOUR8) == ["reference without a stamp: theirs.npz"]
    assert check(other, Colours(), COLOUR8) == []
    assert "8x8 with 3 channels, the samples are 64x64" in refused(
        lambda: check(inception, Colours("inception"), ImageSpec(3, 64, 0))
    )
    assert opened(path, Colours("inception"), keep=0).vectors is None


@cases(
    "extractor, spec, known, line",
    [
        (Colours("other"), GREY8, [], "made with colours 1, this is other 1: give extractor=colours, or make another"),
        (Colours(weights="2"), GREY8, [], "with colours 1, this is colours 2: give the same weights, or make another"),
        (Colours(), ImageSpec(1, 16, 0), [], "8x8 with 1 channels, the samples are 16x16 with 1 channels: make"),
        (Colours(), COLOUR8, [], "8x8 with 1 channels, the samples are 8x8 with 3 channels: make another"),
        (Colours(), GREY8, ["abc"], "is of other images (Digits "),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(extractor, spec, known, line, tmp_path):
    save(made(), tmp_path / "a.npz")
    reference = opened(tmp_path / "a.npz")
    said = refused(lambda: check(reference, extractor, spec, known))
    assert line in said and f"reference={tmp_path}/a.npz" in said
    assert check(reference, Colours(), GREY8, [digits().fingerprint]) == []


def test_fewer_images_than_features_are_marked():
    assert check(made(n=5), Colours(), GREY8) == ["reference of n=5 images, fewer than its 6 features"]
    assert check(made(n=6), Colours(), GREY8) == []


@cases(
    "arrays, line",
    [
        ({"mu": np.ones(3)}, "holds mu, not mu and sigma: make one with `smallbatch reference`"),
        ({}, "holds nothing"),
        ({"mu": np.ones(3), "sigma": np.eye(4)}, "mu of float64 (3,) and sigma of float64 (4, 4), not d and d,d"),
        ({"mu": np.ones((1, 3)), "sigma": np.eye(3)}, "not d and d,d numbers"),
        ({"mu": np.ones(3, dtype=int), "sigma": np.eye(3)}, "not d and d,d numbers"),
        ({"mu": np.array([1, np.nan]), "sigma": np.eye(2)}, "mu or sigma is not finite"),
        ({"mu": np.ones(2), "sigma": np.array([[1.0, 0.5], [0.4, 1]])}, "sigma is not symmetric"),
        ({"mu": np.ones(2), "sigma": np.eye(2), "stamp": np.array("{"), "n": 3}, "its stamp cannot be read"),
        ({"mu": np.ones(2), "sigma": np.eye(2), "stamp": np.array('{"a": 1}'), "n": 3}, "its stamp cannot be read"),
        ({"mu": np.array([object()]), "sigma": np.eye(1)}, "or holds Python objects"),
        ({"arr_0": noise() / 255}, "save (images * 255).round().astype('uint8')"),
    ],
)
def test_a_file_that_is_no_reference_is_refused(arrays, line, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    assert line in refused(lambda: opened(tmp_path / "a.npz"))


def test_a_reference_that_is_not_there_is_named(tmp_path):
    assert f"reference={tmp_path}/nowhere.npz does not exist" in refused(lambda: opened(tmp_path / "nowhere.npz"))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    assert "cut.npz cannot be read" in refused(lambda: opened(tmp_path / "cut.npz"))


def test_one_image_that_cannot_be_taken_stops_the_measurement(tmp_path):
    for number, image in enumerate(noise(n=30, size=32)):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    whole = (tmp_path / "11.png").read_bytes()
    (tmp_path / "11.png").write_bytes(whole[: len(whole) // 2])
    assert "cannot decode 11.png" in refused(lambda: opened(tmp_path))


def test_a_stamp_of_images_says_that_nobody_knows_how_they_were_made():
    stamp = of_images("folder", COLOUR8, Colours(), 40, 100)
    assert stamp == Stamp("folder", 8, 3, "colours 1", 40, 40) and stamp.filter == stamp.crop == "unknown"
