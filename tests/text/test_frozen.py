"""Frozen encoders, with models of the real classes: they hear what transformers hears, and refuse what they cannot."""

import json
import shlex

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from smallbatch.errors import UserError
from smallbatch.notation import Text, TextSpec
from smallbatch.text.clip import Clip
from smallbatch.text.t5 import T5

CAPTIONS = ["a red cat", "red", ""]


HEARD = {Clip: ["input_ids"], T5: ["input_ids", "attention_mask"]}  # the published MicroDiT gives CLIP no mask


def theirs(encoder, tokens):
    model = encoder.published.model.from_pretrained(encoder.name).eval()
    return model(**{name: tokens[name] for name in HEARD[type(encoder)]}).last_hidden_state


def refusal(act):
    with pytest.raises(UserError) as caught:
        act()
    line = str(caught.value)
    assert "\n" not in line
    return line


def copied(folder, to, leave_out=()):
    for file in folder.iterdir():
        if file.name not in leave_out:
            (to / file.name).write_bytes(file.read_bytes())
    return to


def test_features_are_those_of_transformers_for_the_same_tokens(encoder):
    tokens = encoder.tokens(CAPTIONS)
    given = encoder.published.tokenizer.from_pretrained(encoder.name)(
        CAPTIONS, padding="max_length", max_length=12, return_tensors="pt"
    )
    heard = encoder.features(tokens)
    assert torch.equal(tokens.value, given["input_ids"])
    assert torch.equal(tokens.mask, given["attention_mask"].bool())
    assert torch.equal(heard.mask, tokens.mask)
    torch.testing.assert_close(heard.value, theirs(encoder, given))
    assert heard.value.shape == (3, encoder.spec.length, encoder.spec.width)


def test_features_come_after_the_last_norm(clip_folder, t5_folder):
    clip, t5 = (kind(str(folder), length=12) for kind, folder in ((Clip, clip_folder), (T5, t5_folder)))
    of_clip, of_t5 = (one.features(one.tokens(CAPTIONS)).value for one in (clip, t5))
    torch.testing.assert_close(of_clip.mean(dim=2), torch.zeros(3, 12), rtol=0, atol=1e-5)
    torch.testing.assert_close(of_clip.var(dim=2, correction=0), torch.ones(3, 12), rtol=1e-3, atol=0)
    torch.testing.assert_close(of_t5.square().mean(dim=2), torch.ones(3, 12), rtol=1e-3, atol=0)


def test_real_tokens_do_not_depend_on_the_padding(encoder):
    short = type(encoder)(encoder.name, length=9)
    padded = type(encoder)(encoder.name, length=12, pad=3)
    whole = encoder.features(encoder.tokens(CAPTIONS[:2]))
    for other in short, padded:
        heard = other.features(other.tokens(CAPTIONS[:2]))
        real = heard.mask[:, : other.length]
        assert real.sum(dim=1).tolist() == whole.mask.sum(dim=1).tolist()
        torch.testing.assert_close(heard.value[real], whole.value[:, : other.length][real], rtol=1e-5, atol=1e-6)


def test_clip_hears_the_padding_that_it_is_given(clip_folder):
    own, zero = Clip(str(clip_folder), length=12), Clip(str(clip_folder), length=12, pad=0)
    padding = ~own.tokens(CAPTIONS).mask
    assert (zero.tokens(CAPTIONS).value[padding] == 0).all()
    assert (own.tokens(CAPTIONS).value[padding] != 0).all()
    own, zero = (one.features(one.tokens(CAPTIONS)).value[padding] for one in (own, zero))
    assert (own - zero).abs().amax(dim=1).min() > 1e-3


def test_a_real_token_with_the_paddings_number_stays_real(clip_folder):
    """OpenCLIP pads with 0, which is a piece of a word as well."""
    tokens = Clip(str(clip_folder), length=12, pad=0).tokens(["!!a"])
    assert 0 in tokens.value[tokens.mask]


def test_the_end_of_a_long_caption_is_cut_off_before_the_token_that_ends_it_and_said(encoder):
    long = "quick brown fox jumps"
    tokens, short = encoder.tokens([long, "red"])[0], encoder.tokens(["red"])
    ending = short.value[0][short.mask[0]][-1]
    assert tokens[0, -1] == ending
    assert encoder.misfits([long, "red"]) == ["1 of 2 captions is longer than 12 tokens: its end is cut off"]
    assert encoder.misfits([long, "red", long])[0].startswith("2 of 3 captions are longer than 12 tokens")
    assert encoder.misfits(["red"]) == []


def test_a_row_that_says_nothing_has_finite_features(encoder):
    tokens = encoder.tokens(CAPTIONS)
    silent = Text(tokens.value, torch.zeros_like(tokens.mask))
    assert encoder.features(silent).value.isfinite().all()


