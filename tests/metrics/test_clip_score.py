"""CLIP scores are those of transformers and torchmetrics, on a model of the real class with random weights."""

import huggingface_hub
import pytest
import torch
from torch import nn
from torchmetrics.multimodal.clip_score import CLIPScore

from smallbatch.data.shapes import Shapes
from smallbatch.errors import UserError
from smallbatch.metrics.clip_score import ClipJudge
from smallbatch.metrics.looking import Samples
from smallbatch.metrics.prompted import Prompted
from smallbatch.metrics.validity import Seen
from smallbatch.notation import ImageSpec

CPU = torch.device("cpu")
PROMPTS = ["a red cat", "cat", "", "a cat red", "red", "acat", "cat cat", "a red cat"]
SPEC = ImageSpec(3, 12, 0)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    from tests.text.models import save_whole_clip

    folder = tmp_path_factory.mktemp("clip")
    save_whole_clip(folder)
    made = ClipJudge(str(folder))
    made.prepare(SPEC)
    return made


def pixels(channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (len(PROMPTS), channels, 12, 12), generator=generator).byte()


def scored(judge, images, prompts=PROMPTS, batch=3):
    fit = judge.fit(prompts, CPU)
    for numbers in torch.randperm(len(prompts), generator=torch.Generator().manual_seed(1)).split(batch):
        for seen, _ in fit.look([(numbers, images[numbers])]):
            assert torch.equal(seen, numbers)
    (score,) = fit.scores
    return score


def by_hand(judge, images, prompts=PROMPTS):
    """From the two encoders and their projections."""
    given = judge.processor(text=prompts, images=[*images], padding=True, return_tensors="pt")
    with torch.no_grad():
        image = judge.model.visual_projection(judge.model.vision_model(given["pixel_values"]).pooler_output)
        text = judge.model.text_projection(judge.model.text_model(given["input_ids"]).pooler_output)
    return 100 * torch.cosine_similarity(image.double(), text.double())


class Unwrapped(nn.Module):
    """torchmetrics 1.9 takes what transformers 5 answers for a tensor."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, *given):
        return self.model.get_image_features(*given).pooler_output

    def get_text_features(self, *given):
        return self.model.get_text_features(*given).pooler_output


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_score_is_100_cosines_however_images_pass(batch, judge):
    found, wanted = scored(judge, pixels(), batch=batch), by_hand(judge, pixels())
    assert found.value == pytest.approx(wanted.mean().item(), rel=1e-5)
    assert found.error == pytest.approx((wanted.std() / len(wanted) ** 0.5).item(), rel=1e-5)
    assert found.name == "clip_score@8" and found.n == 8 and found.extractor.startswith(f"clip {judge.name} ")


def test_where_the_mean_is_above_0_it_is_torchmetrics(judge):
    chosen = (by_hand(judge, pixels()) > 0).nonzero().flatten()
    images, prompts = pixels()[chosen], [PROMPTS[i] for i in chosen]
    theirs = CLIPScore(lambda: (Unwrapped(judge.model), judge.processor))(images, prompts)
    assert 0 < theirs.item() == pytest.approx(scored(judge, images, prompts).value, rel=1e-5)


def test_image_i_is_held_against_prompt_i(judge):
    assert abs(scored(judge, pixels(), PROMPTS[::-1]).value - scored(judge, pixels()).value) > 1e-3


def test_grey_images_are_shown_in_all_three_channels(judge):
    grey = pixels(1)
    assert scored(judge, grey).value == pytest.approx(
        by_hand(judge, grey.expand(-1, 3, -1, -1)).mean().item(), rel=1e-5
    )
    with pytest.raises(UserError, match="needs grey or colour images, not 4 channels"):
        judge.prepare(ImageSpec(4, 12, 0))


def test_a_long_prompt_is_heard_up_to_its_end_and_marked(judge):
    """With the token that ends it, where CLIP gathers what was said: without it nothing of the text would be heard."""
    long = ["quick brown fox", *PROMPTS[1:]]
    other = ["quick brown cat", *PROMPTS[1:]]
    found = scored(judge, pixels(), long)
    assert found.marks == ["1 of 8 captions is longer than 12 tokens: its end is cut off"]
    heard = ["quick brow", *PROMPTS[1:]]  # with its two ends 12 tokens
    assert scored(judge, pixels(), heard).marks == []
    assert found.value == pytest.approx(scored(judge, pixels(), other).value) != scored(judge, pixels()).value


def test_real_images_are_scored_beside_samples_once(judge):
    data = Shapes(batch=4, seed=0, size=16)
    told, samples = Prompted(judge, data, batch=5), Samples(8, [(torch.arange(8), pixels())], Seen(3), prompts=PROMPTS)
    found = []
    for marks in (["drawn"], ["drawn again"]):
        fit = told.fit(samples)
        assert len([*fit.look(samples.images)]) == 1
        found.append(told.scores(fit, samples._replace(marks=marks)))
    (ours, real), (_, again) = found
    assert again is real
    assert ours.value == pytest.approx(scored(judge, pixels()).value, rel=1e-6) and ours.marks == ["drawn"]
    assert real.name == "clip_score_real@8" and real.marks == ["of held-out images and their captions"]
    assert real.error > 0 and real.value != ours.value


def test_a_model_that_is_not_there_or_another_is_refused_in_one_line(judge, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        ClipJudge("openai/clip-vit-base-patch16").prepare(SPEC)
    line = str(caught.value)
    assert line.startswith("metrics.clip.name=openai/clip-vit-base-patch16 is not on this machine and cannot be down")
    assert "for part in [CLIPModel, CLIPProcessor]]" in line and line.endswith("give that FOLDER as metrics.clip.name")
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="is a model of type t5: one of clip is needed"):
        ClipJudge(str(tmp_path)).prepare(SPEC)
