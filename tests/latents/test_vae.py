"""A frozen autoencoder, with a model of the real class: what diffusers makes of images, shifted and scaled."""

import json
import shlex
import sys

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from smallbatch.errors import UserError
from smallbatch.latents.vae import Vae
from smallbatch.notation import ImageSpec

SPEC = ImageSpec(3, 16, 10)
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def x():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def eps():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def theirs(vae_folder):
    from diffusers import AutoencoderKL

    with torch.no_grad():
        yield AutoencoderKL.from_pretrained(vae_folder)


@pytest.fixture
def copied(vae_folder, tmp_path):
    for file in vae_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def refusal(act):
    with pytest.raises(UserError) as caught:
        act()
    line = str(caught.value)
    assert "\n" not in line
    return line


def restated(folder, **settings):
    """The config with these values; None: left out."""
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({key: one for key, one in config.items() if one is not None}))
    return Vae(str(folder))


@pytest.mark.parametrize("given, shift, scale", [({}, 0.25, 0.5), ({"shift": -1.0, "scale": 3.0}, -1.0, 3.0)])
def test_latents_are_the_posteriors_mean_or_a_sample_of_it_shifted_and_scaled(
    vae_folder, theirs, x, eps, given, shift, scale
):
    posterior = theirs.encode(x).latent_dist
    mean, sampled = (Vae(str(vae_folder), draw=draw, **given).encode(x, eps) for draw in ("mean", "sampled"))
    assert torch.equal(mean, (posterior.mean - shift) * scale)
    assert torch.equal(sampled, (posterior.mean + posterior.std * eps - shift) * scale)


def test_images_are_diffusers_decoding_of_the_latents_scaled_and_shifted_back(vae_folder, theirs, x, eps):
    vae = Vae(str(vae_folder), draw="mean")
    torch.testing.assert_close(vae.decode(vae.encode(x, eps)), theirs(x).sample.clamp(-1, 1))
    z = 9 * eps
    assert torch.equal(vae.decode(z), theirs.decode(z / 0.5 + 0.25).sample.clamp(-1, 1))
    assert vae.decode(100 * z).abs().max() <= 1


def test_the_specs_are_those_of_what_is_made_and_inverses(vae_folder, x, eps):
    vae = Vae(str(vae_folder))
    latents, z = vae.latents(SPEC), vae.encode(x, eps)
    assert latents == ImageSpec(4, 8, 10, latents=True) and z.shape[1:] == (4, 8, 8)
    assert vae.images(latents) == SPEC
    assert vae.decode(z).shape == x.shape


def test_all_is_float32_and_autocast_changes_nothing(vae_folder, x, eps):
    vae = Vae(str(vae_folder))
    z = vae.encode(x, eps)
    with torch.autocast("cpu", torch.bfloat16):
        under, back = vae.encode(x, eps), vae.decode(z)
    assert torch.equal(under, z) and torch.equal(back, vae.decode(z))
    assert vae.encode(x.half(), eps.half()).dtype == vae.decode(z.half()).dtype == torch.float32


