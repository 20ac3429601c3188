"""ImageNet in ILSVRC's layout, with what occurs in it: odd colour modes, a broken file, one too small."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_files import draw

from smallbatch.data.imagenet import ImageNet, classes
from smallbatch.data.packed import Packed
from smallbatch.data.packing import pack
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec

SYNSETS = ["n01440764", "n01531178", "n15075141"]  # 0 tench, 11 goldfinch, 999 toilet tissue
MODES = ["RGB", "L", "CMYK"]


@pytest.fixture
def ilsvrc(tmp_path):
    """Twelve JPEGs a class to train on, four to validate; every second one is grey or CMYK."""
    rng = np.random.default_rng(0)
    for part, count in {"train": 12, "val": 4}.items():
        for synset in SYNSETS:
            (tmp_path / "ilsvrc" / part / synset).mkdir(parents=True)
            for number in range(count):
                width, height = rng.integers(20, 60, 2)
                pixels = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
                image = Image.fromarray(pixels).convert(MODES[number % 3])
                image.save(tmp_path / "ilsvrc" / part / synset / f"{synset}_{number}.JPEG")
    return tmp_path / "ilsvrc"


def imagenet(path, size=16, **options):
    return ImageNet(str(path), batch=4, seed=0, size=size, **options)


def refused(path, **options):
    with pytest.raises(UserError) as error:
        imagenet(path, **options).setup("fit")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_there_are_a_thousand_classes_in_the_published_order():
    synsets = list(classes())
    assert len(synsets) == 1000 and synsets == sorted(synsets)
    assert (classes()["n01440764"], classes()["n15075141"]) == ("tench", "toilet tissue")
    assert len(set(classes().values())) == 1000


@pytest.mark.parametrize("memory_gib", [8, 0])
def test_labels_are_the_published_numbers_whichever_folders_there_are(ilsvrc, memory_gib):
    data = imagenet(ilsvrc, memory_gib=memory_gib)
    assert data.spec == ImageSpec(3, 16, 1000)
    store = data.train_store.take(torch.arange(36))
    assert store.labels.tolist() == [0] * 12 + [11] * 12 + [999] * 12
    assert len(data.held_out_store) == 12


def test_odd_colour_modes_come_out_right(ilsvrc):
    store = imagenet(ilsvrc).train_store
    for row, name in enumerate(sorted(p for p in (ilsvrc / "train").rglob("*.JPEG"))):
        with Image.open(name) as image:
            expected = np.asarray(image.convert("RGB"))[0, 0]
        assert np.abs(store.pixels[row, :, 8, 8].numpy().astype(int) - expected).max() <= 12


def test_through_a_store_and_without_it_is_the_same_data(ilsvrc, tmp_path):
    pack(imagenet(ilsvrc), {"size": 16}, tmp_path / "store")
    stored, direct = Packed(str(tmp_path / "store"), batch=4, seed=0), imagenet(ilsvrc)
    for one, other in ((stored.train_store, direct.train_store), (stored.held_out_store, direct.held_out_store)):
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)
    assert stored.spec == direct.spec and stored.class_names == direct.class_names


def test_an_image_too_small_is_enlarged_as_adm_does_or_refused(ilsvrc):
    draw(ilsvrc / "train" / SYNSETS[0] / "tiny.JPEG", 0, (9, 7))
    assert imagenet(ilsvrc).train_store.pixels.shape == (37, 3, 16, 16)
    assert f"{SYNSETS[0]}/tiny.JPEG is 9x7, smaller than 16" in refused(ilsvrc, smallest=16)
    assert "data.smallest=7" in refused(ilsvrc, smallest=16, memory_gib=0)


@pytest.mark.parametrize("memory_gib", [8, 0])
def test_a_broken_image_is_named_before_training(ilsvrc, tmp_path, memory_gib):
    (ilsvrc / "train" / SYNSETS[1] / "broken.JPEG").write_bytes(b"\xff\xd8 not a picture")
    assert f"cannot decode {SYNSETS[1]}/broken.JPEG" in refused(ilsvrc, memory_gib=memory_gib)
    with pytest.raises(UserError, match=f"cannot decode {SYNSETS[1]}/broken"):
        pack(imagenet(ilsvrc), {"size": 16}, tmp_path / "store")


def test_a_damaged_body_is_found_when_it_is_packed(ilsvrc, tmp_path):
    name = next((ilsvrc / "train" / SYNSETS[1]).glob("*.JPEG"))
    name.write_bytes(name.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"cannot decode {SYNSETS[1]}/{name.name}"):
        pack(imagenet(ilsvrc), {"size": 16}, tmp_path / "store")


def test_without_val_a_share_of_train_is_held_out(ilsvrc):
    for file in (ilsvrc / "val").rglob("*.JPEG"):
        file.unlink()
    for folder in (*(ilsvrc / "val").iterdir(), ilsvrc / "val"):
        folder.rmdir()
    data = imagenet(ilsvrc)
    assert len(data.held_out_store) >= 1 and len(data.held_out_store) + len(data.train_store) == 36


def test_a_folder_that_is_no_synset_is_refused(ilsvrc):
    (ilsvrc / "train" / SYNSETS[0]).rename(ilsvrc / "train" / "fish")
    assert "fish is not one of ImageNet's 1,000 synsets" in refused(ilsvrc)


def test_validation_images_outside_folders_are_refused(ilsvrc):
    draw(ilsvrc / "val" / "ILSVRC2012_val_00000001.JPEG", 0, (20, 20))
    assert "ILSVRC2012_val_00000001.JPEG is not one of ImageNet's 1,000 synsets" in refused(ilsvrc)


def test_a_folder_without_train_or_without_images_is_refused(tmp_path):
    assert "must hold train/<synset>/*.JPEG and val/<synset>/*.JPEG" in refused(tmp_path)
    (tmp_path / "train").mkdir()
    assert "holds no images" in refused(tmp_path)


def test_the_fingerprint_follows_names_and_lengths(ilsvrc):
    before = imagenet(ilsvrc).fingerprint
    assert imagenet(ilsvrc, size=32).fingerprint == before
    next((ilsvrc / "val" / SYNSETS[0]).glob("*.JPEG")).unlink()
    assert imagenet(ilsvrc).fingerprint != before
