"""Images/s of `smallbatch train` against a bare PyTorch loop over the same network, optimizer and data.

    python benchmarks/loop.py [overrides of smallbatch train, e.g. network=unet data.size=32 trainer=gpu]

Both run in one process and take turns, a few steps each, so that whatever else the machine does slows both alike. The
bare loop draws times and noise, does forward, backward and the optimizer step, and nothing else: no averages of the
weights, no clipping, no record, no keyed randomness. Our side does all that `train` does between two validations.
"""

import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from smallbatch.callbacks.cadence import StepCallback
from smallbatch.callbacks.record import MetricsFile
from smallbatch.cli.main import conf_dir, quiet
from smallbatch.cli.resume import Start
from smallbatch.cli.train import build, fit
from smallbatch.notation import Condition

STEPS, ROUNDS, WARM_UP = 10, 24, 2  # steps per turn; turns counted, after those that are not


class BareLoop:
    """The loop that one would write by hand, for a cosine schedule and v."""

    def __init__(self, module, data, compiled):
        device = module.device
        self.network = copy.deepcopy(module.denoiser.network)
        if compiled:
            self.network.compile()
        self.optimizer = module.optimizer(self.network.parameters())
        self.pixels, self.labels = data.train_store.pixels.to(device), data.train_store.labels.to(device)
        self.batch, self.precision = module.batch, module.trainer.precision_plugin

    def step(self):
        rows = torch.randint(len(self.pixels), (self.batch,), device=self.pixels.device)
        x0 = self.pixels[rows].float() / 127.5 - 1
        angle = torch.rand(len(x0), device=x0.device) * torch.pi / 2
        alpha, sigma = angle.cos().view(-1, 1, 1, 1), angle.sin().view(-1, 1, 1, 1)
        eps = torch.randn_like(x0)
        condition = Condition(self.labels[rows])
        with self.precision.forward_context():
            out = self.network(alpha * x0 + sigma * eps, angle * 2000 / torch.pi, condition, None)
        loss = (out.float() - (alpha * eps - sigma * x0)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class TakeTurns(StepCallback):
    def __init__(self, compiled):
        self.compiled, self.ours, self.bare = compiled, [], []

    def on_train_start(self, trainer, module):
        self.loop = BareLoop(module, trainer.datamodule, self.compiled)
        self.clock = self.now(module)

    def now(self, module):
        if module.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step(self, trainer, module):
        if module.global_step % STEPS:
            return
        half = self.now(module)
        for _ in range(STEPS):
            self.loop.step()
        end = self.now(module)
        self.ours.append(STEPS * module.batch / (half - self.clock))
        self.bare.append(STEPS * module.batch / (end - half))
        self.clock = self.now(module)


def main(overrides):
    quiet()
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(conf_dir()), version_base="1.3"):
        never = [f"{what}.every_images=null" for what in ("validation", "samples", "checkpoint")]
        config = compose("train", ["experiment=digits", *never, "validation.count=1", "samples.rows=1", *overrides])
        config.budget.images = STEPS * (ROUNDS + WARM_UP) * config.batch
        objects = instantiate(config.run, _convert_="all")
        turns = TakeTurns(config.compile)
        objects["callbacks"] |= {"turns": turns, "checkpoint": objects["callbacks"].pop("checkpoint")}
        fit(config, objects, build(config, objects), Path(folder), MetricsFile(folder), Start(None, 0, 0.0, 0.0))
    ours, bare = turns.ours[WARM_UP:], turns.bare[WARM_UP:]
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"ours {statistics.median(ours):.0f} images/s, bare {statistics.median(bare):.0f} images/s")
    print(f"ratio {statistics.median(ratios):.3f}  (middle half {low:.3f}..{high:.3f} of {len(ratios)} pairs)")


if __name__ == "__main__":
    main(sys.argv[1:])
