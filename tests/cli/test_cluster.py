"""Processes that srun or torchrun started, told by the variables they set; a real cluster is in tests/slurm."""

import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment

from smallbatch.cli import cluster, train
from smallbatch.cli.sweeps import slurm
from smallbatch.errors import UserError
from tests.test_configs import CONF, config

BATCH_SCRIPT = {"SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2"}
SRUN = BATCH_SCRIPT | {"SLURM_STEP_ID": "0"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def inside(monkeypatch):
    def set_all(variables):
        for name in {*SRUN, *TORCHRUN}:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize("variables", [SRUN, TORCHRUN, BATCH_SCRIPT | TORCHRUN, SRUN | TORCHRUN])
def test_the_processes_that_were_started_are_the_devices_of_all_nodes(variables, inside):
    inside(variables)
    cluster.check(devices=2, nodes=2)
    for devices, nodes in [(1, 1), (2, 1), (3, 2), (4, 1)]:
        with pytest.raises(UserError, match=f"devices={devices} nodes={nodes} is not what was started"):
            cluster.check(devices, nodes)


def test_srun_must_say_how_many_processes_a_node_has(inside):
    inside({name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"})
    with pytest.raises(UserError, match="use srun --nodes=2 --ntasks-per-node=2"):
        cluster.check(devices=2, nodes=2)


@pytest.mark.parametrize("variables", [{}, BATCH_SCRIPT, SRUN | {"SLURM_JOB_NAME": "bash"}])
def test_one_process_starts_the_others_of_its_node_and_of_no_other(variables, inside):
    inside(variables)
    cluster.check(devices=2, nodes=1)
    with pytest.raises(UserError, match=r"nodes=2: start it on all of them, with srun .* or torchrun"):
        cluster.check(devices=2, nodes=2)


def test_lightning_never_requeues(inside):
    inside(SRUN)
    (environment,) = cluster.environment()
    assert isinstance(environment, SLURMEnvironment) and not environment.auto_requeue
    inside(BATCH_SCRIPT)
    assert [type(environment) for environment in cluster.environment()] == [LightningEnvironment]
    for variables in ({}, TORCHRUN, SRUN | TORCHRUN):
        inside(variables)
        assert cluster.environment() == []


def test_a_batch_divides_over_the_devices_of_all_nodes():
    with pytest.raises(UserError, match="batch=6 does not divide over 4 processes"):
        train.check(config("devices=2", "nodes=2", "batch=6"))
    train.check(config("devices=2", "nodes=2", "batch=8"))


def test_without_slurm_or_submitit_a_sweep_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("train", ["hydra/launcher=slurm"], return_hydra_config=True)
    launcher = instantiate(composed.hydra.launcher)
    with pytest.raises(UserError, match="there is no sbatch here"):
        slurm.launch([], slurm.Cluster(tmp_path, 1, 1, {}))
    monkeypatch.delattr("smallbatch.cli.sweeps.slurm")
    monkeypatch.delitem(sys.modules, "smallbatch.cli.sweeps.slurm")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install 'smallbatch\[slurm\]'"):
        launcher.launch([], 0)
