"""The classifier that a data set trains for its own scores."""

import threading

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from smallbatch.data.digits import Digits
from smallbatch.data.shapes import Shapes
from smallbatch.errors import UserError
from smallbatch.metrics.classifier import Classifier
from smallbatch.metrics.classifier_net import FEATURES, Net, trained
from smallbatch.metrics.frechet import frechet
from smallbatch.metrics.moments import moments
from smallbatch.metrics.weights import in_turn, sha256_of
from smallbatch.notation import ImageSpec

cases = pytest.mark.parametrize
GREY8 = ImageSpec(1, 8, 10)


class Unlabelled(Digits):
    @property
    def spec(self):
        return super().spec._replace(classes=0)


@pytest.fixture(scope="module")
def digits():
    return Digits(batch=1, seed=0)


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    classifier = Classifier(str(tmp_path_factory.mktemp("cache")), images=6000)
    classifier.prepare(digits)
    return classifier


def features(classifier, pixels):
    with classifier.on("cpu") as extract:
        return extract(pixels)


def refused(do):
    with pytest.raises(UserError) as error:
        do()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_tells_held_out_digits_apart_and_says_how_well(made, digits):
    part = digits.held_out_store
    found = features(made, part.pixels)
    right = (found.logits.argmax(dim=1) == part.labels).double().mean().item()
    assert right == made.about.accuracy > 0.9 and made.knows_labels
    assert made.identity.endswith(f"({100 * right:.1f} % of held-out labels)")
    assert found.vectors.shape == (len(part), FEATURES) == (len(part), made.dimension)


def test_the_distance_grows_from_real_digits_over_blurred_ones_to_noise(made, digits):
    train = digits.train_store.pixels
    blurred = gaussian_blur(train, kernel_size=3, sigma=0.6)
    noise = torch.randint(256, train.shape, generator=torch.Generator().manual_seed(0)).byte()
    images = (train, digits.held_out_store.pixels, blurred, noise)
    real, *others = (moments(features(made, pixels).vectors) for pixels in images)
    near, between, far = (frechet(other, real) for other in others)
    assert 0 < 10 * near < between and 2 * between < far


def test_the_same_seed_trains_the_same_weights_and_touches_no_other_randomness(digits):
    before = torch.get_rng_state()
    first = sha256_of(trained(digits.train_store, GREY8, images=320, seed=0).state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        again = sha256_of(trained(digits.train_store, GREY8, images=320, seed=0).state_dict())
    assert first == again != sha256_of(trained(digits.train_store, GREY8, images=320, seed=1).state_dict())


def test_it_is_trained_once_and_its_file_serves_without_data(made, digits):
    written, pixels = made.path.stat().st_mtime_ns, digits.held_out_store.pixels
    again = Classifier(str(made.folder), images=6000)
    again.prepare(Digits(batch=4, seed=7))
    alone = Classifier("nowhere", weights=str(made.path))
    alone.prepare(None)
    assert again.path == made.path and made.path.stat().st_mtime_ns == written
    assert made.identity == again.identity == alone.identity and not alone.knows_labels
    assert torch.equal(features(alone, pixels).vectors, features(made, pixels).vectors)
    assert [file.suffix for file in made.folder.glob("[!.]*")] == [".safetensors"]


@cases("change", [dict(seed=1), dict(images=320 + 1)])
def test_other_settings_and_other_data_have_their_own_file(change, digits, tmp_path):
    settings = dict(images=320, seed=0)
    first, other, larger = (Classifier(str(tmp_path), **settings | more) for more in ({}, change, {}))
    for classifier, data in ((first, digits), (other, digits), (larger, Digits(batch=1, seed=0, size=16))):
        classifier.prepare(data)
    assert len({first.path, other.path, larger.path}) == 3
    assert len({first.identity, other.identity, larger.identity}) == 3


def test_an_endless_set_serves_and_weights_of_another_set_know_no_labels(tmp_path):
    shapes = Shapes(batch=1, seed=0, size=16)
    classifier = Classifier(str(tmp_path), images=64)
    classifier.prepare(shapes)
    assert features(classifier, shapes.held_out_store.take(torch.arange(3)).pixels).logits.shape == (3, 40)
    assert classifier.knows_labels and 0 <= classifier.about.accuracy < 0.5


def test_a_classifier_of_other_data_knows_none_of_its_labels(made):
    other = Classifier("nowhere", weights=str(made.path))
    shuffled = Digits(batch=1, seed=0)
    shuffled.parts.train.labels.copy_(shuffled.parts.train.labels.flip(0))
    other.prepare(shuffled)
    assert made.knows_labels and not other.knows_labels


@cases("size", [8, 9, 16, 28, 33, 64, 100])
@cases("channels", [1, 3])
def test_it_takes_any_size(size, channels):
    vectors, logits = Net(ImageSpec(channels, size, 7)).eval()(torch.zeros(2, channels, size, size, dtype=torch.uint8))
    assert vectors.shape == (2, FEATURES) and logits.shape == (2, 7)


def test_autocast_around_it_changes_nothing_and_inference_mode_does_not_stick(made, digits):
    pixels, fresh = digits.held_out_store.pixels[:5], Classifier("nowhere", weights=str(made.path))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        inside = features(fresh, pixels)
    outside = features(fresh, pixels)
    assert inside.vectors.dtype == inside.logits.dtype == torch.float32
    assert torch.equal(inside.vectors, outside.vectors) and torch.equal(inside.logits, outside.logits)


@cases("pixels, given", [((2, 1, 16, 16), "1x16x16"), ((2, 3, 8, 8), "3x8x8"), ((2, 1, 8, 16), "1x8x16")])
def test_images_of_another_shape_are_refused(pixels, given, made):
    line = refused(lambda: features(made, torch.zeros(pixels, dtype=torch.uint8)))
    assert f"trained on images of 1x8x8, these are {given}" in line


def test_what_it_cannot_learn_from_is_refused_with_the_fix(made, digits, tmp_path):
    classifier = Classifier(str(tmp_path))
    assert "give data=..., or extractor.weights=FILE" in refused(lambda: classifier.prepare(None))
    unlabelled = refused(lambda: classifier.prepare(Unlabelled(batch=1, seed=0)))
    assert "the data has 0: use extractor=inception" in unlabelled and "extractor.weights=FILE" in unlabelled
    larger = Digits(batch=1, seed=0, size=16)
    assert "these are 1x16x16" in refused(lambda: Classifier("nowhere", weights=str(made.path)).prepare(larger))
    (tmp_path / "file").touch()
    line = refused(lambda: Classifier(str(tmp_path / "file")).prepare(digits))
    assert f"extractor.folder={tmp_path / 'file'} cannot be written" in line
    assert "images=0 must be above 0" in refused(lambda: Classifier("nowhere", images=0))


@cases("content", [None, b"", b"no weights"])
def test_a_file_that_is_no_classifier_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "bad").write_bytes(content)
    line = refused(lambda: Classifier("nowhere", weights=str(tmp_path / "bad")).identity)
    assert f"extractor.weights={tmp_path / 'bad'} is no classifier of this version" in line


def test_who_makes_a_file_makes_others_wait(tmp_path):
    order = []

    def wait():
        with in_turn(tmp_path / "file"):
            order.append("second")

    with in_turn(tmp_path / "file"):
        (second := threading.Thread(target=wait)).start()
        second.join(timeout=0.2)
        order.append("first")
    second.join()
    assert order == ["first", "second"]
