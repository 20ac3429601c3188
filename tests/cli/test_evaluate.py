"""`smallbatch evaluate`, and scores while training: real runs, real extractors."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from smallbatch.recorded import read
from tests.cli import TINY
from tests.metrics import random_inception
from tests.processes import start

QUICK = ["metrics=quick", "metrics.n=40", "extractor.images=320", "sampler.steps=2"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SMALLBATCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def run(trained):
    return trained(*TINY, *QUICK)


class Images(torch.utils.data.Dataset):
    """As torch-fidelity wants them: each a tensor."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def fid(a, b):
    """Exact where images are few. torch-fidelity's takes 20 s over a root of 2048 x 2048, and test_benchmarks pays."""
    means = a.mean(dim=0), b.mean(dim=0)
    a, b = ((x - mean) / (len(x) - 1) ** 0.5 for x, mean in zip((a, b), means, strict=True))  # covariances a'a and b'b
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    return float((means[0] - means[1]).square().sum() + a.square().sum() + b.square().sum() - 2 * overlap)


def scores(path):
    return {score["name"]: score for score in json.loads(Path(path).read_text())["metrics"]}


def test_scores_while_training_are_those_measured_after_it(run, smallbatch):
    recorded = {row["name"]: row["value"] for row in read(run) if row["name"].startswith("metrics/")}
    assert {"metrics/fd_classifier@40", "metrics/fd_classifier_floor@40", "metrics/recognised@40"} <= set(recorded)
    smallbatch("evaluate", f"run={run}", "n=40", "steps=2", "extractor.images=320", "out=after.json")
    for name, score in scores("after.json").items():
        assert score["value"] == pytest.approx(recorded[f"metrics/{name}"], rel=1e-4), name
    beside = scores(run / "metrics/000000320.json")["fd_classifier@40"]
    assert beside == scores("after.json")["fd_classifier@40"] | {"value": beside["value"]}
    assert "n=40 is no more than the 64 features" in beside["marks"][0] and "Digits train n=1527" in beside["reference"]
    assert (run / "metrics/000000320_nearest.png").exists() and Path("after_nearest.png").exists()
    kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert not [key for key in kept["state_dict"] if "classifier" in key or "metrics" in key]
    assert not [key for key in kept["callbacks"] if "Metrics" in key]


def test_scores_that_a_kill_left_out_come_by_the_command_that_train_says(run, smallbatch):
    """The checkpoint is written before the last scores are drawn."""
    words = ["train", *TINY, *QUICK]
    assert "last scores" not in smallbatch(*words)
    recorded = scores(run / "metrics/000000320.json")
    (run / "metrics/000000320.json").unlink()
    (line,) = (line for line in smallbatch(*words).splitlines() if "last scores were not" in line)
    smallbatch(*shlex.split(line.partition(": smallbatch ")[2]), "out=after.json")
    assert scores("after.json")["fd_classifier@40"]["value"] == pytest.approx(
        recorded["fd_classifier@40"]["value"], rel=1e-4
    )


def test_batches_processes_and_files_give_the_same_score(run, smallbatch):
    """From images drawn 7 or 64 at a time, by one process or two, or drawn before."""
    words = [
        f"run={run}",
        "n=40",
        "steps=2",
        "extractor.images=320",
        "metrics.scores=[frechet,kernel,precision_recall]",
    ]
    smallbatch("evaluate", *words, "batch=7", "out=seven.json")
    smallbatch("evaluate", *words, "batch=64", "out=many.json")
    start(Path.cwd(), "evaluate", *words, "devices=2", "out=two.json").finish()
    smallbatch("sample", f"run={run}", "n=40", "steps=2", "out=samples.npz")
    smallbatch("evaluate", *words, "samples=samples.npz", "out=file.json")
    seven, *others = map(scores, ("seven.json", "many.json", "two.json", "file.json"))
    for other in others:
        assert other.keys() | {"clipped@40"} == seven.keys()
        for name, score in other.items():
            assert score["value"] == pytest.approx(seven[name]["value"], rel=2e-4, abs=1e-6), name


