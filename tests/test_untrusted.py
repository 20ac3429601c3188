"""What comes from elsewhere: it is read, and never run; it is refused before it costs anything."""

import ast
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from subprocess import CalledProcessError

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file

from smallbatch.callbacks.checkpoint import last_good
from smallbatch.cli import evaluate, runs, sample, trust
from smallbatch.cli.main import conf_dir
from smallbatch.data.captions import Captions
from smallbatch.data.cifar10 import Cifar10
from smallbatch.data.encoding import Encoders, Work, encode
from smallbatch.data.folder import Images
from smallbatch.data.packed import Packed
from smallbatch.data.packing import pack
from smallbatch.data.shard_writing import merge, write
from smallbatch.data.shards import Shards
from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.files import in_turn, replacing
from smallbatch.latents.vae import Vae
from smallbatch.metrics import stamps
from smallbatch.metrics.extractors import Extractor
from smallbatch.metrics.files import open_images
from smallbatch.metrics.judged import Score
from smallbatch.metrics.reference import read as read_reference
from smallbatch.notation import ImageSpec
from smallbatch.text.clip import Clip

cases = pytest.mark.parametrize
SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))


def refused(build, *args, **options):
    with pytest.raises(UserError) as error:
        build(*args, **options)
    line = str(error.value)
    assert line.isprintable()
    return line


class Trap:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# --- what our own code may call ---


def calls(tree):
    """Of every call its name and the node; of `from a import b` names are given in full."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield names.get(first, first) + dot + rest, node


NEVER = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads"}
NEVER |= {
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "omegaconf.OmegaConf.load",
    "torch.jit.load",
    "joblib.load",
}
NEVER |= {"numpy.fromfile", "shelve.open", "marshal.loads", "torch.distributed.checkpoint.load", "pandas.read_pickle"}
MUST_SAY = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}


def unsafe(source):
    for name, node in calls(ast.parse(source)):
        said = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        if name in MUST_SAY and said.get(MUST_SAY[name][0]) is not MUST_SAY[name][1]:
            yield ast.unparse(node)
        if name in NEVER or said.get("shell") or name.endswith((".extractall", ".extract", "unpack_archive")):
            yield ast.unparse(node)
        if name.endswith("open") and name.startswith("PIL") and "formats" not in said:
            yield ast.unparse(node)  # a picture of any other format, as EPS, may run a program
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and any("Unpickler" in ast.unparse(base) for base in node.bases):
            yield from [] if "def find_class" in ast.unparse(node) else [node.name]


@cases("file", SOURCES, ids=lambda file: "/".join(file.parts[-2:]))
def test_no_file_of_ours_runs_what_it_reads(file):
    assert list(unsafe(file.read_text())) == []


@cases(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "import numpy as np\nnp.load(path)",
        "from torch import load as l\nl(path)",
        "eval(text)",
        "from os import system\nsystem(text)",
        "subprocess.run(text, shell=True)",
        "tar.extractall(path)",
        "import yaml as y\ny.load(text, y.Loader)",
        "class Mine(pickle.Unpickler): pass",
        "from PIL import Image\nImage.open(path)",
    ],
)
def test_the_walk_over_our_code_sees_what_is_unsafe(source):
    assert list(unsafe(source))


# --- what a run folder may name ---


def denoiser(**changes):
    node = {
        "_target_": "smallbatch.denoiser.Denoiser",
        "_partial_": True,
        "network": {
            "_target_": "smallbatch.networks.unet.UNet",
            "_partial_": True,
            **{"width": 8, "multipliers": [1, 2], "attention_at": [4], "blocks": 1, "head_width": 8},
        },
        "schedule": {
            "_target_": "smallbatch.schedules.Cosine",
            "path": {"_target_": "smallbatch.schedules.VariancePreserving"},
        },
        "prediction": {"_target_": "smallbatch.predictions.V"},
        "clock": {"_target_": "smallbatch.denoiser.Continuous"},
    }
    for key, value in changes.items():
        at = node
        *folders, last = key.split("__")
        for folder in folders:
            at = at[folder]
        at[last] = value
    return node


SPEC = {"channels": 1, "size": 8, "classes": 3}


@pytest.fixture(scope="module")
def weights():
    return trust.built(denoiser(), Path("model.json"), "denoiser", Denoiser, spec=ImageSpec(**SPEC)).state_dict()


@pytest.fixture
def run(tmp_path, weights):
    """A run folder as somebody may have made it."""
    folder = tmp_path / "run"
    folder.mkdir()

    def write(node, spec=SPEC, config=None):
        about = {"denoiser": node, "spec": spec, "class_names": [], "data_fingerprint": "", "images": 1}
        (folder / "model.json").write_text(json.dumps(about))
        save_file(weights, folder / "model.safetensors")
        if config is not None:
            (folder / "config.yaml").write_text(config)
        return folder

    return write


def test_a_run_as_train_wrote_it_loads(run, weights):
    loaded = runs.load(run(denoiser())).state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def words():
    for group in ("prediction", "schedule"):
        for file in sorted((conf_dir() / group).glob("*.yaml")):
            table = ["schedule=ddpm_linear"] * ("learned_variance" in file.stem)
            yield [f"{group}={file.stem}", *table]


@cases("words", words(), ids=" ".join)
def test_what_train_writes_may_be_built_and_without_memory(words):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", ["experiment=digits", *words])
    node = OmegaConf.to_container(config.run.denoiser, resolve=True)
    node = json.loads(json.dumps(node))
    with torch.device("meta"):
        made = trust.built(node, Path("model.json"), "denoiser", Denoiser, spec=ImageSpec(1, 16, 10))
    real = trust.built(node, Path("model.json"), "denoiser", Denoiser, spec=ImageSpec(1, 16, 10))
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (made, real)]
    assert shapes[0] == shapes[1] and made.state_dict()["network.stem.weight"].is_meta


FUNCTIONS = [
    "smallbatch.cli.train.Path",
    "smallbatch.files.shutil.rmtree",
    "smallbatch.cli.main.sys.exit",
    "torch.nn.modules.module.torch.hub.load",
    "torch.nn.functional.relu",
    "torch.nn.Module.load_state_dict",
    "torch.nn.init.os.system",
    "torch.nn.utils.clip_grad_norm_",
    "smallbatch.denoiser.Denoiser.__init__",
    "smallbatch.denoiser.Denoiser.__subclasses__",
    "smallbatch.denoiser.__builtins__.eval",
    "smallbatch.denoiser.__loader__.load_module",
    "smallbatch.denoiser",
    "torch.nn",
    "torch.load",
    "torch.hub.load",
    "torch.utils.cpp_extension.load",
    "torch.nn.quantized.Linear",
    "smallbatch.optimizers.adamw",
    "smallbatch..denoiser.Denoiser",
    "smallbatch.denoiser.Denoiser\n",
    " smallbatch.denoiser.Denoiser",
    "smallbatchx.evil.Evil",
    "os.system",
    "builtins.eval",
    "pathlib.Path",
    "subprocess.Popen",
    "",
    7,
    None,
    {"_target_": "os.system"},
    ["os.system"],
    "${oc.env:HOME}",
]


@cases("target", FUNCTIONS, ids=str)
@cases("place", ["_target_", "network___target_", "schedule__path___target_", "clock___target_"])
def test_what_is_no_class_of_ours_is_refused_wherever_it_stands(target, place, run):
    line = refused(runs.load, run(denoiser(**{place: target})))
    assert "model.json: denoiser" in line


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module whose import leaves a trace, on the path; also below the name of a package of ours."""
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'trace')!r})\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "trace"
    sys.modules.pop("evil", None)


