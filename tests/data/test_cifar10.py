"""CIFAR-10 in its official format: five batches, a test batch, pickled."""

import pickle

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from smallbatch.data.cifar10 import CLASSES, Cifar10
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec

FILES = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
ROWS = 20  # a file


def write(folder, labels=lambda rows: rows % 10):
    folder = folder / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for seed, name in enumerate(FILES):
        data = np.random.default_rng(seed).integers(0, 256, (ROWS, 3072), dtype=np.uint8)
        entry = {"data": data, "labels": labels(np.arange(ROWS)).tolist(), "batch_label": name, "filenames": []}
        (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASSES, "num_vis": 3072}, protocol=2))
    return folder


def cifar(path, **options):
    return Cifar10(str(path), batch=4, seed=0, **options)


def refused(path, **options):
    with pytest.raises(UserError) as error:
        cifar(path, **options).setup("fit")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_official_format_is_read_as_it_is(tmp_path):
    write(tmp_path)
    data = cifar(tmp_path, official=False)
    assert data.spec == ImageSpec(3, 32, 10) and len(data.class_names) == 10
    assert (len(data.train_store), len(data.held_out_store)) == (5 * ROWS, ROWS)
    assert data.train_store.labels.tolist() == [*range(10)] * 10
    first = np.random.default_rng(1).integers(0, 256, (ROWS, 3072), dtype=np.uint8)[3]
    assert np.array_equal(data.train_store.pixels[ROWS + 3].flatten().numpy(), first)  # red, green, blue planes


def test_the_fingerprint_follows_the_files_or_is_the_published_one(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", labels=lambda rows: (rows + 1) % 10)
    odd = {cifar(tmp_path / name, official=False).fingerprint for name in "ab"}
    assert len(odd) == 2
    assert cifar(tmp_path / "nowhere").fingerprint not in odd  # needs no file


def test_files_that_are_not_the_published_ones_are_refused(tmp_path):
    write(tmp_path)
    assert "is not CIFAR-10 as published" in (line := refused(tmp_path)) and "data.official=false" in line


def test_a_damaged_file_is_refused(tmp_path):
    folder = write(tmp_path)
    content = (folder / "data_batch_3").read_bytes()
    (folder / "data_batch_3").write_bytes(content[: len(content) // 2])
    assert "is not CIFAR-10 as published" in refused(tmp_path, official=False)
    (folder / "data_batch_3").unlink()
    assert "copy it again" in refused(tmp_path, official=False)


def test_labels_out_of_range_are_refused(tmp_path):
    write(tmp_path, labels=lambda rows: rows)
    assert "has labels from 0 to 19: they must be 0 to 9" in refused(tmp_path, official=False)


def test_without_a_network_it_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", "http://localhost:9/cifar-10-python.tar.gz")  # nothing listens there
    line = refused(tmp_path / "new")
    assert f"data.path={tmp_path / 'new'}: cannot fetch CIFAR-10" in line
    assert "put cifar-10-python.tar.gz from http://localhost:9/cifar-10-python.tar.gz there by hand" in line


def test_an_archive_put_there_by_hand_is_held_against_its_checksum(tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", "http://localhost:9/cifar-10-python.tar.gz")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"something else")
    assert "cannot fetch CIFAR-10" in refused(tmp_path)


def test_an_official_archive_is_unpacked_and_read(tmp_path, monkeypatch):
    """With the checksums of files made here in place of the published ones."""
    import hashlib
    import tarfile

    folder = write(tmp_path / "made")
    md5 = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    (tmp_path / "new").mkdir()
    with tarfile.open(tmp_path / "new" / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    whole = hashlib.md5((tmp_path / "new" / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in FILES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[FILES[5], md5[FILES[5]]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", whole)
    expected = cifar(tmp_path / "made", official=False).train_store
    assert torch.equal(cifar(tmp_path / "new").train_store.pixels, expected.pixels)
