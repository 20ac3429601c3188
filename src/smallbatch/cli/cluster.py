"""A run that somebody else started on every device: the processes of srun or torchrun, and who counts them."""

import os

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from smallbatch.errors import UserError


def started() -> int | None:
    """How many processes srun or torchrun started; None where Lightning starts those that are missing."""
    if TorchElasticEnvironment.detect():
        return int(os.environ["WORLD_SIZE"])
    if SLURMEnvironment.detect() and "SLURM_STEP_ID" in os.environ:
        return int(os.environ["SLURM_NTASKS"])
    return None


def check(devices: int, nodes: int) -> None:
    """Refuses other numbers of processes: they would wait for each other for ever."""
    found, wanted = started(), devices * nodes
    by_torchrun = f"torchrun --nnodes={nodes} --nproc-per-node={devices}"
    by_srun = f"srun --nodes={nodes} --ntasks-per-node={devices}"
    if found is None:
        if nodes > 1:
            raise UserError(
                f"nodes={nodes}: start it on all of them, with {by_srun} or {by_torchrun} (docs/clusters.md)"
            )
        return
    if TorchElasticEnvironment.detect():
        start, of_a_node = by_torchrun, os.environ["LOCAL_WORLD_SIZE"]
    else:  # Lightning wants to be told, unless there is one process
        start, of_a_node = by_srun, os.environ.get("SLURM_NTASKS_PER_NODE", "1")
    if (found, int(of_a_node)) != (wanted, devices):
        raise UserError(f"devices={devices} nodes={nodes} is not what was started ({found} processes): use {start}")


def environment() -> list[ClusterEnvironment]:
    """What Lightning must be told of it, if anything.

    Without its own requeueing on SLURM, which writes and prefers checkpoints of another kind (hpc_ckpt_1.ckpt). A batch
    script that calls us without srun is one process, whatever SLURM's variables say.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    return [LightningEnvironment() if started() is None else SLURMEnvironment(auto_requeue=False)]