@cases("target", ["evil.Evil", "evil", "smallbatch.evil.Evil", "smallbatch.files.evil.Evil", "torch.nn.evil.Evil"])
def test_nothing_is_imported_from_elsewhere(target, run, evil):
    refused(runs.load, run(denoiser(network___target_=target)))
    assert not evil.exists() and "evil" not in sys.modules
    import_evil = __import__("evil")
    assert evil.exists() and import_evil.Evil  # the trap works


@cases(
    "changes, line",
    [
        ({"network__dropout": {"_target_": "os.system"}}, "denoiser.network.dropout._target_=os.system is refused"),
        ({"network__multipliers": [1, {"_target_": "os.system"}]}, "denoiser.network.multipliers[1]._target_=os.sys"),
        ({"network__multipliers": [[{"a": {"_target_": "os.getcwd"}}]]}, "multipliers[0][0].a._target_=os.getcwd"),
        ({"_args_": [{"_target_": "os.getcwd"}]}, "denoiser has the key _args_"),
        ({"network___args_": []}, "denoiser.network has the key _args_"),
        ({"network___recursive_": False}, "denoiser.network has the key _recursive_"),
        ({"_convert_": "none"}, "denoiser has the key _convert_"),
        ({"network___partial_": "maybe"}, "denoiser does not build"),
        ({"data_std": "${oc.env:HOME}"}, "denoiser.data_std=${oc.env:HOME} asks for a value from elsewhere"),
        ({"network__head_order": "a${secret:1}"}, "asks for a value from elsewhere"),
        ({"network__dropout": "${.width}"}, "asks for a value from elsewhere"),
        ({"network__wide": 3}, "denoiser does not build (TypeError"),
        ({"network__width": "eight"}, "denoiser.network.width=eight must be a whole number"),
        ({"network__width": 0}, "width=0 must be at least 1"),
        ({"network__multipliers": []}, "no stage has this size"),
        ({"clock": {"_target_": "smallbatch.schedules.VariancePreserving"}}, "is refused: it is no Clock"),
        ({"clock": {"_target_": "smallbatch.data.files.Zip", "path": "/"}}, "is refused: it is no Clock"),
        ({"network___target_": "smallbatch.data.folder.Images"}, "is refused: it is no Module"),
        ({"_target_": "smallbatch.networks.unet.UNet"}, "is refused: it is no Denoiser"),
        ({"\x1b[31mred": 1}, r"unexpected keyword argument '\x1b[31mred'"),
    ],
    ids=str,
)
def test_a_run_that_hides_something_is_refused_by_its_place(changes, line, run):
    found = refused(runs.load, run(denoiser(**changes)))
    assert line in found and "model.json" in found


