"""`smallbatch reference`: a file of moments that says how it was made."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smallbatch.data.digits import Digits
from smallbatch.files import alone
from smallbatch.metrics.reference import read

COLOURS = ["~extractor", "+extractor._target_=tests.metrics.test_reference.Colours"]
DIGITS = ["data=digits", *COLOURS]


def digits():
    return Digits(batch=1, seed=0).parts


def photos(count=5, size=32):
    Path("photos").mkdir()
    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)):
        Image.fromarray(image).save(f"photos/{number}.png")
    return Path("photos")


@pytest.mark.parametrize("part", ["train", "held_out"])
def test_a_reference_is_of_a_whole_part_and_says_so(part, smallbatch):
    said = smallbatch("reference", *DIGITS, f"part={part}", "keep=20", "out=new/digits.npz")
    images = getattr(digits(), part).pixels.double()
    assert f"digits.npz: {len(images)} images of Digits, colours 1" in said
    made = read(Path("new/digits.npz"))
    assert (made.stamp.data, made.stamp.split, made.stamp.n, len(made.vectors)) == ("Digits", part, len(images), 20)
    assert made.stamp.settings == {"size": 8} and made.stamp.smallbatch
    np.testing.assert_allclose(made.moments.mean[0], images.mean(), rtol=1e-6)


def test_the_same_words_again_do_nothing_and_other_words_are_refused(smallbatch, refused):
    words = ["reference", *DIGITS, "n=50", "out=a.npz"]
    smallbatch(*words)
    before = Path("a.npz").stat().st_mtime_ns
    assert "is there already, made in the same way" in smallbatch(*words, "batch=7", "seed=3", "data.flip=true")
    for words, line in {
        ("n=60",): "made with n=50, not 60; kept=50, not 60: remove it, or choose another out",
        ("data.size=16",): "made with size=8, not 16; filter=none, not bicubic",
        ("part=held_out",): "made with split=train, not held_out: remove it",
        ("+extractor.weights='2'",): "made with extractor=colours 1, not colours 2: remove it",
    }.items():
        assert line in refused("reference", *DIGITS, "n=50", "out=a.npz", *words)
    assert Path("a.npz").stat().st_mtime_ns == before


def test_a_set_without_end_needs_a_number(smallbatch, refused):
    words = ["reference", "data=shapes", *COLOURS, "out=shapes.npz"]
    assert "n=null: this data set never ends, so say how many images: n=50000" in refused(*words)
    smallbatch(*words, "n=40")
    assert read(Path("shapes.npz")).moments.n == 40


@pytest.mark.parametrize(
    "words, line",
    [
        ("", "out must be given: out=..."),
        ("out=a.npy", "out=a.npy must end in .npz"),
        ("out=a.npz part=test", "part=test: give train or held_out"),
        ("out=a.npz n=1", "n=1 must be a whole number, at least 2"),
        ("out=a.npz n=many", "n=many must be a whole number, at least 2"),
        ("out=a.npz n=5000", "n=5000: the part train has 1527 images"),
        ("out=a.npz batch=0", "batch=0 must be a whole number, at least 1"),
        ("out=a.npz keep=null", "keep=None must be a whole number, at least 0"),
    ],
)
def test_a_mistake_is_named_with_its_fix(words, line, refused):
    assert line in refused("reference", *DIGITS, *words.split())
    assert not Path("a.npz").exists()


def test_without_a_data_set_it_says_so_and_still_helps(smallbatch, refused, capsys):
    assert "data must be given: data=cifar10" in refused("reference", *COLOURS, "out=a.npz")
    with pytest.raises(SystemExit) as stopped:
        smallbatch("reference", "--help")
    shown = capsys.readouterr().out
    assert stopped.value.code == 0 and "Examples" in shown and "classifier" in shown and "keep: 10000" in shown


def test_another_file_is_never_overwritten(refused):
    np.savez("theirs.npz", mu=np.ones(6), sigma=np.eye(6))
    Path("text.npz").write_text("mine")
    assert "was made with nobody knows what: remove it" in refused("reference", *DIGITS, "out=theirs.npz")
    assert "text.npz cannot be read" in refused("reference", *DIGITS, "out=text.npz")
    assert Path("text.npz").read_text() == "mine"


def test_one_process_at_a_time_makes_a_file(refused):
    with alone(Path("a.npz")):
        assert "a.npz is being made by another process" in refused("reference", *DIGITS, "out=a.npz")


def test_an_image_that_cannot_be_read_leaves_nothing_behind(refused):
    folder = photos()
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])
    words = ["data=images", "data.path=photos", "data.size=32", *COLOURS, "out=a.npz"]
    assert "cannot decode 3.png: repair or remove it" in refused("reference", *words)
    assert {path.name for path in Path().iterdir()} == {"photos", ".lock.a.npz"}


def test_images_are_brought_to_size_as_in_training(smallbatch):
    photos()
    smallbatch(
        "reference", "data=images", "data.path=photos", "data.size=8", "data.held_out=0.3", *COLOURS, "out=a.npz"
    )
    stamp = read(Path("a.npz")).stamp
    assert (stamp.size, stamp.filter, stamp.crop) == (8, "box by halves, then bicubic", "centre")
    assert stamp.settings == {"size": 8, "channels": 3, "held_out": 0.3, "smallest": None}


def test_the_default_extractor_is_trained_on_the_data_set_and_kept(smallbatch, monkeypatch, tmp_path):
    monkeypatch.setenv("SMALLBATCH_CACHE", str(tmp_path / "cache"))
    words = ["reference", "data=digits", "extractor.images=640", "n=300"]
    said = smallbatch(*words, "out=digits.npz")
    made = read(Path("digits.npz"))
    assert made.stamp.extractor.startswith("classifier ") and made.stamp.extractor in said
    assert made.moments.n == len(made.vectors) == 300 and made.vectors.std() > 0
    smallbatch(*words, "out=again.npz")
    assert read(Path("again.npz")).stamp.other(made.stamp) == []
