"""The sharded store: what the encoders give, in the order of the rows, however it came to be."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from dataclasses import replace

import pytest
import torch

from smallbatch.data import shard_writing
from smallbatch.data.captions import Captions
from smallbatch.data.encoding import Encoders, Work, encode
from smallbatch.data.folder import Images
from smallbatch.data.images import to_float
from smallbatch.data.mixture import Mixture
from smallbatch.data.shard_part import opened
from smallbatch.data.shards import Shards
from smallbatch.data.store import Source
from smallbatch.errors import UserError
from smallbatch.latents.vae import Vae
from smallbatch.notation import ImageSpec, TextSpec
from smallbatch.randomness import SampleNoise, key
from smallbatch.text.clip import Clip
from smallbatch.text.storage import STORAGES
from smallbatch.text.stored import Stored
from smallbatch.text.words import Words

ALONE = Work(0, 1, torch.device("cpu"), lambda: None, at_once=2)
ROWS = 3  # of a shard
NOTHING = Encoders(None, None, "float16")


def captions(photos, **options):
    return Captions(str(photos), batch=4, seed=0, size=16, held_out=0.1, **options)


def make(data, encoders, out, work=ALONE):
    encode(data, {"size": 16}, encoders, out, ROWS * encoders.bytes(data.spec), work)
    return out


def shards(path, **options):
    return Shards(str(path), batch=4, seed=0, **options)


def whole(source):
    return torch.arange(len(source))


def files(store):
    """What is the same in two stores that were made alike."""
    found = {file.relative_to(store).as_posix(): file.read_bytes() for file in store.rglob("*") if file.is_file()}
    lists = {name: json.loads(found.pop(name)) | {"updated_at": None} for name in list(found) if "index" in name}
    return found, lists


def refusal(act, *args, **options):
    with pytest.raises(UserError) as caught:
        act(*args, **options)
    return str(caught.value)


@pytest.fixture(scope="session")
def encoders(vae_folder, clip_folder):
    return Encoders(Vae(str(vae_folder)), Clip(str(clip_folder), length=12), "float16")


@pytest.fixture(scope="session")
def made(photos, encoders, tmp_path_factory):
    return make(captions(photos), encoders, tmp_path_factory.mktemp("made") / "store")


@pytest.fixture(scope="session")
def of_pixels(photos, tmp_path_factory):
    return make(captions(photos), NOTHING, tmp_path_factory.mktemp("pixels") / "store")


# --- what a row holds ---


def encoded(pixels, numbers, vae):
    noise = SampleNoise(key("latents"), numbers.tolist(), (4, 8, 8))
    return vae.encode(to_float(pixels), noise(0)).half()


def test_latents_are_what_the_autoencoder_draws_with_the_noise_of_each_row_in_float16(photos, made, encoders):
    for part, source in zip(shards(made).parts, captions(photos).parts, strict=True):
        rows, (numbers, pixels) = part.take(whole(part)).pixels, (whole(source), source.take(whole(source)).pixels)
        assert rows.dtype == torch.float16 and len(rows) == len(source)
        torch.testing.assert_close(rows, encoded(pixels, numbers, encoders.autoencoder), rtol=2**-10, atol=2**-10)
    assert shards(made).spec == ImageSpec(4, 8, 0, latents=True)
    assert shards(made).autoencoder.described() == encoders.autoencoder.described()


def test_the_middle_of_what_may_be_drawn_is_stored_where_it_is_asked_for(photos, encoders, tmp_path):
    mean = replace(encoders.autoencoder, draw="mean")
    part = shards(make(captions(photos), Encoders(mean, None, "float16"), tmp_path / "store")).parts.held_out
    pixels = captions(photos).parts.held_out.take(whole(part)).pixels
    wanted = mean.encode(to_float(pixels), torch.full((len(part), 4, 8, 8), torch.nan)).half()
    torch.testing.assert_close(part.take(whole(part)).pixels, wanted, rtol=2**-10, atol=2**-10)


@pytest.mark.parametrize("storage", STORAGES)
def test_features_are_what_the_encoder_hears_after_their_storage(storage, photos, encoders, tmp_path):
    store = make(captions(photos), Encoders(None, encoders.text, storage), tmp_path / "store")
    data, heard = shards(store), Stored(encoders.text, storage)
    assert data.tell(encoders.text) == [] and data.spec.text == heard.spec
    source = captions(photos).parts.train
    wanted = heard.features(heard.tokens(source.captions(whole(source))))
    x0, condition = data.batch_of(data.train_store.take(whole(source)))
    assert torch.equal(x0, to_float(source.take(whole(source)).pixels))
    torch.testing.assert_close(condition.text.value, wanted.value, rtol=1e-3, atol=1e-3)
    assert torch.equal(condition.text.mask, wanted.mask)


def test_rows_come_in_their_order_from_more_than_ten_shards_and_in_any_other(photos, of_pixels):
    assert len([*(of_pixels / "train").glob("*.bin")]) > 10
    for part, source in zip(shards(of_pixels).parts, captions(photos).parts, strict=True):
        for rows in (whole(source), whole(source).flip(0)):
            assert torch.equal(part.take(rows).pixels, source.take(rows).pixels)
            assert part.captions(rows) == source.captions(rows)


def test_labels_are_those_of_the_images(animals, encoders, tmp_path):
    images = Images(str(animals), batch=4, seed=0, size=8, held_out=0.2)
    data = shards(make(images, encoders._replace(text=None), tmp_path / "store"))
    assert data.class_names == ["cat", "dog", "eel"] and data.spec == ImageSpec(4, 4, 3, latents=True)
    taken = data.parts.train.take(whole(data.parts.train))
    assert torch.equal(taken.labels, images.parts.train.take(whole(taken)).labels)
    assert data.parts.train.captions(whole(taken)) is None


def test_a_caption_that_names_a_file_is_kept_and_the_file_is_not_read(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(photos)
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("a", "b", "c"):
        shutil.copy("00.png", folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("00.png")
    part = shards(make(captions(folder), NOTHING, tmp_path / "store")).parts.train
    assert part.captions(whole(part)) == ["00.png"] * len(part)


def test_pixels_and_captions_are_heard_as_a_vocabulary_of_their_own(photos, of_pixels, made):
    data, direct = shards(of_pixels), captions(photos)
    assert data.tell(Words()) == direct.tell(Words()) == []
    assert data.text.described() == direct.text.described() and data.spec == direct.spec
    rows, wanted = data.train_store.take(torch.tensor([7, 0])), direct.train_store.take(torch.tensor([7, 0]))
    assert torch.equal(rows.pixels, wanted.pixels) and torch.equal(rows.text.value, wanted.text.value)
    latents = shards(made)  # whose rows bring features too
    latents.tell(Words())
    assert torch.equal(latents.train_store.take(torch.tensor([7, 0])).text.value, wanted.text.value)


def test_features_that_nobody_hears_stay_where_they_are(made):
    data = shards(made)
    batch = data.batch_of(data.train_store.take(torch.tensor([0])))
    assert data.spec.text is None and batch.condition.text is None


def test_text_features_can_be_added_to_latents_and_latents_to_pixels(photos, of_pixels, made, encoders, tmp_path):
    latents = make(shards(of_pixels), encoders._replace(text=None), tmp_path / "latents")
    both = make(shards(latents), encoders._replace(autoencoder=None), tmp_path / "both")
    assert files(both)[0]["train/chunk-3-0.bin"] == files(made)[0]["train/chunk-3-0.bin"]
    assert shards(both).autoencoder == shards(made).autoencoder
    line = refusal(make, shards(latents), encoders, tmp_path / "again")
    assert line.startswith("latents: the data holds latents already")


# --- how it came to be ---


def in_a_process(act, *args):
    process = multiprocessing.get_context("fork").Process(target=act, args=args)
    process.start()
    return process


def test_two_processes_make_the_store_that_one_makes(photos, made, encoders, tmp_path):
    barrier = multiprocessing.get_context("fork").Barrier(2, timeout=60)
    works = [ALONE._replace(rank=rank, ranks=2, wait=barrier.wait) for rank in range(2)]
    both = [in_a_process(make, captions(photos), encoders, tmp_path / "store", work) for work in works]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert files(tmp_path / "store") == files(made)
    assert os.listdir(tmp_path) == ["store"]


class Watched(Source):
    """Remembers which rows were taken."""

    def __init__(self, source):
        self.source, self.taken = source, []

    def __len__(self):
        return len(self.source)

    def take(self, indices):
        self.taken += indices.tolist()
        return self.source.take(indices)

    def captions(self, indices):
        return self.source.captions(indices)

    def check(self): ...


def watched(photos):
    data = captions(photos)
    data.parts = type(data.parts)(*map(Watched, data.parts))
    return data


def killed_at(moment, monkeypatch, *args):
    """Before a file, or a folder's list, is forced onto the disk for this time."""
    calls = iter(range(moment))

    def sync(path):
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(shard_writing, "sync", sync)
    process = in_a_process(make, *args)
    process.join()
    monkeypatch.undo()
    assert process.exitcode == -signal.SIGKILL