def test_nothing_is_trained_or_saved_and_no_random_number_is_taken(vae_folder, x, eps):
    module, before = nn.Module(), torch.random.get_rng_state()
    module.autoencoder = Vae(str(vae_folder))
    module.autoencoder.prepare()
    assert not module.autoencoder.encode(x, eps).requires_grad
    assert not module.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_described_is_equal_and_names_the_scale_and_the_shift_in_use(vae_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(vae_folder.parent)
    described = Vae(vae_folder.name, draw="mean").described()
    monkeypatch.chdir(tmp_path)
    given = json.loads(json.dumps(described))
    assert given.pop("_target_") == "smallbatch.latents.vae.Vae"
    assert given == {"name": str(vae_folder), "revision": None, "scale": 0.5, "shift": 0.25, "draw": "mean"}
    assert Vae(**given) == Vae(str(vae_folder), None, 0.5, 0.25, "mean") and Vae(**given).described() == described
    for other in {"scale": 0.6}, {"shift": 0.0}, {"draw": "sampled"}:
        assert Vae(**given | other).described() == described | other != described


def test_what_a_config_leaves_out_is_as_diffusers_has_it(copied):
    vae = restated(copied, scaling_factor=None, shift_factor=None)
    assert (vae.described()["scale"], vae.described()["shift"]) == (0.18215, 0.0)


def test_images_that_the_autoencoder_cannot_take_are_refused(vae_folder):
    vae = Vae(str(vae_folder))
    odd = refusal(lambda: vae.latents(SPEC._replace(size=15)))
    assert odd.startswith("data.size=15: ") and odd.endswith("use 14 or 16")
    assert refusal(lambda: vae.latents(SPEC._replace(size=1))).endswith("use 2")
    assert "takes images of 3 channels, and these have 1" in refusal(lambda: vae.latents(SPEC._replace(channels=1)))


@pytest.mark.parametrize("scale", [0.0, -0.5, float("nan"), float("inf")])
def test_a_scale_that_cannot_be_taken_back_is_refused(scale):
    assert refusal(lambda: Vae("name", scale=scale)).startswith(f"latents.scale={scale} ")


def test_other_bad_settings_are_refused():
    assert refusal(lambda: Vae("name", draw="mode")) == "latents.draw=mode is not known: use sampled or mean"
    assert refusal(lambda: Vae("name", shift=float("nan"))).startswith("latents.shift=nan ")


def test_a_model_that_is_not_there_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    line = refusal(Vae("nobody/no-such-model", revision="refs/pr/3").prepare)
    assert line.startswith("latents.name=nobody/no-such-model is not on this machine and cannot be downloaded (")
    assert 'from_pretrained("nobody/no-such-model", revision="refs/pr/3").save_pretrained("FOLDER")' in line


def test_pickled_weights_are_refused_and_the_command_that_is_named_makes_a_folder_without_them(
    vae_folder, copied, monkeypatch, x, eps
):
    torch.save(load_file(copied / WEIGHTS), copied / "diffusion_pytorch_model.bin")
    (copied / WEIGHTS).unlink()
    line = refusal(Vae(str(copied)).prepare)
    _, _, code = shlex.split(line[line.index("python -c ") : line.index(", and give that FOLDER as latents.name")])
    monkeypatch.chdir(copied)
    exec(code, {})
    assert torch.equal(Vae("FOLDER").encode(x, eps), Vae(str(vae_folder)).encode(x, eps))


def test_a_model_of_another_kind_is_refused(copied):
    line = refusal(restated(copied, _class_name="UNet2DModel").prepare)
    assert line.endswith("is a model of type UNet2DModel: one of AutoencoderKL is needed")


def test_weights_that_lack_some_are_refused(copied):
    """diffusers would leave them as the memory was."""
    weights = load_file(copied / WEIGHTS)
    del weights["decoder.conv_out.bias"]
    save_file(weights, copied / WEIGHTS, metadata={"format": "pt"})
    assert "lacks 1 of the weights, as decoder.conv_out.bias" in refusal(Vae(str(copied)).prepare)


@pytest.mark.parametrize("file", ["config.json", WEIGHTS])
@pytest.mark.parametrize("broken", [b"{broken", b"[]"])
def test_a_broken_file_is_refused(copied, file, broken):
    (copied / file).write_bytes(broken)
    assert refusal(Vae(str(copied)).prepare).startswith(f"latents.name={copied} cannot be read (")


@pytest.mark.parametrize("setting", [{"block_out_channels": 5}, {"norm_num_groups": 0}, {"latent_channels": 5}])
def test_a_config_that_makes_no_sense_is_refused(copied, setting):
    assert "cannot be read (" in refusal(restated(copied, **setting).prepare)


def test_a_config_with_a_scale_of_zero_is_refused(copied):
    assert refusal(restated(copied, scaling_factor=0).described).endswith("states no scale: give latents.scale")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.utils.logging", None)
    line = refusal(Vae("name").prepare)
    assert line.startswith("latents=vae needs its package (") and line.endswith("pip install 'smallbatch[latents]'")