def test_no_resolver_runs(run):
    asked = []
    OmegaConf.register_new_resolver("trap", lambda *words: asked.append(words) or "v", replace=True)
    try:
        refused(runs.load, run(denoiser(data_std="${trap:1}")))
        refused(runs.load, run(denoiser(network__head_order="x ${trap:1}")))
        assert OmegaConf.create({"a": "${trap:1}"}).a == "v" and len(asked) == 1  # the trap works
    finally:
        OmegaConf.clear_resolver("trap")


class Half(torch.nn.Module):
    pass


@cases("module, name", [("torch.nn", "Linear"), ("torch.nn.modules.linear", "Linear"), ("torch.optim", "SGD")])
def test_classes_of_torch_are_found_by_any_of_their_names(module, name):
    assert trust._named(f"{module}.{name}").__name__ == name
    assert trust._named(f"{__name__}.Half") is None


# --- how large it may be ---

TABLE = {**denoiser()["schedule"], "_target_": "smallbatch.tables.LinearBetas"}


@cases(
    "changes, spec, line",
    [
        ({}, {"size": 10**9}, "spec.size=1000000000 must lie in 1..4096"),
        ({}, {"channels": 10**6}, "spec.channels=1000000 must lie in 1..64"),
        ({}, {"classes": -1}, "spec.classes=-1 must lie in 0..1000000"),
        ({}, {"size": 8.0}, "spec.size=8.0"),
        ({}, {"size": True}, "spec.size=True"),
        ({}, {"depth": 3}, "unexpected keyword argument 'depth'"),
        ({}, {"channels": 3}, "has shape"),
        ({}, {"classes": 1_000_000}, "larger than"),
        ({"network__width": 10**15}, {}, "denoiser"),
        ({"network__width": 80_000}, {}, "larger than"),
        ({"network__blocks": 10**12}, {}, "larger than"),
        ({"network__width": 16}, {}, "has shape"),
        ({"network__blocks": 2}, {}, "has shape"),
        (
            {"schedule": {**denoiser()["schedule"], "_target_": "smallbatch.tables.LinearBetas", "steps": 10**9}},
            {},
            "larg",
        ),
        ({"network___target_": "torch.nn.Linear"}, {}, "does not build"),
    ],
    ids=str,
)
def test_numbers_that_do_not_fit_the_weights_are_refused_before_there_is_memory_for_them(changes, spec, line, run):
    found = refused(runs.load, run(denoiser(**changes), SPEC | spec))
    assert line in found and "model.json" in found


@cases(
    "text", ["[" * 100_000, "[]", "7", '{"denoiser": {}}', '{"denoiser": ', "\x00", '{"images": 1' + "0" * 5000 + "}"]
)
def test_a_model_json_that_is_none_is_refused(text, run):
    folder = run(denoiser())
    (folder / "model.json").write_text(text)
    assert "model.json cannot be read" in refused(runs.load, folder)


@cases("name", ["model.json", "model.safetensors"])
def test_a_file_that_never_ends_is_refused(name, run):
    folder = run(denoiser())
    for make in (lambda path: path.symlink_to("/dev/zero"), os.mkfifo):
        (folder / name).unlink()
        make(folder / name)
        assert f"{name} cannot be read (it is no file)" in refused(runs.load, folder)


def test_pickles_are_no_weights(run, tmp_path):
    folder = run(denoiser())
    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    assert "model.safetensors cannot be read" in refused(runs.load, folder)
    assert not (tmp_path / "trace").exists()


def test_a_checkpoint_that_is_a_program_is_not_run(tmp_path):
    (tmp_path / "c").mkdir()
    torch.save({"global_step": Trap(tmp_path / "trace")}, tmp_path / "c" / "last.ckpt")
    assert "no checkpoint in" in refused(last_good, tmp_path / "c", lambda text: None)
    assert not (tmp_path / "trace").exists()
    torch.load(tmp_path / "c" / "last.ckpt", weights_only=False)
    assert (tmp_path / "trace").exists()  # the trap works


