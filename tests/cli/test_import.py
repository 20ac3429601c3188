"""`smallbatch import guided_diffusion`, and what a run that nobody trained here is good for."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from smallbatch.cli import evaluate, import_guided_diffusion, runs
from smallbatch.cli.building import from_config
from smallbatch.cli.import_guided_diffusion import models
from smallbatch.cli.shapes import misfit, shapes_of
from smallbatch.cli.train import build
from smallbatch.networks.guided_diffusion import published
from smallbatch.networks.unet import UNet
from smallbatch.notation import Condition, ImageSpec
from tests.cli import TINY
from tests.test_configs import config

IMPORT = ("import", "guided_diffusion", "weights=weights.pt", "out=run")
FLAGS = ["network.width=8", "network.blocks=1", "network.multipliers=[1,2]"]
FLAGS += ["network.attention_at=[4]", "network.head_width=8"]
OURS = {"width": 8, "blocks": 1, "multipliers": [1, 2], "attention_at": [4], "head_width": 8}
LIKE = [*FLAGS, "schedule=ddpm_linear", "prediction=eps_learned_variance", "clock=steps"]  # for `train`


def network(spec, **changes):
    """With none of its weights at zero."""
    torch.manual_seed(0)
    made = UNet(spec, 2, **OURS | changes).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def checkpoint(made):
    torch.save({name: weight.clone() for name, weight in published(made).items()}, "weights.pt")
    return made


@pytest.mark.parametrize(
    "words, spec",
    [
        (["data.classes=10", "data.channels=1"], ImageSpec(1, 8, 10)),
        (["network.class_conditional=false", "data.low_size=4", "schedule=iddpm_cosine"], ImageSpec(3, 8, 0, 4)),
    ],
)
def test_an_imported_network_answers_as_the_one_whose_weights_it_has(words, spec, smallbatch):
    made = checkpoint(network(spec))
    smallbatch(*IMPORT, *FLAGS, "data.size=8", *words)
    denoiser, x = runs.load("run"), torch.randn(2, spec.channels, 8, 8)
    small = torch.randn(2, 3, 4, 4) if spec.low_size else None
    condition = Condition(torch.tensor([1, 2]) if spec.classes else None, image=small)
    level = denoiser.schedule(torch.tensor([0.001, 0.4]))
    assert torch.equal(denoiser(x, level, condition), made(x, torch.tensor([0.0, 399.0]), condition))


def test_an_imported_run_is_sampled_reported_and_trained_on(smallbatch):
    made = checkpoint(network(ImageSpec(1, 8, 10)))
    smallbatch(*IMPORT, *FLAGS, "data.size=8", "data.channels=1", "data.classes=10")
    grid = ["sampler=ddim", "sampler/grid=strided", "steps=4"]
    smallbatch("sample", "run=run", "n=3", *grid, "out=few.npz")
    assert np.load("few.npz")["arr_0"].shape == (3, 8, 8, 1)
    assert "smallbatch import guided_diffusion" in Path("run/config.yaml").read_text().splitlines()[0]
    smallbatch("report", "runs=run", "out=page.html")
    assert "weights=weights.pt" in Path("page.html").read_text()
    begun = config(*TINY, *LIKE, "init_from=run")
    begun = build(begun, from_config(begun.run)).denoiser.network.state_dict()
    assert all(torch.equal(begun[name], weight) for name, weight in made.state_dict().items())


def test_scores_say_that_nobody_knows_what_an_imported_model_was_trained_on():
    data = from_config(config(*TINY).data, "data")
    assert evaluate.compared("", data) == ["which images the model was trained on is not known"]
    assert evaluate.compared("other", data) and not evaluate.compared(data.fingerprint, data)


class Runs:
    """What a pickle may hold, and no file of weights."""

    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    "saved, line",
    [
        ({"a": Runs()}, "weights=weights.pt is refused, for it holds more than tensors, posix.system"),
        ({"state_dict": {"a": torch.ones(1)}}, "is a checkpoint, but not of weights by name alone"),
        (torch.ones(3), "is a checkpoint, but not of weights by name alone"),
        (b"some text", "weights=weights.pt is no checkpoint, or a damaged one"),
        (None, "weights=weights.pt is no file"),
    ],
    ids=["unsafe", "nested", "tensor", "text", "missing"],
)
def test_a_file_that_holds_no_weights_is_refused_unread(saved, line, refused):
    if isinstance(saved, bytes):
        Path("weights.pt").write_bytes(saved)
    elif saved is not None:
        torch.save(saved, "weights.pt")
    assert line in refused(*IMPORT, "model=64x64_diffusion")
    assert not Path("run").exists() and not Path("ran").exists()


def test_weights_that_do_not_fit_are_named_and_the_model_that_they_fit(refused, monkeypatch):
    few = ["256x256_diffusion", "256x256_diffusion_uncond", "64_256_upsampler", "lsun_cat"]  # each takes its time
    monkeypatch.setattr(import_guided_diffusion, "models", lambda: few)
    with torch.device("meta"):
        shapes = shapes_of(published(UNet(ImageSpec(3, 256, 0), 2, **settings("unet_imagenet256"))))
    torch.save({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}, "weights.pt")
    line = refused(*IMPORT, "model=256x256_diffusion")
    assert "does not fit: label_emb.weight is missing; it fits model=256x256_diffusion_uncond or model=lsun_cat" in line
    assert line.endswith("lsun_cat")


def settings(name):
    chosen = config(f"network={name}").network
    return {key: value for key, value in chosen.items() if not key.startswith("_")} | {"class_conditional": False}


def test_the_first_names_that_differ_are_said():
    wanted = {"same": (1,), "a": (2, 3), "b": (4,), "c": (5,)}
    said = misfit(wanted, {"same": (1,), "a": (3, 2), "other": (4,), "d": ()})
    assert said == "a has shape (3, 2), not (2, 3); b is missing; c is missing, and 2 more"
    assert misfit({}, {"other": (4,)}) == "other is not of this model" and misfit(wanted, wanted) is None


@pytest.mark.parametrize(
    "words, line",
    [
        ([], "model= is missing: 128_512_upsampler, 128x128_diffusion"),
        (["model=64_diffusion"], "model=64_diffusion is not known; nearest: 64x64_diffusion"),
        (["model=64x64_diffusion", "images=-1"], "images=-1 must be a whole number"),
        (["data.size=many"], "data.size=many must lie in 1..4096"),
        (["data.size=32", "data.low_size=5"], "data.low_size=5 does not divide 32"),
        (["model=64x64_diffusion", "schedule.steps=50"], "clock.steps=1000, but schedule.steps=50"),
        (["data.size=32", "network=dit_b"], "guided-diffusion's network is a U-Net, not"),
        (["model=64x64_diffusion", "out=."], "out=. is there already"),
    ],
)
def test_a_wrong_word_is_refused(words, line, refused):
    assert line in refused(*IMPORT, *words)


def test_every_model_of_the_readme_has_its_name():
    sizes = {f"{size}x{size}_diffusion" for size in (64, 128, 256, 512)} | {"256x256_diffusion_uncond"}
    lsun = {f"lsun_{name}" for name in ("bedroom", "cat", "horse", "horse_nodropout")}
    assert set(models()) == sizes | lsun | {"64_256_upsampler", "128_512_upsampler"}


@pytest.mark.skipif("GUIDED_DIFFUSION" not in os.environ, reason="GUIDED_DIFFUSION= names a checkout of its code")
def test_imported_weights_do_what_they_do_in_guided_diffusion(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import parity

    folder = os.environ["GUIDED_DIFFUSION"]
    parity.load(folder)
    (model,) = [one for one in parity.readme(folder) if one.name == "64x64_diffusion"]
    output, ddpm, ddim = parity.compare(model)
    assert output < 1e-5 and ddpm < 1e-4 and ddim < 1e-4