def test_nothing_of_the_encoder_is_trained_or_saved_and_no_random_number_is_taken(encoder):
    module = nn.Module()
    module.text = type(encoder)(encoder.name, length=11)
    before = torch.random.get_rng_state()
    heard = module.text.features(module.text.tokens(CAPTIONS))
    assert not heard.value.requires_grad
    assert not module.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_autocast_changes_no_feature(encoder):
    tokens = encoder.tokens(CAPTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        under = encoder.features(tokens).value
    assert torch.equal(under, encoder.features(tokens).value)


def test_what_is_described_hears_the_same(encoder, monkeypatch, tmp_path):
    there = type(encoder)(encoder.name, length=9, pad=2)
    described = there.described()
    assert described.pop("_target_") == f"{type(encoder).__module__}.{type(encoder).__name__}"
    monkeypatch.chdir(tmp_path)
    assert type(encoder)(**json.loads(json.dumps(described))) == there


def test_a_folder_is_described_so_that_it_is_found_from_anywhere(clip_folder, monkeypatch):
    monkeypatch.chdir(clip_folder.parent)
    assert Clip(clip_folder.name).described()["name"] == str(clip_folder)
    assert Clip("openai/clip").described()["name"] == "openai/clip"


def test_the_text_encoder_of_a_whole_clip_is_read(clip_folder, tmp_path):
    from tests.text.models import whole_clip

    whole = whole_clip()
    whole.save_pretrained(tmp_path)
    encoder = Clip(str(copied(clip_folder, tmp_path, ("config.json", "model.safetensors"))), length=12)
    tokens = encoder.tokens(CAPTIONS)
    expected = whole.text_model(input_ids=tokens.value).last_hidden_state
    torch.testing.assert_close(encoder.features(tokens).value, expected, rtol=0, atol=0)


def test_the_spec_needs_the_config_only(clip_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((clip_folder / "config.json").read_bytes())
    encoder = Clip(str(tmp_path), length=12)
    assert encoder.spec == TextSpec(length=12, width=32)
    assert "holds no tokenizer" in refusal(lambda: encoder.tokens(CAPTIONS))
    tokens = Clip(str(clip_folder), length=12).tokens(CAPTIONS)
    assert "no weights as safetensors" in refusal(lambda: encoder.features(tokens))


@pytest.mark.parametrize("kind", [Clip, T5])
def test_a_model_that_is_not_there_is_refused_in_one_line_with_what_to_do(kind, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    line = refusal(lambda: kind("nobody/no-such-model", revision="refs/pr/3").spec)
    assert line.startswith("text.name=nobody/no-such-model is not on this machine and cannot be downloaded (")
    assert 'from_pretrained("nobody/no-such-model", revision="refs/pr/3").save_pretrained("FOLDER")' in line
    assert "is not on this machine" in refusal(lambda: kind("no/such/folder").spec)


def test_pickled_weights_are_refused_and_the_command_that_is_named_makes_a_folder_without_them(
    clip_folder, tmp_path, monkeypatch
):
    from tests.text.models import whole_clip

    whole, held = whole_clip(), copied(clip_folder, tmp_path, ("model.safetensors", "config.json"))
    whole.config.save_pretrained(held)
    torch.save(whole.state_dict(), held / "pytorch_model.bin")
    encoder = Clip(str(held), length=12)
    tokens = encoder.tokens(CAPTIONS)
    line = refusal(lambda: encoder.features(tokens))
    run(line, monkeypatch, tmp_path)
    heard = Clip(str(tmp_path / "FOLDER"), length=12).features(tokens)
    torch.testing.assert_close(heard.value, whole.text_model(input_ids=tokens.value).last_hidden_state, rtol=0, atol=0)


def run(line, monkeypatch, folder):
    """The command of a refusal, in this process: importing transformers once is enough."""
    python, option, code = shlex.split(line[line.index("python -c ") : line.index(", and give that FOLDER")])
    assert (python, option) == ("python", "-c")
    monkeypatch.chdir(folder)
    exec(code, {})


class Trap:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_no_pickle_is_run_neither_here_nor_by_the_command(clip_folder, tmp_path, monkeypatch):
    held = copied(clip_folder, tmp_path, ("model.safetensors",))
    torch.save({"trap": Trap(tmp_path / "sprung")}, held / "pytorch_model.bin")
    encoder = Clip(str(held), length=12)
    line = refusal(lambda: encoder.features(encoder.tokens(CAPTIONS)))
    with pytest.raises(Exception, match="Weights only load failed"):
        run(line, monkeypatch, tmp_path)
    (held / "model-of-something-else.safetensors").write_bytes(b"")
    assert "cannot be read" in refusal(lambda: encoder.features(encoder.tokens(CAPTIONS)))
    assert not (tmp_path / "sprung").exists()


def test_weights_that_lack_some_are_refused(clip_folder, tmp_path):
    """transformers would draw them at random."""
    weights = load_file(copied(clip_folder, tmp_path) / "model.safetensors")
    del weights["final_layer_norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    encoder = Clip(str(tmp_path), length=12)
    line = refusal(lambda: encoder.features(encoder.tokens(CAPTIONS)))
    assert "lacks 1 of the weights, as final_layer_norm.weight" in line


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_broken_file_is_refused(encoder, tmp_path, file):
    there = copied(type(tmp_path)(encoder.name), tmp_path)
    (there / file).write_bytes(b"{broken")
    broken = type(encoder)(str(there), length=12)
    line = refusal(lambda: broken.features(broken.tokens(CAPTIONS)))
    assert line.startswith(f"text.name={there} cannot be read (")


def test_a_model_of_another_kind_is_refused(clip_folder, t5_folder):
    assert "is a model of type t5: one of clip or clip_text_model" in refusal(lambda: Clip(str(t5_folder)).spec)
    assert "is a model of type clip_text_model: one of t5" in refusal(lambda: T5(str(clip_folder)).spec)


def test_what_the_model_cannot_hear_is_refused(clip_folder):
    name = str(clip_folder)
    assert "text.length=77" in refusal(lambda: Clip(name).spec)
    assert "2 to 12 tokens" in refusal(lambda: Clip(name, length=1).spec)
    assert "text.pad=59: " in refusal(lambda: Clip(name, length=12, pad=59).spec)
    assert Clip(name, length=12, pad=58).spec.length == 12