def test_snapshots_that_do_not_fit_are_refused(run, weights):
    folder = run(denoiser())
    (folder / "checkpoints" / "ema").mkdir(parents=True)
    path = folder / "checkpoints" / "ema" / "1.safetensors"
    for about in (None, {"relative_std": "{"}, {"images": "1", "relative_std": '{"a": 0.1}'}):
        save_file({"a/other": torch.ones(1)}, path, about)
        assert "checkpoints/ema: " in refused(runs.reaverage, runs.load(folder), folder, 0.1)


# --- the data that a run names ---


def data_of(folder):
    return sample.data_of(OmegaConf.create({"run": str(folder)}))


def test_a_runs_data_are_built(run):
    config = "data:\n  _target_: smallbatch.data.digits.Digits\n  batch: 4\n  seed: 0\n  size: 8\n"
    assert data_of(run(denoiser(), config=config)).spec == ImageSpec(1, 8, 10)


@cases("archive", [False, True])
def test_a_runs_data_are_not_fetched_to_where_the_run_says(archive, run, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10.url", "http://localhost:9/cifar-10-python.tar.gz")
    there = tmp_path / "there"
    if archive:
        there.mkdir()
        (there / "cifar-10-python.tar.gz").write_bytes(b"something else")
    before = [*tmp_path.glob("there/**/*")]
    config = f"data:\n  _target_: smallbatch.data.cifar10.Cifar10\n  batch: 4\n  seed: 0\n  path: {there}\n"
    folder = run(denoiser(), config=config)
    assert "give data=cifar10 data.path=" in refused(lambda: data_of(folder).parts)
    assert there.exists() == archive and [*tmp_path.glob("there/**/*")] == before


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)


