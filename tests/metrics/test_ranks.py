"""Two processes hold together what one would."""

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from smallbatch.metrics import ranks
from smallbatch.metrics.moments import MomentSums

N = 7  # odd: one rank has a row more


def features():
    return torch.randn(N, 3, generator=torch.Generator().manual_seed(0))


def pixels():
    return torch.arange(N * 4, dtype=torch.uint8).view(N, 1, 2, 2)


def held(mine):
    """What a process with these rows has, when all have met."""
    sums = MomentSums(3, blocks=2)
    sums.add(features()[mine], mine)
    for tensor in sums.tensors():
        assert ranks.summed_(tensor) is tensor
    early = mine[mine < 1]  # on one rank alone
    return {
        "sums": sums.tensors(),
        "covariance": sums.moments().covariance,
        "features": ranks.gathered(features()[mine], mine),
        "pixels": ranks.gathered(pixels()[mine], mine),
        "early": ranks.gathered(pixels()[early], early),
        "rank": (ranks.rank(), ranks.world_size()),
    }


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    whole = torch.ones(2)
    found = held(torch.arange(rank, N, 2).flip(0))
    torch.save(found | {"summed": ranks.summed_(whole.clone()), "kept": whole}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    start_processes(work, args=(str(folder),), nprocs=2, start_method="fork")  # spawned ones import torch for seconds
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_moments_of_two_processes_are_those_of_one(both):
    alone = held(torch.arange(N))
    for found in both:
        for theirs, ours in zip(found["sums"], alone["sums"], strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found["covariance"], alone["covariance"], rtol=1e-12, atol=1e-12)


def test_rows_come_in_the_order_of_their_numbers_on_every_rank(both):
    for found in (*both, held(torch.arange(N).flip(0))):
        assert torch.equal(found["features"], features()) and torch.equal(found["pixels"], pixels())
        assert torch.equal(found["early"], pixels()[:1])


def test_a_process_knows_its_place(both):
    assert [found["rank"] for found in both] == [(0, 2), (1, 2)] and held(torch.arange(N))["rank"] == (0, 1)


def test_summed_leaves_its_argument_alone(both):
    for found in both:
        assert torch.equal(found["summed"], torch.full((2,), 2.0)) and torch.equal(found["kept"], torch.ones(2))
