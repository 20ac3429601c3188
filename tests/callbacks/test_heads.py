from functools import partial

import lightning as L
import pytest
import torch
from tests.leaves import PATHS, SCHEDULES
from tests.tiny import tiny_denoiser
from torch.utils.data import DataLoader

from smallbatch.callbacks.heads import MEASURED, Heads, measured
from smallbatch.callbacks.record import MetricsFile
from smallbatch.densities import Uniform
from smallbatch.draws import Stratified
from smallbatch.fusing import ClosedForm, Gate
from smallbatch.learning_rates import LinearCooldown
from smallbatch.masking import Unmasked
from smallbatch.mixtures import HEADS, Mixture
from smallbatch.module import DiffusionModule
from smallbatch.notation import Batch, Condition, Observed
from smallbatch.objective import Objective
from smallbatch.predictions import V
from smallbatch.recorded import read
from smallbatch.tables import LinearBetas
from smallbatch.teaching import OnHeads
from smallbatch.timesteps import Timesteps
from smallbatch.variances import LearnedVariance
from smallbatch.weightings import Plain

BATCH, MICROS = 8, 2
IMAGES = torch.rand(24, BATCH // MICROS, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def train(folder, prediction, steps, resume=None, schedule=SCHEDULES["cosine"]):
    """Records once, after four steps."""
    objective = Objective(Timesteps(Stratified(), Uniform()), Plain(), Unmasked())
    adamw, rate = partial(torch.optim.AdamW, lr=1e-3), LinearCooldown()
    module = DiffusionModule(tiny_denoiser(schedule, prediction), objective, adamw, rate, BATCH, seed=0)
    (folder / "metrics.jsonl").parent.mkdir(exist_ok=True)
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=MICROS,
        callbacks=[Heads(every_images=4 * BATCH)],
        logger=[MetricsFile(folder)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = 0 if resume is None else torch.load(resume, weights_only=True)["global_step"] * MICROS
    batches = [Batch(x0, Condition(torch.zeros(len(x0), dtype=torch.long))) for x0 in IMAGES[start:]]
    trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=resume, weights_only=True)
    return trainer, module


def by_name(folder):
    figures = {}
    for row in read(folder):
        figures.setdefault(row["name"], {})[row["logsnr"]] = (row["value"], row["n"])
    return figures


def test_what_is_measured_follows_from_the_gram_and_the_log_snr():
    gram = torch.diag_embed(torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
    none, logsnr = torch.zeros(3), torch.tensor([2.0, -2.0, -9.0])
    rows = measured(Observed(none, none, logsnr, none, none, none, none, torch.zeros(3, 3), gram))
    wins, wins_raw = rows[:, 3:6].argmax(dim=1), rows[:, 6:9].argmax(dim=1)
    assert torch.equal(rows[:, :3].float(), torch.diagonal(gram, dim1=1, dim2=2))
    assert wins.tolist() == [2, 0, 2] and wins_raw.tolist() == [0, 1, 1] and rows[:, 9].tolist() == [1, 1, 1]


def test_a_mixture_records_errors_wins_and_weights_of_every_row(tmp_path):
    train(tmp_path, Mixture(ClosedForm(), OnHeads()), 4)
    figures = by_name(tmp_path)
    assert set(figures) == {*MEASURED, *(f"heads/{head}_weight" for head in HEADS)}
    assert sum(n for _, n in figures["heads/v_v_mse"].values()) == 4 * BATCH
    for what in ("wins", "wins_raw", "weight"):
        for logsnr in figures["heads/v_v_mse"]:
            total = sum(figures[f"heads/{head}_{what}"][logsnr][0] for head in HEADS)
            assert total == pytest.approx(1, abs=1e-6)


def test_the_recorded_weight_is_that_of_the_bins_centre(tmp_path):
    train(tmp_path, Mixture(ClosedForm(), OnHeads()), 4)
    for logsnr, (weight, _) in by_name(tmp_path)["heads/x0_weight"].items():
        assert weight == pytest.approx(torch.tensor(-logsnr).sigmoid().item() / 2, rel=1e-4)


def test_one_head_records_nothing(tmp_path):
    train(tmp_path, V(), 4)
    assert read(tmp_path) == []


def test_heads_under_a_learned_variance_are_recorded(tmp_path):
    table = LinearBetas(PATHS["preserving"])
    train(tmp_path, LearnedVariance(Mixture(ClosedForm(), OnHeads()), table), 4, schedule=table)
    assert "heads/eps_weight" in by_name(tmp_path)


def test_a_resumed_gate_and_its_record_go_on_bit_for_bit(tmp_path):
    def mixture():
        return Mixture(Gate(halflife_images=1000), OnHeads())

    _, whole = train(tmp_path / "whole", mixture(), 4)
    half, _ = train(tmp_path / "halves", mixture(), 2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = train(tmp_path / "halves", mixture(), 4, resume=tmp_path / "half.ckpt")
    expected, got = whole.state_dict(), resumed.state_dict()
    assert "denoiser.prediction.fuse.gram.total" in got and expected.keys() == got.keys()
    assert all(torch.equal(got[name], value) for name, value in expected.items())
    assert by_name(tmp_path / "halves") == by_name(tmp_path / "whole")
