import shutil
import zipfile

import pytest
import torch
from small_files import NAMES, draw, label, pack

from smallbatch.data import folder, reading
from smallbatch.data.decoded import Decoded
from smallbatch.data.folder import Images
from smallbatch.data.store import Store
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec

NUMBERS = [(name, ["cat", "dog", "eel"].index(name[:3])) for name in NAMES]


def images(path, size=8, **options):
    return Images(str(path), batch=4, seed=0, size=size, **options)


def same_rows(one, other):
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


def refused(path, **options):
    """The one line that a user sees."""
    with pytest.raises(UserError) as error:
        data = images(path, **options)
        assert data.spec and data.train_store and data.held_out_store
    assert "\n" not in str(error.value)
    return str(error.value)


def same(one, other):
    stores = [(one.train_store, other.train_store), (one.held_out_store, other.held_out_store)]
    return all(same_rows(a, b) for a, b in stores)


def test_class_folders_become_labels_in_sorted_order(animals):
    data = images(animals)
    assert data.spec == ImageSpec(3, 8, 3)
    assert data.class_names == ["cat", "dog", "eel"]
    labels = torch.cat([data.train_store.labels, data.held_out_store.labels])
    assert labels.bincount().tolist() == [10, 10, 10]


def test_a_folder_its_zip_and_an_edm_zip_are_the_same_data(animals, tmp_path):
    plain = pack(animals, tmp_path / "plain.zip")
    label(animals, NUMBERS)
    edm = pack(animals, tmp_path / "edm.zip")
    (animals / "dataset.json").unlink()
    sets = [images(animals), images(plain), images(edm)]
    assert all(same(sets[0], other) for other in sets[1:])
    assert len({data.fingerprint for data in sets}) == 1
    assert all(data.class_names == ["cat", "dog", "eel"] for data in sets)


def test_the_listing_beats_the_folders(animals):
    label(animals, [(name, index % 2) for index, name in enumerate(NAMES)])
    assert images(animals).class_names == ["0", "1"]
    label(animals, None)
    assert images(animals).spec.classes == 0


def test_flat_images_carry_no_label(tmp_path):
    for seed in range(5):
        draw(tmp_path / f"{seed}.png", seed)
    data = images(tmp_path)
    assert data.spec == ImageSpec(3, 8, 0)
    assert data.class_names == []
    assert data.held_out(torch.tensor([0, 0]), "cpu").condition.label is None


def test_deeper_folders_belong_to_the_class_above_them(animals):
    draw(animals / "eel" / "sea" / "moray.png", 99)
    data = images(animals)
    labels = torch.cat([data.train_store.labels, data.held_out_store.labels])
    assert labels.bincount().tolist() == [10, 10, 11]


def test_hidden_and_foreign_files_are_not_images(animals):
    before = images(animals).fingerprint
    (animals / "README.txt").write_text("hello")
    draw(animals / ".thumbnails" / "0.png", 0)
    draw(animals / "__MACOSX" / "0.png", 0)
    assert images(animals).fingerprint == before


def test_the_fingerprint_ignores_where_and_in_which_order_the_files_lie(animals, tmp_path):
    copied = shutil.copytree(animals, tmp_path / "elsewhere")
    backwards = pack(animals, tmp_path / "backwards.zip", NAMES[::-1])
    assert images(animals).fingerprint == images(copied).fingerprint == images(backwards).fingerprint


@pytest.mark.parametrize("change", ["content", "name", "fewer", "class"])
def test_the_fingerprint_follows_the_images(animals, change):
    before, path = images(animals).fingerprint, animals / "cat" / "3.png"
    if change == "content":
        draw(path, 99)
    elif change == "name":
        path.rename(animals / "cat" / "x.png")
    elif change == "fewer":
        path.unlink()
    else:
        label(animals, [(name, 2 - number) for name, number in NUMBERS])
    assert images(animals).fingerprint != before


def test_the_held_out_part_keeps_its_images_when_others_are_added():
    few, more = NAMES, sorted([*NAMES, *(f"ant/{number}.png" for number in range(50))])
    chosen = {few[row] for row in folder.held_out_rows(few, 0.3)}
    assert chosen == {more[row] for row in folder.held_out_rows(more, 0.3)} - {n for n in more if n[0] == "a"}


def test_the_parts_share_no_image_and_lose_none(animals):
    data = images(animals, held_out=0.3)
    stores = data.train_store, data.held_out_store
    train, held_out = ({image.numpy().tobytes() for image in store.pixels} for store in stores)
    assert len(train) + len(held_out) == len(data.train_store) + len(data.held_out_store) == 30
    assert not train & held_out


def test_a_small_share_still_holds_out_one_image(animals):
    assert len(images(animals, held_out=1e-9).held_out_store) == 1


def test_the_size_is_that_of_the_images_where_none_is_given(animals):
    assert images(animals, size=None).spec.size == 8
    assert same(images(animals, size=None), images(animals, size=8))


def test_the_spec_needs_no_image_decoded(animals):
    (animals / "dog" / "5.png").write_bytes(b"nothing")
    assert images(animals).spec == ImageSpec(3, 8, 3)


def test_a_missing_path_is_named(tmp_path):
    assert "nowhere does not exist" in refused(tmp_path / "nowhere")


def test_a_folder_without_images_is_refused(tmp_path):
    assert "holds no images; looked for .bmp" in refused(tmp_path)


