"""`smallbatch ...` inside the test process, in an empty folder."""

import sys

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


@pytest.fixture
def refused(smallbatch):
    """Runs words that must fail, and returns the one line that the user sees."""

    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            smallbatch(*words)
        assert "\n" not in stopped.value.code
        return stopped.value.code

    return run