def test_two_processes_that_train_score_as_one(run, tmp_path):
    words = ["train", *TINY, *QUICK, "trainer=ddp", "devices=2", f"root={tmp_path / 'two'}"]
    start(tmp_path, *words).finish()
    (two,) = (tmp_path / "two").glob("digits/*")
    one, two = (scores(folder / "metrics/000000320.json") for folder in (run, two))
    assert one.keys() == two.keys()
    for name in ("fd_classifier@40", "fd_classifier_floor@40", "colour_spread@40"):
        assert two[name]["value"] == pytest.approx(one[name]["value"], rel=0.02), name


def test_images_without_labels_are_held_against_others_once_it_has_features(smallbatch, refused, tmp_path):
    Path("photos").mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)):
        Image.fromarray(image).save(f"photos/{i}.png")
    words = [*TINY, "data=images", "data.path=photos", *QUICK, "name=digits"]
    assert "needs 2 classes or more" in refused("train", *words)


def test_scores_in_inceptions_features_are_torch_fidelitys(smallbatch, inception_file):
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(inception_file))
    sets = [random_inception.pictures(12, seed=2), random_inception.pictures(10, seed=3) // 2]
    for name, images in zip(("samples", "real"), sets, strict=True):
        np.savez(f"{name}.npz", images.permute(0, 2, 3, 1).numpy())
    words = ["extractor=inception", f"extractor.weights={inception_file}", "n=null", "out=scores.json"]
    wanted = "metrics.scores=[frechet,kernel,inception_score]"
    smallbatch("evaluate", "samples=samples.npz", "reference=real.npz", *words, wanted)

    theirs = torch_fidelity.calculate_metrics(
        input1=Images(sets[0]),
        input2=Images(sets[1]),
        cuda=False,
        kid=True,
        isc=True,
        kid_subset_size=10,
        feature_extractor_weights_path=str(inception_file),
        verbose=False,
        cache=False,
        batch_size=8,
    )
    ours = scores("scores.json")
    assert ours["fid@12"]["value"] == pytest.approx(fid(*(network(images)[0].double() for images in sets)), rel=1e-4)
    assert ours["kid@12"]["value"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert ours["inception_score@12"]["value"] == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert "not the published weights" in ours["fid@12"]["extractor"]
    assert any("n=12 is no more than the 2048 features" in mark for mark in ours["fid@12"]["marks"])


@pytest.mark.parametrize(
    "words, line",
    [
        ("", "give what to judge: run=FOLDER"),
        ("run=nowhere", "run=nowhere holds no"),
        ("samples=nowhere.npz", "samples=nowhere.npz does not exist"),
        ("samples=s.npz n=20", "n=20, but samples=s.npz holds 12 images"),
        ("samples=s.npz n=null", "extractor=classifier learns from a data set: give data="),
        ("samples=s.npz n=null data=digits data.size=16 extractor.images=32", "16x16"),
        ("samples=s.npz n=null extractor=inception reference=s.npz", "extractor=classifier needs no download"),
        ("samples=s.npz n=null out=scores.txt", "out=scores.txt must end in .json"),
        ("samples=s.npz batch=0", "batch=0 must be a whole number, at least 1"),
        ("samples=s.npz metrics.scores=frechet", "must be a list, each entry text"),
        (
            "samples=s.npz n=null data=digits data.size=8 metrics.extrapolate=true",
            "n=12 is too small for metrics.e",
        ),
        ("samples=s.npz devices=0", "devices=0 must be a whole number"),
        ("samples=s.npz metrics=fidd", "nearest: fid"),
        ("samples=empty n=null", "samples=empty holds no images"),
        ("samples=nan.npz n=null", "image 3 is not finite"),
        ("samples=s.npz n=null data=images data.path=flat", "needs 2 classes or more"),
    ],
)
def test_a_mistake_is_named_with_its_fix(words, line, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    np.savez("s.npz", images)
    broken = images / np.float32(255)
    broken[3, 1, 1] = np.nan
    np.savez("nan.npz", broken)
    Path("empty").mkdir()
    Path("flat").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(f"flat/{i}.png")
    assert line in refused("evaluate", *words.split())


def test_training_that_could_not_be_scored_does_not_start(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    assert "put https://" in refused("train", *TINY, "metrics=fid", "metrics.n=40")
    assert not list(Path("runs").glob("*/*/checkpoints/*"))
    assert "metrics.n=null" in refused("train", *TINY, "metrics=quick", "metrics.n=null")
