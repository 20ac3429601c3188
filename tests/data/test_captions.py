"""Images with captions: beside them, in a table, in a zip, in WebDataset's tars."""

import json
import tarfile

import pytest
import torch
from small_files import draw, pack

from smallbatch.data.captions import Captions
from smallbatch.data.module import ImageData
from smallbatch.data.shapes import Shapes
from smallbatch.errors import UserError
from smallbatch.notation import TextSpec
from smallbatch.text.words import Words

SAID = {f"pets/{number}.png": f"a pet  of kind {number}\n" for number in range(8)}


@pytest.fixture
def folder(tmp_path):
    """Every second caption is a text, the others stand in a JSON file."""
    for seed, (name, said) in enumerate(SAID.items()):
        path = tmp_path / "photos" / name
        draw(path, seed)
        if seed % 2:
            path.with_suffix(".txt").write_text(said)
        else:
            path.with_suffix(".json").write_text(json.dumps({"caption": said, "id": seed}))
    return tmp_path / "photos"


def tar(folder, target, names=None):
    target.parent.mkdir(exist_ok=True)
    with tarfile.open(target, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and (names is None or file.stem in names):
                archive.add(file, file.relative_to(folder).as_posix())
    return target


def captions(path, **options):
    return Captions(str(path), batch=4, seed=0, size=8, held_out=0.2, **options)


def said_of(data: ImageData) -> dict[str, str]:
    """By name without its shard, over both parts."""
    found = {}
    for part in data.parts:
        whole = torch.arange(len(part))
        found |= {
            name.partition(".tar/")[2] or name: said
            for name, said in zip(part.names, part.captions(whole), strict=True)
        }
    return found


def refused(path, **options):
    with pytest.raises(UserError) as error:
        data = captions(path, **options)
        data.tell(Words())
        data.setup("fit")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_caption_is_the_text_beside_its_image_in_one_line_and_folders_are_no_classes(folder):
    data = captions(folder)
    assert said_of(data) == {name: " ".join(said.split()) for name, said in SAID.items()}
    assert data.spec.classes == 0 and data.class_names == [] and data.train_store.take(torch.tensor([0])).labels is None


def test_a_folder_its_zip_and_its_tars_say_the_same(folder, tmp_path):
    one = tar(folder, tmp_path / "one.tar")
    for shard, names in {"a": "0123", "b": "4567"}.items():
        tar(folder, tmp_path / "shards" / f"{shard}.tar", names)
    others = [captions(path) for path in (pack(folder, tmp_path / "photos.zip"), one, tmp_path / "shards")]
    assert all(said_of(other) == said_of(captions(folder)) for other in others)
    whole = captions(one).train_store.take(torch.arange(3)).pixels
    names = [name.partition("/")[2] for name in captions(one).parts.train.names[:3]]
    pixels = {name: captions(folder).files.read(name) for name in names}
    assert [captions(one).files.read(f"one.tar/{name}") for name in names] == [*pixels.values()] and whole.shape[0] == 3


def test_a_table_chooses_its_images(folder, tmp_path):
    rows = {"pets/3.png": "three", "pets/5.png": "five", "pets/6.png": "six"}
    csv, jsonl = tmp_path / "rows.csv", tmp_path / "rows.jsonl"
    csv.write_text("path,caption\n" + "".join(f'{name},"{said}"\n' for name, said in rows.items()))
    jsonl.write_text("".join(json.dumps({"path": name, "caption": said}) + "\n" for name, said in rows.items()))
    assert said_of(captions(folder, table=str(csv))) == said_of(captions(folder, table=str(jsonl))) == rows


def test_the_fingerprint_follows_images_and_captions(folder):
    first = captions(folder).fingerprint
    assert captions(folder).fingerprint == first
    (folder / "pets/1.txt").write_text("something else")
    second = captions(folder).fingerprint
    draw(folder / "pets/1.png", 99)
    assert len({first, second, captions(folder).fingerprint}) == 3


def test_bad_captions_are_named(folder, tmp_path):
    (folder / "pets/1.txt").write_text(" \n")
    assert "pets/1.txt holds an empty caption" in refused(folder)
    (folder / "pets/1.txt").unlink()
    assert "pets/1.png has no .txt or .json beside it: add its caption" in refused(folder)
    (folder / "pets/1.json").write_text('{"title": "x"}')
    assert "pets/1.json holds no caption (KeyError: 'caption')" in refused(folder)
    table = tmp_path / "rows.csv"
    table.write_text("path,caption\npets/99.png,x\n")
    assert "names pets/99.png, which" in refused(folder, table=str(table))
    table.write_text("file,text\na,b\n")
    assert "needs the columns path and caption" in refused(folder, table=str(table))
    table.write_text("")
    assert "holds no row" in refused(folder, table=str(table))


def test_a_tar_that_is_cut_short_or_reaches_outside_is_refused(folder, tmp_path):
    whole = tar(folder, tmp_path / "one.tar")
    broken = tmp_path / "broken.tar"
    broken.write_bytes(whole.read_bytes()[:1000])
    assert "broken.tar" in refused(broken)
    with tarfile.open(tmp_path / "out.tar", "w") as archive:
        archive.add(folder / "pets/1.png", "../1.png")
    assert "outside of it" in refused(tmp_path / "out.tar")


def test_images_come_with_what_the_encoder_makes_of_their_captions(folder):
    data = captions(folder)
    n = len(data.parts.train)
    assert data.tell(Words(length=3)) == [f"{n} of {n} captions are longer than 3 words: their ends are cut off"]
    assert data.spec.text == TextSpec(3, words=len(("a", "pet", "of", "kind")) + n + 1)
    numbers = torch.tensor([2, 0])
    text = data.training(numbers, "cpu").condition.text
    known = data.text.tokens(data.parts.train.captions(numbers))
    assert torch.equal(text.value, known.value) and torch.equal(text.mask, known.mask) and text.mask.all()


def test_a_set_without_captions_is_told_so(animals):
    from smallbatch.data.folder import Images

    with pytest.raises(
        UserError, match="Images has no captions: choose data=captions or data=shapes, or leave text out"
    ):
        Images(str(animals), batch=4, seed=0, size=8).tell(Words())


def test_shapes_are_told_by_their_scenes():
    data = Shapes(batch=4, seed=0, size=16)
    assert data.tell(Words()) == []
    batch = data.held_out(torch.tensor([7, 3]), "cpu")
    said = data.held_out_store.captions(torch.tensor([7, 3]))
    assert torch.equal(batch.condition.text.value, data.text.tokens(said).value)
    assert data.spec.text.words == len(data.text.words) + 1 == 29
