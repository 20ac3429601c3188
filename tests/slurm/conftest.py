"""A real SLURM cluster of two nodes on this machine, of the daemons that Debian packages; gone afterwards."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import within

# No accounting, no cgroups, no munge: nothing that needs another daemon. Two partitions on the same nodes: jobs of
# `high` pre-empt those of `low`, which have 30 seconds to save. What is requeued may start again after 5 seconds.
CONF = """
ClusterName=private
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=low Nodes=one,two Default=YES PriorityTier=1 GraceTime=30
PartitionName=high Nodes=one,two PriorityTier=10 PreemptMode=OFF
"""


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch"))):
        pytest.fail("the daemons are missing: apt-get install slurmctld slurmd slurm-client")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, ports=free_ports(3), user=getpass.getuser(), host=socket.gethostname()))
    # all ranks live on this machine, whatever its nodes are called
    os.environ |= {"SLURM_CONF": str(conf), "MASTER_ADDR": "127.0.0.1"}
    daemons = [daemon(folder, "slurmctld")]
    daemons += [daemon(folder, "slurmd", "-N", node) for node in ("one", "two")]
    try:
        assert within(60, lambda: slurm("sinfo", "--noheader", "--format=%D%t").split() == ["2idle"], every=0.5), (
            folder / "slurmctld.log"
        ).read_text() + (folder / "slurmd.log").read_text()
        yield
    finally:
        subprocess.run(["scancel", "--me"])
        within(60, lambda: not slurm("squeue", "--noheader"), every=0.5)
        for process in daemons:
            process.terminate()
        for process in daemons:
            process.wait(60)
        del os.environ["SLURM_CONF"], os.environ["MASTER_ADDR"]


def daemon(folder: Path, name: str, *words: str) -> subprocess.Popen:
    with open(folder / f"{name}.log", "a") as log:
        command = [name, "-D", "-f", folder / "slurm.conf", *words]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)


def slurm(*command: object) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True).stdout