TRAIN, SHARDS = 14, 15  # shards of the training part, and of both; each is forced onto the disk four times
MOMENTS = {
    "while the first shard is written": (0, 0),
    "between two shards": (4 * 5, 5),
    "when a shard is there and its list is not": (4 * 5 + 2, 5),
    "when all shards are there": (4 * SHARDS, SHARDS),
    "when a part's list is there and its parts are too": (4 * SHARDS + 1, SHARDS),
    "between the lists of the two parts": (4 * SHARDS + 2, SHARDS),
}


@pytest.mark.parametrize("moment, left", MOMENTS.values(), ids=MOMENTS)
def test_making_goes_on_where_it_was_killed_and_encodes_nothing_twice(
    moment, left, photos, made, encoders, tmp_path, monkeypatch
):
    out = tmp_path / "store"
    killed_at(moment, monkeypatch, captions(photos), encoders, out)
    assert not out.exists()
    make(data := watched(photos), encoders, out)
    assert files(out) == files(made) and os.listdir(tmp_path) == ["store"]
    train, held_out = (part.taken for part in data.parts)
    assert train == [*range(min(left, TRAIN) * ROWS, len(data.parts.train))]
    assert held_out == [*range(max(left - TRAIN, 0) * ROWS, len(data.parts.held_out))]


