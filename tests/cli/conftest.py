"""`smallbatch ...` inside the test process, in an empty folder."""

import shutil
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from smallbatch.cli.main import main


@pytest.fixture
def smallbatch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # Hydra composes every configuration twice, first to see whether it says hydra.mode, which none of ours does
    monkeypatch.setattr("hydra._internal.hydra.Hydra.get_mode", lambda self, config_name, overrides: None)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["smallbatch", *map(str, words)])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Where the runs of `trained` lie, by their words."""
    return defaultdict(lambda: tmp_path_factory.mktemp("kept") / "runs")


@pytest.fixture
def trained(smallbatch, kept):
    """The folder, in runs/, of a run that is trained once however many tests ask for it, and copied for each."""

    def run(*words):
        if kept[words].exists():
            shutil.copytree(kept[words], "runs")
        else:
            smallbatch("train", *words)
            shutil.copytree("runs", kept[words])
        (folder,) = Path("runs").glob("*/*")
        return folder

    return run


@pytest.fixture
def refused(smallbatch):
    """Runs words that must fail, and returns the one line that the user sees."""

    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            smallbatch(*words)
        assert "\n" not in stopped.value.code
        return stopped.value.code

    return run
