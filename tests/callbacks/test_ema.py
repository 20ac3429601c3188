from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallbatch.callbacks.ema import EMA
from smallbatch.ema import Halflife, Latest, Power
from smallbatch.errors import UserError
from smallbatch.posthoc import load_snapshots, reconstruct

BATCH, MICROS = 8, 2


class Module(L.LightningModule):
    """What the callback asks of a module: denoiser.network, window_ended, images, batch."""

    batch = BATCH

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 1))
        self.denoiser = nn.ModuleDict({"network": network})
        self.denoiser.network = network
        self.window_ended, self.trace = False, []

    @property
    def images(self) -> int:
        return self.global_step * BATCH

    def on_train_batch_start(self, batch, batch_idx):
        self.window_ended = False

    def training_step(self, batch, batch_idx):
        x = batch[0] + self.global_step
        return (self.denoiser.network(x) - x.sum(1, keepdim=True)).square().mean()

    def optimizer_step(self, *arguments, **keywords):
        super().optimizer_step(*arguments, **keywords)
        self.window_ended = True
        self.trace.append(self.denoiser.network[0].weight.detach().clone())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.01)


def ema(every: int | None = None) -> EMA:
    profiles = {
        "power_05": Power(0.05),
        "power_10": Power(0.10),
        "classic": Halflife(1000),
        "latest": Latest(),
    }
    return EMA(profiles, keep="power_10", snapshot_every_images=every)


def train(folder: Path, steps: int, callback: EMA, resume: Path | None = None) -> tuple[L.Trainer, Module]:
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=MICROS,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rows = torch.linspace(-1, 1, 10_000).reshape(-1, 2)
    module = Module()
    start = 0 if resume is None else torch.load(resume, weights_only=True)["global_step"] * BATCH
    data = DataLoader(TensorDataset(rows[start:]), batch_size=BATCH // MICROS)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return trainer, module


@pytest.fixture
def trained(tmp_path):
    callback = ema()
    trainer, module = train(tmp_path, 20, callback)
    return trainer, module, callback


def test_the_average_covers_every_optimizer_step_once(trained):
    _, module, callback = trained
    edges = torch.linspace(0, 1, 21, dtype=torch.float64) ** (Power(0.10).gamma + 1)
    exact = torch.einsum("s,shw->hw", edges.diff(), torch.stack(module.trace).double())
    torch.testing.assert_close(callback.weights()["0.weight"], exact.float())
    assert len(module.trace) == 20


def test_latest_equals_the_network_and_buffers_are_left_out(trained):
    _, module, callback = trained
    weights = callback.weights("latest")
    assert weights.keys() == dict(module.denoiser.network.named_parameters()).keys()
    assert all(torch.equal(weights[name], p) for name, p in module.denoiser.network.named_parameters())


def test_resuming_continues_every_average_bit_for_bit(tmp_path, trained):
    first, last = ema(), ema()
    trainer, _ = train(tmp_path, 10, first)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    train(tmp_path, 20, last, resume=tmp_path / "half.ckpt")
    for name in last.averages:
        whole = trained[2].weights(name)
        assert all(torch.equal(value, whole[key]) for key, value in last.weights(name).items())


def test_swapped_lends_the_named_average_and_gives_the_weights_back(trained):
    _, module, callback = trained
    before = module.denoiser.network[0].weight.detach().clone()
    for name in (None, "power_05"):
        with callback.swapped(module, name):
            assert callback.is_swapped
            assert torch.equal(module.denoiser.network[0].weight, callback.weights(name)["0.weight"])
        assert not callback.is_swapped
    assert torch.equal(module.denoiser.network[0].weight, before)


def test_saving_or_swapping_while_swapped_is_refused(tmp_path, trained):
    trainer, module, callback = trained
    with callback.swapped(module):
        with pytest.raises(RuntimeError, match="save"):
            trainer.save_checkpoint(tmp_path / "swapped.ckpt")
        with pytest.raises(RuntimeError, match="swap"), callback.swapped(module):
            pass
    assert not (tmp_path / "swapped.ckpt").exists() and not callback.is_swapped


def test_an_error_while_swapped_gives_the_weights_back(trained):
    _, module, callback = trained
    before = module.denoiser.network[0].weight.detach().clone()
    with pytest.raises(ZeroDivisionError), callback.swapped(module):
        1 / 0  # noqa: B018
    assert torch.equal(module.denoiser.network[0].weight, before) and not callback.is_swapped


def test_before_the_first_step_swapped_yields_the_current_weights():
    module, callback = Module(), ema()
    with torch.no_grad():
        module.denoiser.network[0].weight.fill_(7)
    with callback.swapped(module):
        assert module.denoiser.network[0].weight.eq(7).all()
    with pytest.raises(RuntimeError, match="first"):
        callback.weights()


def test_the_callback_saves_tensors_in_plain_containers(tmp_path, trained):
    torch.save(trained[2].state_dict(), tmp_path / "ema.pt")
    state = torch.load(tmp_path / "ema.pt", weights_only=True)
    copy = ema()
    copy.load_state_dict(state)
    assert all(torch.equal(v, trained[2].weights()[k]) for k, v in copy.weights().items())


def test_a_checkpoint_with_other_profiles_is_refused(trained):
    with pytest.raises(UserError, match="other"):
        EMA({"other": Latest()}, keep="other").load_state_dict(trained[2].state_dict())


def test_a_snapshot_is_written_whenever_its_image_count_is_crossed(tmp_path):
    callback = ema(every=20)
    train(tmp_path, 10, callback)
    names = [path.stem for path in sorted((tmp_path / "checkpoints" / "ema").iterdir())]
    assert names == ["000000024", "000000040", "000000064", "000000080"]
    loaded = load_snapshots(tmp_path / "checkpoints" / "ema")
    assert {s.profile.relative_std for s in loaded} == {0.05, 0.10}
    rebuilt = reconstruct(loaded, 0.05, images=80)
    for name, value in callback.weights("power_05").items():
        torch.testing.assert_close(rebuilt[name], value, rtol=2**-11, atol=1e-6)


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(UserError, match="nearest: power_05"):
        EMA({"power_05": Power(0.05), "classic": Halflife(1000)}, keep="powr_05")
    with pytest.raises(UserError, match="nearest: a, b"):
        EMA({"a": Power(0.05), "b": Power(0.1)}, keep="zzz")


@pytest.mark.parametrize("profiles, every", [({"a": Latest()}, 10), ({"a": Power(0.1)}, 0), ({"a/b": Latest()}, None)])
def test_impossible_settings_are_refused(profiles, every):
    with pytest.raises(UserError, match="ema"):
        EMA(profiles, keep=next(iter(profiles)), snapshot_every_images=every)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "conf" / "ema").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_configuration_builds(path):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    assert isinstance(instantiate(OmegaConf.load(path), _convert_="all"), EMA)