def test_the_same_words_again_encode_nothing(photos, made, encoders):
    make(data := watched(photos), encoders, made)
    assert [part.taken for part in data.parts] == [[], []]


def other_vae(encoders, folder):
    shutil.copytree(encoders.autoencoder.name, folder / "vae")
    return encoders._replace(autoencoder=Vae(str(folder / "vae")))


OTHERS = {
    "latents.name=": other_vae,
    "latents.scale=0.5, not 2.0": lambda given, _: given._replace(autoencoder=replace(given.autoencoder, scale=2.0)),
    "latents.draw=sampled, not mean": lambda given, _: given._replace(
        autoencoder=replace(given.autoencoder, draw="mean")
    ),
    "storage=float16, not int8": lambda given, _: given._replace(storage="int8"),
    "text.length=12, not 8": lambda given, _: given._replace(text=replace(given.text, length=8)),
    "text.name=": lambda given, _: given._replace(text=None),
}


@pytest.mark.parametrize("said, other", OTHERS.items(), ids=OTHERS)
def test_a_store_that_was_made_otherwise_is_refused_with_both_values(said, other, photos, made, encoders, tmp_path):
    line = refusal(make, captions(photos), other(encoders, tmp_path), made)
    assert f"out={made} was made with " in line and said in line and ", not " in line and "choose another out" in line


