"""What one machine holds."""

import random

import pytest

from smallbatch.cli.sweeps.places import Machine, Place
from smallbatch.errors import UserError


def test_gpus_are_dealt_out_whole_and_the_emptiest_first():
    machine = Machine(["a", "b"], cores=1, jobs_per_gpu=2)
    assert [machine.take(1, 0).gpus for _ in range(4)] == [("a",), ("b",), ("a",), ("b",)]
    assert machine.take(1, 0) is None
    machine.give_back(Place(gpus=("b",)))
    assert machine.take(2, 0) is None
    assert machine.take(1, 0).gpus == ("b",)


def test_a_job_of_several_gpus_gets_different_ones():
    machine = Machine(["0", "1", "2"], cores=1, jobs_per_gpu=2)
    machine.take(1, 0)
    assert sorted(machine.take(3, 0).gpus) == ["0", "1", "2"]
    assert sorted(machine.take(2, 0).gpus) == ["1", "2"]


def test_no_order_of_jobs_overfills_the_machine():
    machine, chance, taken = Machine(["0", "1"], cores=5, jobs_per_gpu=3), random.Random(0), []
    for _ in range(2000):
        if taken and chance.random() < 0.5:
            machine.give_back(taken.pop(chance.randrange(len(taken))))
        elif place := machine.take(*chance.choice([(1, 9), (2, 9), (0, 1), (0, 3)])):
            taken.append(place)
        used = [gpu for place in taken for gpu in place.gpus]
        assert max(used.count("0"), used.count("1")) <= 3
        assert sum(place.cores for place in taken) <= 5
        assert machine.cores == 5 - sum(place.cores for place in taken)


@pytest.mark.parametrize(
    ("gpus", "cores", "named"), [(3, 0, "gpus_per_job=3"), (0, 5, "cores_per_job=5"), (0, 0, "cores_per_job=0")]
)
def test_what_would_wait_for_ever_is_refused(gpus, cores, named):
    with pytest.raises(UserError, match=named):
        Machine(["0", "1"], cores=4).check(gpus, cores)


def test_a_gpu_holds_at_least_one_job():
    with pytest.raises(UserError, match="jobs_per_gpu=0"):
        Machine(["0"], cores=1, jobs_per_gpu=0)
