"""What a run would cost."""

import json
from functools import partial
from pathlib import Path

import torch
from omegaconf import OmegaConf

from smallbatch.cli import disk
from smallbatch.cli.plan import count, measure
from smallbatch.denoiser import Continuous, Denoiser
from smallbatch.masking import Deferred, Unmasked
from smallbatch.networks.dit import DiT
from smallbatch.networks.layers import Attention
from smallbatch.networks.network import Network
from smallbatch.notation import ImageSpec
from smallbatch.predictions import V
from tests.cli import TINY
from tests.leaves import SCHEDULES
from tests.tiny import Tiny


class Attending(Network):
    """Pixels as 4 tokens of 8 numbers."""

    def __init__(self, spec, outputs):
        super().__init__()
        self.classes = 0
        self.attention = Attention(8, heads=2)

    def forward(self, x, clock, condition, keep=None):
        tokens = self.attention(x.view(len(x), 4, 8).requires_grad_())
        return tokens.view(x.shape)


def planned(network, spec):
    with torch.device("meta"):
        return Denoiser(partial(network), SCHEDULES["cosine"], V(), Continuous(), spec)


def test_a_convolution_costs_two_flops_per_multiply_add_three_times():
    denoiser = planned(Tiny, ImageSpec(1, 8, 3))
    flops, kept = measure(denoiser, Unmasked())
    assert flops == 3 * 2 * 9 * 64  # forward, gradient of the input, gradient of the weight
    assert kept >= 4 * 64 and count(denoiser.network) == 9 + 1 + 3


def test_attention_counts_its_projections_and_both_products():
    flops, _ = measure(planned(Attending, ImageSpec(2, 4, 0)), Unmasked())
    n, d = 4, 8
    assert flops == 3 * 2 * (n * d * 3 * d + n * d * d + 2 * n * n * d)


def test_hidden_patches_cost_nothing_and_a_ratio_that_falls_is_counted_by_its_parts():
    network = partial(DiT, patch=2, width=16, depth=4, heads=2, mixer=1, decoder=1)
    denoiser = planned(network, ImageSpec(1, 8, 0))
    flops = {ratio: measure(denoiser, Deferred(list(ratio)))[0] for ratio in ((0,), (0.5,), (0.75,), (0.75, 0.5, 0))}
    assert flops[0.75,] < flops[0.5,] < flops[0,] == measure(denoiser, Unmasked())[0]
    assert flops[0.75, 0.5, 0] == round(sum(flops[ratio] for ratio in ((0,), (0.5,), (0.75,))) / 3)
    assert measure(denoiser, Deferred([0.75, 0]))[1] == measure(denoiser, Unmasked())[1]  # room for the largest part


def test_the_disk_holds_three_checkpoints_two_exports_and_the_snapshots():
    ema = {"profiles": {"a": {}, "b": {}}, "snapshot_every_images": None}
    config = OmegaConf.create({"ema": ema, "budget": {"images": 1000}})
    assert disk.needed(100, config) == 3 * 400 * 5 + 2 * 400
    config.ema.snapshot_every_images = 100
    assert disk.needed(100, config) == 3 * 400 * 5 + 2 * 400 + 10 * 2 * 200


def test_a_checkpoint_is_as_large_as_planned(smallbatch, trained):
    run = trained(*TINY)
    smallbatch("train", *TINY, "dry_run=true", "out=plan.json")
    planned = json.loads(Path("plan.json").read_text())["disk_bytes"]
    last = (run / "checkpoints" / "last.ckpt").stat().st_size
    written = 3 * last + 2 * (run / "model.safetensors").stat().st_size
    assert 0.7 < planned / written < 1  # so small a network is half headers


def test_no_room_for_the_checkpoints_is_refused_before_training(refused, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda path: 10_000)
    assert "10.0 kB are free for" in (line := refused("train", *TINY)) and "give root= on another disk" in line
    assert not Path("runs").exists()
