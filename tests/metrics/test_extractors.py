"""Extractors whose weights come from elsewhere: torch-fidelity's own features, and clear lines where weights lack."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from tests.metrics import random_inception
from tests.metrics.random_inception import pictures
from torch import nn
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, CLIPVisual, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from smallbatch.errors import UserError
from smallbatch.metrics.clip import Clip
from smallbatch.metrics.dinov2 import REPOSITORY, DinoV2
from smallbatch.metrics.extractors import InColour
from smallbatch.metrics.inception import Inception
from smallbatch.metrics.weights import sha256, sha256_of

cases = pytest.mark.parametrize

HUBCONF = """
import torch
dependencies = ["torch"]
def dinov2_vits14():
    layers = [torch.nn.AvgPool2d(14), torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 384)]
    return torch.nn.Sequential(*layers)
"""


@pytest.fixture(scope="module")
def inception(inception_file):
    return Inception(str(inception_file))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch.hub, and a network that answers nothing."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub"


@pytest.fixture
def dinov2(hub):
    """A repository of one small network, where torch.hub would keep DINOv2's."""
    (hub / REPOSITORY).mkdir(parents=True)
    (hub / REPOSITORY / "hubconf.py").write_text(HUBCONF)
    return DinoV2("vit-s-14")


class SmallClip(nn.Module):
    """What torch-fidelity looks for in OpenAI's files."""

    def __init__(self):
        super().__init__()
        self.visual = CLIPVisual(8, 32, 1, 64, 16).visual
        self.text_projection = nn.Parameter(torch.zeros(2, 8))

    def forward(self, x):
        return x


@pytest.fixture
def clip(tmp_path, monkeypatch):
    path = tmp_path / "small.pt"
    torch.jit.script(SmallClip()).save(path)
    monkeypatch.setitem(MODEL_METADATA["clip-vit-b-32"], "hash", sha256(path))
    return Clip(weights=str(path))


def refused(do):
    with pytest.raises(UserError) as error:
        do()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_inception_features_are_torch_fidelitys_bit_for_bit(inception, inception_file):
    pixels = pictures(4, seed=2)
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", random_inception.FEATURES, str(inception_file))
    with inception.on("cpu") as extract:
        ours = extract(pixels)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs(pixels), strict=True))
    assert ours.vectors.shape == (4, inception.dimension) and ours.vectors.std(dim=0).mean() > 0.05


def test_inception_is_float32_whatever_the_trainers_precision_and_sees_grey_as_colour(inception):
    grey = pictures(1, seed=3, channels=1)
    with inception.on("cpu") as extract:
        outside = extract(grey.repeat(1, 3, 1, 1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = extract(grey)
    assert inside.vectors.dtype == torch.float32 and not inside.vectors.requires_grad
    assert torch.equal(inside.vectors, outside.vectors) and torch.equal(inside.logits, outside.logits)


def test_inception_is_read_when_lent_and_leaves_randomness_alone(inception_file):
    extractor, before = Inception(str(inception_file)), torch.get_rng_state()
    extractor.prepare(None)
    assert "network" not in vars(extractor)
    assert extractor.identity == f"inception {sha256(inception_file)[:12]} (not the published weights)"
    with torch.inference_mode(), extractor.on("cpu"):
        assert not any(p.requires_grad or p.is_inference() for p in extractor.network.parameters())
    assert torch.equal(torch.get_rng_state(), before) and not isinstance(extractor, nn.Module)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_weights_file_is_never_run(tmp_path):
    for name, write in {"pickle": pickle.dump, "torch": torch.save}.items():
        with open(tmp_path / name, "wb") as file:
            write({"fc.bias": Harmful(tmp_path / "harm")}, file)
        line = refused(lambda name=name: Inception(str(tmp_path / name)).prepare(None))
        assert "does not hold torch-fidelity's Inception" in line and URL_INCEPTION_V3 in line
    assert not (tmp_path / "harm").exists()


@cases("content", [{}, {"fc.bias": torch.zeros(3)}, [1, 2], torch.zeros(2)])
def test_other_weights_are_refused_before_they_are_needed(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    line = refused(lambda: Inception(str(tmp_path / "other.pth")).prepare(None))
    assert f"extractor.weights={tmp_path / 'other.pth'} does not hold" in line and len(line) < 500


def test_without_weights_and_network_a_line_names_the_file_its_source_and_the_embedded_alternative(hub):
    line = refused(lambda: Inception().prepare(None))
    expected = hub / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    for part in (str(expected), URL_INCEPTION_V3, "extractor.weights=FILE", "extractor=classifier"):
        assert part in line
    assert not expected.exists()


def test_a_published_file_is_held_against_its_checksum(hub):
    (hub / "checkpoints").mkdir(parents=True)
    (hub / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth").write_bytes(b"cut short")
    line = refused(lambda: Inception().prepare(None))
    assert "is damaged, its SHA-256 is not 6726825d...: remove it to download it again" in line


@cases("make", [Inception, lambda weights: Clip(weights=weights)])
def test_a_file_that_is_not_there_is_named_with_its_source(make, tmp_path):
    line = refused(lambda: make(weights=str(tmp_path / "nowhere.pth")).prepare(None))
    assert f"extractor.weights={tmp_path / 'nowhere.pth'}: No such file" in line and "https://" in line
    assert "extractor=classifier" in line


@cases("make", [DinoV2, Clip])
def test_dinov2_and_clip_say_what_they_lack_without_a_network(make, hub):
    line = refused(lambda: make().prepare(None))
    assert str(hub) in line and "cannot" in line and "https://" in line and "extractor=classifier" in line


@cases("make", [DinoV2, Clip])
def test_a_model_nobody_knows_is_refused_with_those_known(make):
    assert "model=vit-x is not known: use vit-" in refused(lambda: make(model="vit-x"))


def test_dinov2_is_what_torch_fidelity_makes_of_torch_hubs_repository(dinov2):
    pixels = pictures(2, seed=4, channels=1)
    torch.manual_seed(0)
    dinov2.prepare(None)
    theirs = FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])
    theirs.load_state_dict(dinov2.network.network.state_dict())
    with dinov2.on("cpu") as extract:
        ours = extract(pixels)
    assert torch.equal(ours.vectors, theirs(pixels.repeat(1, 3, 1, 1))[0]) and ours.logits is None
    assert ours.vectors.shape == (2, dinov2.dimension)
    assert dinov2.identity == f"dinov2 vit-s-14 {sha256_of(InColour(theirs).state_dict())[:12]}"


def test_clip_is_torch_fidelitys_and_takes_no_file_but_openais(clip, monkeypatch):
    pixels = pictures(2, seed=5)
    with clip.on("cpu") as extract:
        ours = extract(pixels)
    theirs = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], clip.weights)(pixels)
    assert torch.equal(ours.vectors, theirs[0]) and ours.vectors.std(dim=0).mean() > 0 and ours.logits is None
    assert clip.identity == f"clip vit-b-32 {sha256(Path(clip.weights))[:12]}"
    monkeypatch.undo()
    line = refused(lambda: Clip(weights=clip.weights).prepare(None))
    assert "is not OpenAI's https://" in line


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_free_of_it_after_a_loan_even_one_that_fails(inception):
    before = torch.cuda.memory_allocated()
    with pytest.raises(KeyError), inception.on("cuda") as extract:
        assert extract(pictures(1, seed=6)).vectors.is_cuda and torch.cuda.memory_allocated() > before
        raise KeyError
    assert torch.cuda.memory_allocated() <= before + 8192