def test_an_undecodable_image_is_named(animals, tmp_path):
    (animals / "dog" / "5.png").write_bytes(b"nothing")
    assert "cannot decode dog/5.png" in refused(animals)
    assert "cannot decode dog/5.png" in refused(pack(animals, tmp_path / "a.zip"))


def test_a_half_written_image_is_named(animals):
    whole = (animals / "dog" / "5.png").read_bytes()
    (animals / "dog" / "5.png").write_bytes(whole[:100])
    assert "cannot decode dog/5.png" in refused(animals)


def test_an_image_smaller_than_the_size_is_named(animals):
    draw(animals / "cat" / "tiny.png", 0, (9, 7))
    assert "cat/tiny.png is 9x7, smaller than 8: lower data.size" in refused(animals)


def test_without_a_size_all_images_must_be_alike(animals):
    draw(animals / "dog" / "wide.png", 0, (9, 8))
    assert "dog/wide.png is 9x8, the first image 8x8: set data.size" in refused(animals, size=None)
    draw(animals / "cat" / "0.png", 0, (9, 8))
    assert "cat/0.png is 9x8, not square" in refused(animals, size=None)


def test_an_image_beside_the_class_folders_is_named(animals):
    draw(animals / "stray.png", 0)
    assert "stray.png lies beside the class folders" in refused(animals)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ([*NUMBERS, ("cat/99.png", 0)], "names cat/99.png, which is not among its images"),
        (NUMBERS[1:], "has no label for cat/0.png"),
        ([(NAMES[0], -1), *NUMBERS[1:]], "labelled -1 to 2: number them 0 to 3"),
        ([(NAMES[0], 1000), *NUMBERS[1:]], "has 4 classes, labelled 0 to 1000: number them 0 to 3"),
        ([(NAMES[0], 0.5), *NUMBERS[1:]], "labels cat/0.png 0.5: labels must be integers"),
        ([(NAMES[0], True), *NUMBERS[1:]], "labels cat/0.png True: labels must be integers"),
        (NAMES, "dataset.json must read"),
        (7, "dataset.json must read"),
    ],
)
def test_a_wrong_listing_is_explained(animals, labels, line):
    label(animals, labels)
    assert line in refused(animals)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_listing_that_is_no_listing_is_refused(animals, text):
    (animals / "dataset.json").write_text(text)
    assert 'dataset.json must read {"labels"' in refused(animals)


def test_a_truncated_zip_is_refused(animals, tmp_path):
    path = pack(animals, tmp_path / "cut.zip")
    path.write_bytes(path.read_bytes()[:-200])
    assert "cut.zip is not a whole zip: copy it again" in refused(path)


def test_a_damaged_zip_names_the_image(animals, tmp_path):
    path = pack(animals, tmp_path / "bent.zip", NAMES)
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(content)
    assert "cannot decode cat/0.png" in refused(path)


@pytest.mark.parametrize("name", [".", "../a.png", "/a.png", "cat/../../a.png", "..\\a.png", "C:/a.png"])
def test_a_zip_that_names_paths_outside_itself_is_refused(animals, tmp_path, name):
    path = pack(animals, tmp_path / "outside.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    assert "outside the zip" in refused(path)


def test_a_part_that_would_be_empty_is_refused(tmp_path):
    draw(tmp_path / "only.png", 0)
    assert "leaves none of 1 images to train on" in refused(tmp_path)
    assert "data.held_out=0.0 must" in refused(tmp_path, held_out=0.0)


@pytest.mark.parametrize("option", [{"size": 0}, {"channels": 2}, {"held_out": 1.0}], ids=str)
def test_options_out_of_range_are_refused(animals, option):
    [(name, value)] = option.items()
    assert f"data.{name}={value} must" in refused(animals, **option)


def test_a_part_too_large_for_memory_is_decoded_when_it_is_taken(animals):
    kept, streamed = images(animals, held_out=0.3), images(animals, held_out=0.3, memory_gib=0)
    assert isinstance(kept.train_store, Store) and isinstance(streamed.train_store, Decoded)
    streamed.setup("fit")
    everything = torch.arange(len(streamed.train_store))
    assert same_rows(streamed.train_store.take(everything), kept.train_store)
    assert same_rows(streamed.train_store.take(everything[[5, 2, 5]]), kept.train_store.take(everything[[5, 2, 5]]))


def test_what_is_decoded_later_is_looked_at_before_training(animals):
    (animals / "dog" / "5.png").write_bytes(b"nothing")
    draw(animals / "cat" / "tiny.png", 0, (9, 7))
    with pytest.raises(UserError, match=r"tiny\.png is 9x7, smaller than 8.*and 1 more of 30 images"):
        images(animals, memory_gib=0).setup("fit")


def test_an_image_between_smallest_and_size_is_enlarged(animals):
    draw(animals / "cat" / "tiny.png", 0, (9, 7))
    data = images(animals, smallest=7)
    assert data.parts.train.fit.size == 8 and len(data.train_store) + len(data.held_out_store) == 31


def test_a_zip_is_read_by_several_processes_at_once(animals, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "SLOW", 0)
    monkeypatch.setattr(reading, "CHUNK", 2)
    assert same(images(pack(animals, tmp_path / "a.zip")), images(animals))


def test_all_problems_are_counted(animals):
    for number in (3, 5, 7):
        (animals / "dog" / f"{number}.png").write_bytes(b"nothing")
    assert "cannot decode dog/3.png" in (line := refused(animals)) and "and 2 more of 29 images" in line
