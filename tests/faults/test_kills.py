"""A run that is killed goes on as if nothing had happened."""

import pytest

from tests.faults.kills import IMAGES, kill_and_resume, moments, undisturbed
from tests.outcome import same_outcome


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def torn():
    """What the kills caught while it was written."""
    return []


FEW, MORE = moments()[:3], moments()[3:]


@pytest.mark.parametrize("moment", [*FEW, *(pytest.param(m, marks=pytest.mark.faults) for m in MORE)], ids=str)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(moment, whole, torn, tmp_path):
    killed = kill_and_resume(tmp_path / "killed", moment)
    assert killed.images < IMAGES
    torn += killed.torn
    same_outcome(whole, tmp_path / "killed")


@pytest.mark.faults
def test_some_of_these_kills_hit_a_write(torn):
    """In one process, after all the others: `make test-faults`."""
    assert any("last.ckpt" in file for file in torn), torn
