"""The packed store and EDM's zip."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from small_files import draw

from smallbatch.data import making, packing
from smallbatch.data.edm_zip import write_zip
from smallbatch.data.folder import Images
from smallbatch.data.packed import Packed
from smallbatch.data.reading import CHUNK
from smallbatch.data.store import Source
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec

MADE_WITH = {"size": 8}


def images(path, **options):
    return Images(str(path), batch=4, seed=0, size=8, held_out=0.3, **options)


def packed(path, **options):
    return Packed(str(path), batch=4, seed=0, **options)


def same(one, other):
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


@pytest.fixture
def store(animals, tmp_path):
    packing.pack(images(animals), MADE_WITH, tmp_path / "store")
    return tmp_path / "store"


def refused(path, **options):
    with pytest.raises(UserError) as error:
        packed(path, **options).setup("fit")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_store_holds_what_it_was_made_from(animals, store):
    data, direct = packed(store), images(animals)
    assert same(data.train_store, direct.train_store) and same(data.held_out_store, direct.held_out_store)
    assert (data.spec, data.class_names) == (direct.spec, direct.class_names) == (ImageSpec(3, 8, 3), data.class_names)


def test_a_store_is_mapped_not_read(store):
    first = packed(store).train_store.pixels
    second = packed(store).train_store.pixels
    first[0] = 7  # a private page: neither the file nor another mapping sees it
    assert not (second[0] == 7).all() and not (np.load(store / "train.npy")[0] == 7).all()


def test_the_fingerprint_is_of_the_pixels_wherever_the_store_lies(animals, store, tmp_path):
    packing.pack(images(animals), MADE_WITH, tmp_path / "again")
    draw(animals / "cat" / "3.png", 99)
    packing.pack(images(animals), MADE_WITH, tmp_path / "other")
    assert packed(store).fingerprint == packed(tmp_path / "again").fingerprint != packed(tmp_path / "other").fingerprint


def test_flat_images_make_a_store_without_labels(tmp_path):
    for seed in range(5):
        draw(tmp_path / "flat" / f"{seed}.png", seed)
    packing.pack(images(tmp_path / "flat"), MADE_WITH, tmp_path / "store")
    assert packed(tmp_path / "store").train_store.labels is None


def test_the_same_words_again_do_nothing_and_other_words_are_refused(animals, store):
    before = (store / "store.json").stat().st_mtime_ns
    packing.pack(images(animals), MADE_WITH, store)
    assert (store / "store.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"was made with data\.size=8, not 16: remove it"):
        packing.pack(images(animals), {"size": 16}, store)
    (animals / "dog" / "5.png").unlink()
    with pytest.raises(UserError, match=r"was made with data\.images="):
        packing.pack(images(animals), MADE_WITH, store)


class Deadly(Source):
    """Kills its process at a row, as an administrator would."""

    def __init__(self, source, row):
        self.source, self.row = source, row

    def __len__(self):
        return len(self.source)

    def take(self, indices):
        if self.row in indices:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.source.take(indices)

    def check(self): ...


def test_packing_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "BETWEEN_NOTES", 1)
    for seed in range(5 * CHUNK):
        draw(tmp_path / "many" / f"{seed % 3}" / f"{seed:04}.png", seed)
    out = tmp_path / "store"

    def killed():
        data = images(tmp_path / "many")
        data.parts = data.parts._replace(train=Deadly(data.parts.train, 2 * CHUNK))
        packing.pack(data, MADE_WITH, out)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not out.exists()
    assert (tmp_path / ".partial.store" / "train.done").read_text() == str(2 * CHUNK)

    data, taken = images(tmp_path / "many"), []

    class Watched(Deadly):
        def take(self, indices):
            taken.extend(indices.tolist())
            return self.source.take(indices)

    data.parts = data.parts._replace(train=Watched(data.parts.train, -1))
    packing.pack(data, MADE_WITH, out)
    assert taken == list(range(2 * CHUNK, len(data.parts.train)))
    packing.pack(images(tmp_path / "many"), MADE_WITH, tmp_path / "whole")
    assert packed(out).fingerprint == packed(tmp_path / "whole").fingerprint
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())


def test_a_set_that_changed_meanwhile_is_begun_again(animals, store, tmp_path):
    partial = tmp_path / ".partial.other"
    partial.mkdir()
    (partial / "begun.json").write_text(json.dumps({"format": 0}))
    (partial / "train.done").write_text("20")
    packing.pack(images(animals), MADE_WITH, tmp_path / "other")
    assert packed(tmp_path / "other").fingerprint == packed(store).fingerprint


def test_an_image_that_was_repaired_is_read_again(animals, tmp_path):
    """Also where its name and length, all that some fingerprints know, are as before."""
    broken = animals / "dog" / "5.png"
    whole = broken.read_bytes()
    data = images(animals)
    data.fingerprint = "the same"
    broken.write_bytes(bytes(len(whole)))
    with pytest.raises(UserError, match=r"cannot decode dog/5\.png"):
        packing.pack(data, MADE_WITH, tmp_path / "store")
    broken.write_bytes(whole)
    packing.pack(data, MADE_WITH, tmp_path / "store")
    assert same(packed(tmp_path / "store").train_store, images(animals).train_store)


def test_an_empty_folder_may_become_the_store_and_another_thing_may_not(animals, tmp_path):
    (tmp_path / "empty").mkdir()
    packing.pack(images(animals), MADE_WITH, tmp_path / "empty")
    assert len(packed(tmp_path / "empty").train_store)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is there already, and no store: remove it"):
        packing.pack(images(animals), MADE_WITH, tmp_path / "file")


def test_all_problems_are_counted_and_listed(animals, tmp_path):
    (animals / "dog" / "5.png").write_bytes(b"nothing")
    draw(animals / "cat" / "tiny.png", 0, (9, 7))
    with pytest.raises(UserError, match=r"lists all\] \(and 1 more of 31 images\)"):
        packing.pack(images(animals), MADE_WITH, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    listed = (tmp_path / "store.problems.txt").read_text().splitlines()
    assert len(listed) == 2 and any("dog/5.png" in line for line in listed)


def test_a_full_disk_is_refused_before_anything_is_read(animals, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "free_bytes", lambda path: 1000)
    with pytest.raises(UserError, match=r"needs .* bytes|kB, 1\.0 kB are free there: lower data\.size"):
        packing.pack(images(animals), MADE_WITH, tmp_path / "store")


def test_a_store_made_otherwise_than_asked_is_refused(store):
    assert "was made with data.size=8, not 16: use data.size=8" in refused(store, size=16)
    assert packed(store, size=8).spec.size == 8


def test_a_folder_that_is_no_store_is_refused(animals):
    assert "is no store: make one with `smallbatch prepare" in refused(animals)


@pytest.mark.parametrize("name", ["train.npy", "held_out.npy", "train_labels.npy"])
def test_a_truncated_store_is_refused(store, name):
    content = (store / name).read_bytes()
    for left in (content[:-100], content[:50], b""):
        (store / name).write_bytes(left)
        assert f"{name} is missing or cut short" in refused(store)
    (store / name).unlink()
    assert f"{name} is missing or cut short" in refused(store)


def test_a_store_whose_parts_do_not_belong_together_is_refused(store):
    (store / "held_out.npy").replace(store / "train.npy")
    assert "train.npy has shape" in refused(store)


def test_labels_out_of_range_are_refused(store):
    labels = np.load(store / "train_labels.npy")
    labels[3] = 7
    np.save(store / "train_labels.npy", labels)
    assert "train has labels from 0 to 7, store.json names 3 classes" in refused(store)


def test_pixels_of_another_type_are_refused(store):
    np.save(store / "train.npy", np.load(store / "train.npy").astype(np.float32))
    assert "of float32, store.json says" in refused(store)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 99}', '{"format": 1}'])
def test_a_stamp_that_is_none_is_refused(store, text):
    (store / "store.json").write_text(text)
    assert "prepare the store again" in refused(store)


def test_a_zip_in_edms_format_comes_back_as_it_was(animals, tmp_path):
    source = images(animals).parts.train
    write_zip(source, tmp_path / "edm.zip")
    data = Images(str(tmp_path / "edm.zip"), batch=4, seed=0, size=None, held_out=1e-9)
    everything = torch.arange(len(source))
    back = torch.cat([data.held_out_store.pixels, data.train_store.pixels])
    assert data.spec == ImageSpec(3, 8, 3) and len(back) == len(source)
    row = int(data.files.images.index(data.parts.held_out.names[0]))
    order = [row, *[r for r in range(len(source)) if r != row]]
    assert torch.equal(back, source.take(everything[order]).pixels)
    labels = torch.cat([data.held_out_store.labels, data.train_store.labels])
    assert torch.equal(labels, source.take(everything[order]).labels)


def test_a_zip_with_a_broken_image_is_not_written(animals, tmp_path):
    (animals / "dog" / "5.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cannot decode dog/5\.png"):
        write_zip(images(animals).parts.train, tmp_path / "edm.zip")
    assert list(tmp_path.glob("*.zip")) == list(tmp_path.glob(".partial*")) == []