def test_images_that_cannot_be_decoded_are_counted_and_listed_whoever_finds_them(photos, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "store"
    shutil.copytree(photos, folder)
    names = captions(folder).parts.train.names
    for row in (4, 20, 21):  # in shards of both processes
        (folder / names[row]).write_bytes(b"nothing")
    line = refusal(make, captions(folder), NOTHING, out)
    assert f"cannot decode {names[4]}" in line and "lists all] (and 2 more of 45 images)" in line
    listed = (tmp_path / "store.problems.txt").read_text().splitlines()
    assert [names[row] in one for row, one in zip((4, 20, 21), listed, strict=True)] == [True] * 3
    barrier = multiprocessing.get_context("fork").Barrier(2, timeout=60)
    second = in_a_process(make, captions(folder), NOTHING, out, Work(1, 2, torch.device("cpu"), barrier.wait, 2))
    line = refusal(make, captions(folder), NOTHING, out, Work(0, 2, torch.device("cpu"), barrier.wait, 2))
    second.join()
    assert "(and 2 more of 45 images)" in line and second.exitcode == 1
    for row in (4, 20, 21):
        shutil.copy(photos / names[row], folder / names[row])
    make(captions(folder), NOTHING, out)
    assert sorted(os.listdir(tmp_path)) == ["photos", "store"]


def test_a_disk_without_room_for_a_shard_is_said_so_in_a_line(photos, encoders, tmp_path):
    def crowded():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        (tmp_path / "line").write_text(refusal(make, captions(photos), encoders, tmp_path / "store"))

    in_a_process(crowded).join()
    line = (tmp_path / "line").read_text()
    assert line.startswith(f"no room for {tmp_path}/.partial.store/train/.partial.0/chunk-0-0.bin (File too large)")
    make(captions(photos), encoders, tmp_path / "store")


def test_a_missing_package_is_named_before_anything_is_encoded(photos, encoders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litdata", None)
    line = refusal(make, captions(photos), encoders, tmp_path / "store")
    assert line.startswith("shards need their package (") and line.endswith("pip install 'smallbatch[latents]'")
    assert not os.listdir(tmp_path)


# --- where shards lie ---


def elsewhere(made, path):
    path.mkdir()
    shutil.copy(made / "store.json", path)
    return shards(path, shards=f"local:{made}")


def test_shards_that_lie_elsewhere_are_copied_when_they_are_needed_and_once(made, tmp_path):
    there = shutil.copytree(made, tmp_path / "there")
    data = elsewhere(there, tmp_path / "here")
    data.setup("fit")
    rows = torch.tensor([3 * ROWS + 1, 3 * ROWS, 11 * ROWS])
    assert not [*(tmp_path / "here").rglob("*.bin")]
    assert torch.equal(data.train_store.take(rows).pixels, shards(made).train_store.take(rows).pixels)
    assert {file.name for file in (tmp_path / "here").rglob("*.bin")} == {"chunk-3-0.bin", "chunk-11-0.bin"}
    for file in (there / "train").glob("*.bin"):
        file.unlink()
    assert torch.equal(data.train_store.take(rows).pixels, shards(made).train_store.take(rows).pixels)
    line = refusal(data.train_store.take, torch.tensor([0]))
    assert line.startswith(f"local:{there}/train/chunk-0-0.bin cannot be copied (FileNotFoundError")


def test_a_store_that_was_made_anew_elsewhere_is_copied_anew(of_pixels, tmp_path):
    there = shutil.copytree(of_pixels, tmp_path / "there")
    first, fourth = (shards(of_pixels).train_store.take(torch.tensor([row])).pixels for row in (0, ROWS))
    data = elsewhere(there, tmp_path / "here")
    assert torch.equal(data.train_store.take(torch.tensor([0])).pixels, first)
    index = json.loads((there / "train" / "index.json").read_text())
    index["chunks"][:2] = index["chunks"][1::-1]
    (there / "train" / "index.json").write_text(json.dumps(index))
    opened.cache_clear()  # as in another process
    assert torch.equal(data.train_store.take(torch.tensor([0])).pixels, fourth)


def test_nothing_where_shards_should_lie_is_said_so(made, tmp_path):
    elsewhere(made, tmp_path / "here")
    gone = shards(tmp_path / "here", shards=f"local:{tmp_path}/nowhere")
    assert f"local:{tmp_path}/nowhere/train cannot be opened (FileNotFoundError" in refusal(gone.setup, "fit")
    line = refusal(lambda: shards(tmp_path, shards="s3://bucket/STORE").spec)
    assert line == f"data.path={tmp_path} holds no store.json: copy it there from s3://bucket/STORE"


# --- several stores, other encoders ---


def mixture(*stores):
    sets = {str(number): shards(store) for number, store in enumerate(stores)}
    return Mixture(sets, dict.fromkeys(sets, 1.0), batch=4, seed=0)


def test_a_mixture_of_stores_brings_latents_and_text(made, encoders):
    data, one = mixture(made, made), shards(made)
    for each in (data, one):
        each.tell(encoders.text)
        each.setup("fit")
    assert data.spec == one.spec and data.spec.latents and data.spec.text == TextSpec(12, width=32)
    count = len(one.train_store)
    rows, own = data.train_store.take(torch.tensor([count + 2, 1])), one.train_store.take(torch.tensor([2, 1]))
    assert torch.equal(rows.pixels, own.pixels) and torch.equal(rows.text.value, own.text.value)


def test_a_mixture_of_what_different_encoders_made_is_refused(photos, made, of_pixels, encoders, tmp_path):
    scaled = encoders._replace(autoencoder=replace(encoders.autoencoder, scale=2.0), text=None)
    other = make(captions(photos), scaled, tmp_path / "store")
    assert "are not latents of the same autoencoder" in refusal(lambda: mixture(made, other).spec)
    line = refusal(lambda: mixture(other, made).tell(encoders.text))
    assert "do not all bring the same text features: prepare them alike" in line
    assert "has 3x16x16 images, 0 4x8x8" in refusal(lambda: mixture(made, of_pixels).spec)


def test_another_text_encoder_than_the_stores_is_refused_with_what_to_give(made, encoders, clip_folder):
    line = refusal(shards(made).tell, replace(encoders.text, length=8))
    wanted = f"text=clip text.name={clip_folder} text.length=12 text.revision=null text.pad=null"
    assert line == f"data.path={made} holds features of another text encoder: give {wanted}"
