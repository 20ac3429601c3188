"""CLIP score: how near CLIP puts images to what their prompts say."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.metrics.extractors import lent
from smallbatch.metrics.judged import Score
from smallbatch.metrics.looking import Stream
from smallbatch.metrics.prompted import Fit, Judge
from smallbatch.metrics.weights import SHOWN, sha256_of
from smallbatch.notation import ImageSpec, Pixels
from smallbatch.text.encoder import cut_off
from smallbatch.text.published import Transformers


@dataclass(frozen=True)
class ClipJudge(Judge):
    """100 times the cosine between CLIP's embeddings of image and prompt, Hessel et al. 2021 (2104.08718), eq. 1.

    As text to image is scored, the factor is 100 instead of 2.5, and a cosine below 0 stays what it is, so that means
    have standard errors; such means are torchmetrics' wherever they are above 0. `name`, `revision`: as in Published.
    """

    score = "clip_score"

    name: str
    revision: str | None = None

    def prepare(self, spec: ImageSpec) -> None:
        if spec.channels not in (1, 3):
            raise UserError(f"metrics.scores={self.score} needs grey or colour images, not {spec.channels} channels")
        self.published.read_config(("clip",))
        _ = self.processor, self.model

    def fit(self, prompts: Sequence[str], device: torch.device) -> "ClipScore":
        return ClipScore(self, prompts, device)

    @cached_property
    def published(self) -> Transformers:
        Transformers.need(f"metrics.scores={self.score}")
        from transformers import CLIPConfig, CLIPModel, CLIPProcessor

        return Transformers("metrics.clip.name", self.name, self.revision, CLIPModel, CLIPProcessor, CLIPConfig)

    @cached_property
    def processor(self) -> Any:
        return self.published.read_tokenizer()

    @cached_property
    def model(self) -> nn.Module:
        with torch.inference_mode(False):
            return self.published.read_model(torch.float32).requires_grad_(False)

    @cached_property
    def identity(self) -> str:
        return f"clip {self.name} {sha256_of(self.model.state_dict())[:SHOWN]}"


class ClipScore(Fit):
    """Adds up scores and their squares. What CLIP does not hear of a long prompt is cut off, and said in a mark."""

    def __init__(self, clip: ClipJudge, prompts: Sequence[str], device: torch.device):
        self.clip, self.device = clip, device
        tokenizer, longest = clip.processor.tokenizer, clip.model.config.text_config.max_position_embeddings
        whole = tokenizer(list(prompts), verbose=False)["input_ids"]
        self.marks = cut_off([len(tokens) for tokens in whole], longest, "tokens")
        to_length = {"padding": "max_length", "truncation": True, "max_length": longest}
        self.tokens = tokenizer(list(prompts), **to_length, return_tensors="pt")
        self.sums = torch.zeros(3, dtype=torch.float64)  # images, scores, their squares

    def look(self, images: Stream) -> Stream:
        with lent(self.clip.model, self.device) as model:
            for numbers, pixels in images:
                heard = {name: tokens[numbers].to(self.device) for name, tokens in self.tokens.items()}
                found = model(**heard, pixel_values=self._shown(pixels))
                score = 100 * (found.image_embeds * found.text_embeds).sum(dim=1).double().cpu()
                self.sums += torch.stack([torch.ones_like(score), score, score.square()]).sum(dim=1)
                yield numbers, pixels

    def _shown(self, pixels: Pixels) -> Float[Tensor, "b 3 side side"]:
        """Enlarged and centred as CLIP saw its images."""
        in_colour = pixels.to(self.device).expand(-1, 3, -1, -1)
        return self.clip.processor.image_processor(images=[*in_colour], return_tensors="pt")["pixel_values"]

    @property
    def scores(self) -> list[Score]:
        """The mean with its standard error."""
        n, (total, squares) = int(self.sums[0]), self.sums[1:].tolist()
        error = (max(squares - total**2 / n, 0.0) / (n - 1) / n) ** 0.5 if n > 1 else None
        return [Score(f"{self.clip.score}@{n}", total / n, n, self.clip.identity, error=error, marks=self.marks)]