@cases(
    "config, line",
    [
        ("data: {_target_: os.system, command: ls}", "data._target_=os.system is refused"),
        ("data: {_target_: smallbatch.denoiser.Continuous}", "is refused: it is no ImageData"),
        ("data: {_target_: smallbatch.data.digits.Digits, batch: 1, seed: '${oc.env:HOME}'}", "from elsewhere"),
        ("data: {_target_: smallbatch.data.digits.Digits, batch: 1, seed: 0, size: 9}", "data.size=9"),
        ("data: {_target_: smallbatch.data.digits.Digits, batch: 1, seed: 2020-01-01}", "neither a number nor text"),
        ("data: {_target_: smallbatch.data.digits.Digits, 7: 1}", "has the key 7"),
        ("data: !!python/object/apply:os.mkdir [trace]", "could not determine a constructor"),
        ("data: !!python/name:os.system", "could not determine a constructor"),
        ("data: [1]", "names no data set"),
        ("- 1", "names no data set"),
        (BOMB + "data: *k", "it holds an alias"),
        ("[" * 2000, "cannot be read"),
    ],
    ids=lambda text: text[:60],
)
def test_a_config_that_is_no_data_set_is_refused(config, line, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = refused(data_of, run(denoiser(), config=config))
    assert line in found and "config.yaml" in found and not Path("trace").exists()


# --- archives and folders of images ---


def png(size=(8, 8)):
    Image.new("RGB", size).save(file := io.BytesIO(), "png")
    return file.getvalue()


def zipped(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def images(path, **options):
    return Images(str(path), batch=4, seed=0, size=8, **options)


def set_up(path):
    images(path).setup("fit")


PAIR = [("a/0.png", png()), ("b/1.png", png())]


@cases("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:/evil.png", "\x1b[31m/../a.png"])
def test_a_zip_that_names_what_lies_outside_is_refused(name, tmp_path):
    assert "outside the zip" in refused(set_up, zipped(tmp_path / "a.zip", [*PAIR, (name, png())]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_that_names_a_file_twice_is_refused(tmp_path):
    assert "holds 'a/0.png' 2 times" in refused(set_up, zipped(tmp_path / "a.zip", [*PAIR, PAIR[0]]))


def test_a_link_in_a_zip_leads_nowhere(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = 0o120777 << 16
    path = zipped(tmp_path / "a.zip", [*PAIR, (link, str(tmp_path / "secret.png"))])
    assert "cannot decode a/link.png: repair or remove it (not an image)" in refused(set_up, path)


def declaring(path, size):
    """The zip with the first entry said to unpack to `size` bytes, here and in the central directory."""
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, 22, size)
    struct.pack_into("<I", content, central + 24, size)
    path.write_bytes(content)
    return path


def test_a_zip_bomb_is_refused_by_what_it_declares(tmp_path):
    path = declaring(zipped(tmp_path / "a.zip", PAIR), 3 * 2**30)
    assert "a/0.png holds 3.2 GB, more than 1.1 GB: remove it" in refused(set_up, path)


def test_a_file_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(png())
    with open(tmp_path / "a" / "0.png", "wb") as file:
        file.truncate(10 * 2**30)
    assert "a/0.png holds 10.7 GB, more than 1.1 GB" in refused(set_up, tmp_path)


def test_a_listing_that_names_what_lies_outside_is_refused(tmp_path):
    for name in ("../../etc/passwd", "/etc/passwd", "b/../../x.png"):
        listing = json.dumps({"labels": [[name, 0]]})
        path = zipped(tmp_path / "a.zip", [*PAIR, ("dataset.json", listing)])
        assert f"dataset.json names {name}, which is not among its images" in refused(set_up, path)
        (tmp_path / "f").mkdir(exist_ok=True)
        for image in ("0.png", "1.png"):
            (tmp_path / "f" / image).write_bytes(png())
        (tmp_path / "f" / "dataset.json").write_text(listing)
        assert f"dataset.json names {name}" in refused(set_up, tmp_path / "f")


def test_a_users_own_links_are_followed_and_pipes_are_not(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "elsewhere" / name).write_bytes(png())
    (tmp_path / "here" / "a").symlink_to(tmp_path / "elsewhere")
    set_up(tmp_path / "here")
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("nowhere")):
        make(odd := tmp_path / "here" / "a" / "2.png")
        assert "a/2.png is no file, or a link that leads nowhere: remove it" in refused(set_up, tmp_path / "here")
        odd.unlink()


def test_an_image_that_declares_more_pixels_than_there_is_room_for_is_refused(tmp_path):
    (tmp_path / "0.png").write_bytes(png())
    content = bytearray(png())
    struct.pack_into(">II", content, 16, 30_000, 30_000)  # its head; the checksum behind it
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    (tmp_path / "1.png").write_bytes(content)
    line = refused(set_up, tmp_path)
    assert "cannot decode 1.png: repair or remove it (Image size (900000000 pixels) exceeds limit" in line


def test_postscript_is_no_image(tmp_path, monkeypatch):
    """PIL hands it to Ghostscript, which runs it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\nmkdir {tmp_path / 'trace'}\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    (tmp_path / "f").mkdir()
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "f" / "0.png").write_bytes(eps)
    (tmp_path / "f" / "1.png").write_bytes(png())
    assert "cannot decode 0.png: repair or remove it (not an image)" in refused(set_up, tmp_path / "f")
    assert "not an image" in refused(open_images, tmp_path / "f", "samples")
    assert not (tmp_path / "trace").exists()
    with pytest.raises((OSError, CalledProcessError)):
        Image.open(io.BytesIO(eps)).load()
    assert (tmp_path / "trace").exists()  # the trap works


# --- arrays ---


def test_arrays_that_are_programs_are_not_run(tmp_path):
    array = np.array([Trap(tmp_path / "trace")], dtype=object)
    np.savez(tmp_path / "a.npz", array)
    np.savez(tmp_path / "b.npz", mu=array, sigma=array, stamp=array, n=array)
    assert "holds Python objects" in refused(open_images, tmp_path / "a.npz", "samples")
    assert "holds Python objects" in refused(read_reference, tmp_path / "b.npz")
    assert not (tmp_path / "trace").exists()


def header(shape):
    np.lib.format.write_array_header_1_0(file := io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_arrays_that_declare_more_than_there_is_are_refused(tmp_path):
    for shape in ((10**15,), (10**10,), (2**62, 8)):
        path = zipped(tmp_path / "a.npz", [("arr_0.npy", header(shape))])
        assert "cannot be read" in refused(open_images, path, "samples")
    path = declaring(zipped(tmp_path / "b.npz", [("arr_0.npy", header((3, 2**30)))]), 3 * 2**30)
    line = refused(open_images, path, "samples")
    assert "arr_0.npy would unpack from" in line and "to 3.2 GB" in line


@cases("stamp", ["[" * 100_000, "[]", "7", '{"data": 1}', "null"])
def test_a_stamp_that_is_none_is_refused(stamp, tmp_path):
    eye = {"mu": np.zeros(2), "sigma": np.eye(2), "colour_mean": np.zeros(1), "colour_spread": np.zeros(1), "n": 2}
    np.savez(tmp_path / "a.npz", stamp=np.array(stamp), **eye)
    assert "its stamp cannot be read" in refused(read_reference, tmp_path / "a.npz")


STAMP = {"data": "d", "size": 8, "channels": 1, "extractor": "e", "n": 2, "kept": 0}


@cases(
    "odd", [{"images": 3}, {"images": [[]]}, {"size": "8"}, {"extractor": None}, {"more": 1}, {"settings": []}], ids=str
)
def test_a_stamp_of_other_types_is_refused(odd):
    assert stamps.read(json.dumps(STAMP)).data == "d"
    with pytest.raises((ValueError, TypeError)):
        stamps.read(json.dumps(STAMP | odd))


@pytest.fixture
def store(tmp_path):
    pack(images(zipped(tmp_path / "a.zip", PAIR)), {"_target_": "x.Images"}, tmp_path / "store")
    return tmp_path / "store"


def packed(store):
    return Packed(str(store), batch=1, seed=0)


class Features(Extractor):
    name = identity = "f"
    dimension = 1

    def prepare(self, data): ...

    def on(self, device): ...


@cases("target", ["/home/someone/evil", "a.b/../../evil", "\x1b[31m", "", 7, None, {"a": 1}], ids=str)
def test_a_store_cannot_choose_where_its_reference_is_kept(target, store):
    path = store / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"made_with": {"_target_": target}}))
    name = stamps.stamp_of(packed(store), {}, "train", Features(), 1, 0).data
    assert name == "Packed" or (name.isidentifier() and name in str(target))


@cases("odd", [{"spec": 3}, {"spec": {"size": 8}}, {"counts": {}}, {"counts": {"train": "1", "held_out": 1}}], ids=str)
@cases("more", [{}, {"made_with": []}, {"digest": 5}], ids=str)
def test_a_store_that_describes_itself_wrongly_is_refused(odd, more, store):
    path = store / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | odd | more))
    assert "store.json cannot be read" in refused(lambda: packed(store).spec)


def test_a_stores_arrays_are_no_programs(store, tmp_path):
    np.save(store / "train.npy", np.array([Trap(tmp_path / "trace")], dtype=object))
    assert "is missing or cut short" in refused(lambda: packed(store).parts)
    (store / "train.npy").write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    assert "is missing or cut short" in refused(lambda: packed(store).parts)
    np.savez(file := io.BytesIO(), np.zeros(3))
    (store / "train.npy").write_bytes(file.getvalue())
    assert "is missing or cut short" in refused(lambda: packed(store).parts)
    assert not (tmp_path / "trace").exists()


@cases("official", [True, False])
def test_cifar10_that_is_a_program_is_not_run(official, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps({"data": Trap(tmp_path / "trace"), "labels": [1]}))
    line = refused(lambda: Cifar10(str(tmp_path), 1, 0, official=official).parts)
    assert ("data_batch_1 is another file" if official else "it asks for posix.mkdir") in line
    assert not (tmp_path / "trace").exists()


def test_an_archive_of_cifar10_that_is_another_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10.url", "http://localhost:9/cifar-10-python.tar.gz")
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../evil"))
        archive.addfile(tarfile.TarInfo("cifar-10-batches-py/evil"))
    assert "cannot fetch CIFAR-10" in refused(lambda: Cifar10(str(tmp_path / "in"), 1, 0).parts)
    assert not (tmp_path / "evil").exists() and not (tmp_path / "in" / "cifar-10-batches-py").exists()


# --- a store in shards ---


@pytest.fixture(scope="session")
def honest(photos, vae_folder, clip_folder, tmp_path_factory):
    out, text = tmp_path_factory.mktemp("honest") / "store", Clip(str(clip_folder), length=12)
    made = Encoders(Vae(str(vae_folder)), text, "float16")
    data = Captions(str(photos), batch=1, seed=0, size=16, held_out=0.1)
    encode(data, {}, made, out, 40_000, Work(0, 1, torch.device("cpu"), lambda: None, 16))
    return out


@pytest.fixture
def sharded(honest, tmp_path):
    return Path(shutil.copytree(honest, tmp_path / "store"))


def opened(store, clip_folder):
    data = Shards(str(store), batch=1, seed=0)
    data.tell(Clip(str(clip_folder), length=12))
    data.setup("fit")
    assert data.autoencoder is not None
    return data


def restated(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_honest_store_opens(sharded, clip_folder):
    data = opened(sharded, clip_folder)
    assert data.batch_of(data.train_store.take(torch.arange(42))).x0.shape == (42, 4, 8, 8)


TREE = {"type": "builtins.dict", "context": '["image", "label"]'}
PAIR_OF_LEAVES = [{"type": None, "context": None, "children_spec": []}] * 2


def tree(**changes):
    return json.dumps([1, TREE | {"children_spec": PAIR_OF_LEAVES} | changes])


LIST = "index.json cannot be read ("


@cases(
    "config, line",
    [
        ({"data_format": ["numpy", "int", "pickle", "numpy", "no_header_numpy:13"]}, "pickle is nothing that"),
        ({"data_format": ["numpy", "int", "graph:pickle", "numpy", "no_header_numpy:13"]}, "graph:pickle is nothing"),
        ({"data_format": ["numpy", "int", "text\n", "numpy", "numpy"]}, "is nothing that `smallbatch prepare` writes"),
        ({"data_format": ["numpy", "int"], "data_spec": tree(type="evil.Evil")}, "evil.Evil"),
        ({"data_format": ["numpy", "int"], "data_spec": tree(type="collections.OrderedDict")}, "OrderedDict"),
        ({"data_format": ["numpy", "int"], "data_spec": tree(children_spec=[TREE, TREE])}, LIST),
        ({"data_format": ["numpy", "int"], "data_spec": tree(context='["__class__", "label"]')}, "__class__"),
        ({"data_format": ["numpy"], "data_spec": tree()}, "is nothing that"),
        ({"data_spec": "[" * 100_000}, LIST),
        ({"data_spec": None}, LIST),
        ({"compression": "zstd"}, "compression=zstd is nothing that"),
        ({"compression_level": "sample"}, "compression_level=sample is nothing that"),
        ({"encryption": {"algorithm": "x"}}, "is nothing that"),
        ({"format": "mds"}, "format=mds is nothing that"),
        ({"item_loader": "ParquetLoader"}, "ParquetLoader is nothing that"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_list_of_shards_that_names_what_would_run_is_refused(config, line, sharded, clip_folder):
    index = sharded / "train" / "index.json"
    restated(index, config=json.loads(index.read_text())["config"] | config)
    found = refused(opened, sharded, clip_folder)
    assert line in found and "train/index.json cannot be read (" in found


@cases(
    "shard, line",
    [
        ({"filename": "../../evil.bin"}, "evil.bin"),
        ({"filename": "/etc/passwd"}, "passwd"),
        ({"filename": "chunk-0-0.bin/../../x"}, "is nothing that"),
        ({"filename": "chunk-\u0660-0.bin"}, "is nothing that"),
        ({"filename": 7}, "is nothing that"),
        ({"chunk_bytes": 10**15}, "chunk-0-0.bin is missing or cut short"),
        ({"chunk_bytes": -1}, "is nothing that"),
        ({"chunk_bytes": "1"}, "is nothing that"),
        ({"chunk_size": 10**12}, "is nothing that"),
        ({"chunk_size": 1}, "its shards do not hold 42 rows"),
        ({"chunk_size": True}, "is nothing that"),
        ({"filename": "chunk-77-0.bin"}, "chunk-77-0.bin is missing or cut short"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_shards_that_lie_outside_or_do_not_fit_are_refused(shard, line, sharded, clip_folder):
    index = sharded / "train" / "index.json"
    chunks = json.loads(index.read_text())["chunks"]
    restated(index, chunks=[chunks[0] | shard, *chunks[1:]])
    assert line in refused(opened, sharded, clip_folder)


@cases("text", ["[" * 100_000, "[]", "7", "{}", '{"chunks": 1, "config": {}}', "\x00", '{"chunks": [[]]}'])
def test_a_list_of_shards_that_is_none_is_refused(text, sharded, clip_folder):
    (sharded / "held_out" / "index.json").write_text(text)
    assert LIST in refused(opened, sharded, clip_folder)


NONE = "store.json cannot be read ("
SPEC_OF_LATENTS = {"channels": 4, "size": 8, "classes": 0, "latents": True}


@cases(
    "stamp, line",
    [
        ({"spec": SPEC_OF_LATENTS | {"size": 10**9}}, "spec.size=1000000000 must lie in 1..4096"),
        ({"spec": SPEC_OF_LATENTS | {"latents": "yes"}}, "spec.latents=yes must be true or false"),
        ({"spec": SPEC_OF_LATENTS | {"latents": False}}, NONE),
        ({"spec": SPEC_OF_LATENTS | {"text": [1, 2, 3]}}, NONE),
        ({"spec": SPEC_OF_LATENTS | {"more": 1}}, NONE),
        ({"counts": {"train": -1, "held_out": 3}}, "counts.train"),
        ({"counts": {"train": 42, "held_out": True}}, "counts.held_out"),
        ({"rows": 0}, "rows=0"),
        ({"rows": True}, "rows=True"),
        ({"latents": None}, "latents=None"),
        ({"storage": "pickle"}, "storage=pickle"),
        ({"storage": None}, "storage=None"),
        ({"text": None}, "storage=float16"),
        ({"text": "clip"}, NONE),
        ({"text": {"_target_": "os.system", "name": "\x1b[2J"}}, "text encoder: give text=system 'text.name=\\x1b[2J'"),
        ({"captions": False}, NONE),
        ({"format": [2]}, NONE),
        ({"format": 3}, "has format 3, this version reads 2"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_store_of_shards_that_describes_itself_wrongly_is_refused(stamp, line, sharded, clip_folder):
    restated(sharded / "store.json", **stamp)
    assert line in refused(opened, sharded, clip_folder)


@cases(
    "change, line",
    [
        ({"_target_": "os.system"}, "_target_=os.system"),
        ({"_target_": "smallbatch.latents.vae.frozen"}, "_target_=smallbatch.latents.vae.frozen"),
        ({"_target_": None}, "_target_=None"),
        ({"trust_remote_code": True}, "trust_remote_code=True"),
        ({"return": None}, "unexpected keyword argument 'return'"),
        ({"name": 7}, "name=7"),
        ({"name": None}, "name=None"),
        ({"revision": ["x"]}, "revision=['x']"),
        ({"scale": "0.5"}, "scale=0.5"),
        ({"scale": -1.0}, "latents.scale=-1.0 must be above 0"),
        ({"draw": "evil"}, "latents.draw=evil is not known"),
        ({"draw": {"a": 1}}, "draw={'a': 1}"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_store_whose_latents_name_anything_but_an_autoencoder_is_refused(change, line, sharded, clip_folder):
    latents = json.loads((sharded / "store.json").read_text())["latents"]
    restated(sharded / "store.json", latents=latents | change)
    found = refused(opened, sharded, clip_folder)
    assert line in found and "its autoencoder cannot be read (" in found


def row(**changes):
    made = {"image": np.zeros((4, 8, 8), np.float16), "label": -1, "caption": "a cat"}
    return made | {"features": np.zeros((12, 32), np.float16), "mask": np.ones(12, bool)} | changes


@cases(
    "odd, line",
    [
        ({}, None),
        ({"image": np.zeros((4, 8, 9), np.float16)}, "holds an image that is not float16 of (4, 8, 8)"),
        ({"image": np.zeros((4, 8, 8), np.float32)}, "holds an image that is not float16"),
        ({"label": 3}, "has the label 3, store.json names 0 classes"),
        ({"features": np.zeros((999, 32), np.float16)}, "holds other text features"),
        ({"features": np.zeros((12, 33), np.float16)}, "holds other text features"),
        ({"mask": np.ones(13, bool)}, "holds other text features"),
        ({"mask": np.ones(12, np.int64)}, "holds other text features"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_rows_of_another_shape_than_the_store_says_are_refused(odd, line, sharded, clip_folder):
    train = sharded / "train"
    shutil.rmtree(train)
    train.mkdir()
    write(train, 0, iter([row(**odd)] * 42), 42, 42)
    merge(train)
    if line is None:
        opened(sharded, clip_folder)
    else:
        assert line in refused(opened, sharded, clip_folder)


def test_a_shard_that_is_no_such_thing_is_refused_and_not_run(sharded, clip_folder, tmp_path):
    shard = sharded / "train" / "chunk-0-0.bin"
    size, program = shard.stat().st_size, pickle.dumps(Trap(tmp_path / "trace"))
    for content in (program, struct.pack("<III", 1, 2**31, 2**32 - 1), b"\xff" * 40, b""):
        shard.write_bytes(content.ljust(size, b"\0"))
        assert "cannot be read (" in refused(opened, sharded, clip_folder)
    assert not (tmp_path / "trace").exists()


def test_a_row_without_a_caption_is_refused_where_it_is_asked_for(sharded, clip_folder):
    train = sharded / "train"
    shutil.rmtree(train)
    train.mkdir()
    write(train, 0, iter([row()] * 42), 42, 42)
    (train / "0.index.json").write_text((train / "0.index.json").read_text().replace("caption", "step"))
    merge(train)
    data = Shards(str(sharded), batch=1, seed=0)
    assert "holds a row without a caption" in refused(data.parts.train.captions, torch.tensor([0]))


# --- what is written into a folder that came from elsewhere ---


def test_a_link_in_the_way_of_a_file_is_not_written_through(tmp_path):
    (precious := tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    for name in (".partial.a.json", "a.json", ".lock.a.json", ".lock"):
        (tmp_path / "run" / name).symlink_to(precious)
    try:
        with replacing(tmp_path / "run" / "a.json") as partial:
            partial.write_text("theirs")
    except OSError:
        pass
    with in_turn(tmp_path / "run" / "a.json"):
        pass
    runs.lock(tmp_path / "run")
    assert precious.read_text() == "mine"


def test_a_link_out_of_a_run_is_not_written_through_unasked(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples").symlink_to(tmp_path)
    (tmp_path / "run" / "metrics").symlink_to(tmp_path)
    config = {
        "run": str(tmp_path / "run"),
        "out": None,
        "samples": None,
        "evaluation": {},
        "n": 1,
        "batch": 1,
        "seed": 0,
        "noise": "by_image",
        "images": None,
    }
    solver = {"solver": {"_target_": "a.B"}, "grid": {"_target_": "a.B"}}
    config |= {"sampler": solver, "steps": 1, "guidance": 1.0, "ema_width": None, "labels": "none"}
    for command in (sample.run, lambda config: evaluate.path_of(config, "x")):
        assert "is a link out of" in refused(command, OmegaConf.create(config))


# --- what a terminal is shown ---


def test_a_terminal_is_not_told_to_do_anything(capsys):
    assert str(UserError("a\x1b[2J\nb\x9b31m\u202ec\udc80 é 数")) == r"a\x1b[2J\nb\x9b31m\u202ec\udc80 é 数"
    evaluate.show([Score("fid[red]", 1.0, 3, marks=["[bold]of \x1b[31m[/nothing].npz"])])
    out = capsys.readouterr().out
    assert "fid[red]" in out and r"[bold]of \x1b[31m[/nothing].npz" in out and "\x1b" not in out
