"""A run that is killed goes on as if nothing had happened."""

import pytest

from tests.faults.kills import kill_and_resume, moments, undisturbed
from tests.outcome import same_outcome


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("whole") / "run")


FEW, MORE = moments()[:3], moments()[3:]


@pytest.mark.parametrize("moment", [*FEW, *(pytest.param(m, marks=pytest.mark.faults) for m in MORE)], ids=str)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(moment, whole, tmp_path):
    kill_and_resume(tmp_path / "killed", moment)
    same_outcome(whole, tmp_path / "killed")
