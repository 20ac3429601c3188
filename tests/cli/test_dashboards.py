"""What the mirrors of a run hold, and that none of them can stop it."""

import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger

from smallbatch.callbacks.mirrors import Mirror
from smallbatch.callbacks.wandb import connect, run_id, sync_command
from smallbatch.recorded import read
from tests import wandb_file
from tests.cli import TINY
from tests.wandb_server import KEY, Server

DASHBOARD = Path(__file__).parents[2] / "docs" / "wandb.md"
RICH = ["prediction=mixed_gate", "metrics=quick", "metrics.n=40", "extractor.images=320", "sampler.steps=2"]
GIVEN = dict(choices={"prediction": "v", "timesteps": "slots"}, seed=3, project="p", entity=None, group="g", tags=["t"])


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """As on a machine where nobody has logged in."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))


def only_run(root="runs"):
    (folder,) = Path(root).glob("*/*/metrics.jsonl")
    return folder.parent


def starts(folder):
    wandb.teardown()  # its service may write on after a run has finished
    return sorted(folder.glob("wandb/offline-run-*"))


def started(folder, warn, **more):
    """A mirror to W&B that waits for nobody."""
    words = GIVEN | {"mode": None, "init_timeout": 2.0, "finish_timeout": 20.0} | more
    return Mirror("wandb", partial(connect, folder, warn=warn, **words), warn)


def upload(words, server):
    settings = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    program = str(Path(sys.executable).with_name("wandb"))
    subprocess.run([program, *words], env=settings, check=True, capture_output=True, timeout=60)


def test_wandb_holds_the_whole_record_of_a_run_and_goes_on_when_it_is_resumed(smallbatch, tmp_path):
    words = [*TINY, *RICH, f"cache={tmp_path / 'cache'}", "logger=wandb", "logger.wandb.tags=[mine]"]
    words.append("logger.wandb.project=tests")
    assert "wandb sync" in smallbatch("train", *words)
    folder = only_run()
    (first,) = starts(folder)
    run, config, history = wandb_file.run(first), wandb_file.config(first), wandb_file.history(first)
    assert (run.run_id, run.project, run.run_group) == (run_id(folder), "tests", "digits")
    assert {"mine", "data=digits", "prediction=mixed_gate", "timesteps=stratified"} <= set(run.tags)
    assert config["choices"]["prediction"] == "mixed_gate" and config["batch"] == 32 and "run" not in config
    assert wandb_file.x_axes(first)["*"] == "images"
    for row in read(folder):
        if "logsnr" not in row:
            assert row["value"] in [said.get(row["name"]) for said in history if said["images"] == row["images"]]
    logged = {key for said in history for key in said}
    bins = {key for key in logged if fnmatch(key, "by_logsnr/val/v_mse/*")}
    assert len(bins) == len({row["logsnr"] for row in read(folder) if row["name"] == "val/v_mse" and "logsnr" in row})
    named = set(re.findall(r"`((?:[a-z_0-9]+/)+[^`]+|images|seconds|samples)`", DASHBOARD.read_text()))
    missing = {name for name in named if not any(fnmatch(key, name) for key in logged)}
    assert len(named) > 15 and not missing
    assert len(list(first.glob("files/media/images/**/*.png"))) == 2 + len(list(folder.glob("*.png")))

    (folder / "checkpoints" / "last.ckpt").unlink()  # as a run that was killed after 160 images
    said = smallbatch("train", *words)
    assert "resuming" in said and [wandb_file.run(start).run_id for start in starts(folder)] == [run_id(folder)] * 2
    (command,) = re.findall("wandb (sync .*)", said)
    with Server() as server:
        upload(command.split(), server)
        merged = server.history(run_id(folder))
    assert [said["_step"] for said in merged] == list(range(len(merged)))
    assert [said["images"] for said in merged] == sorted(said["images"] for said in history) + [
        said["images"] for said in wandb_file.history(starts(folder)[1])
    ]
    assert sync_command(folder) is None


def test_the_same_settings_in_two_folders_are_two_runs_and_a_folder_keeps_its_own(tmp_path):
    folders = [tmp_path / root / "0123456789ab" for root in ("mine", "yours")]
    for folder in folders:
        folder.mkdir(parents=True)
    ids = [run_id(folder) for folder in folders]
    assert ids[0] != ids[1] and all(name.startswith("0123456789ab-") for name in ids)
    folders[0].rename(tmp_path / "moved")
    assert run_id(tmp_path / "moved") == ids[0]


def test_wandb_goes_online_where_it_finds_a_key_and_a_second_start_goes_on_in_its_run(tmp_path, monkeypatch):
    said = []
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        (tmp_path / "netrc").write_text(f"machine {server.url.removeprefix('http://')} login user password {KEY}")
        for images, state in ((8, "interrupted"), (16, "finished")):
            mirror = started(tmp_path, said.append)
            mirror.log_metrics({"images": images, "val/v_mse": 1 / images}, step=images)
            mirror.close(state)
        ((name, run),) = server.runs.items()
        history = server.history(name)
    assert name == run_id(tmp_path) and not said and not starts(tmp_path)
    assert [(row["_step"], row["images"], row["val/v_mse"]) for row in history] == [(0, 8, 1 / 8), (1, 16, 1 / 16)]
    assert run["exitcode"] == 0 and run["asked"][0]["groupName"] == "g"
    assert {"t", "prediction=v", "timesteps=slots"} <= set(run["asked"][0]["tags"])


@pytest.mark.parametrize("key", [KEY, "nonsense"], ids=["no server", "no valid key"])
def test_wandb_that_cannot_go_online_says_so_once_and_logs_offline(key, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", key)
    said = []
    mirror = started(tmp_path, said.append)
    mirror.log_metrics({"images": 8, "val/v_mse": 0.5}, step=8)
    mirror.close("finished")
    (line,), (start,) = said, starts(tmp_path)
    assert "logger=wandb cannot go online" in line and "\n" not in line
    assert wandb_file.history(start)[0]["val/v_mse"] == 0.5


def test_wandb_settings_change_no_run_folder_and_a_wrong_mode_is_refused(smallbatch, refused):
    folders = []
    for words in (["logger=none"], ["logger=wandb", "logger.wandb.entity=us", "logger.wandb.group=ours"]):
        smallbatch("train", *TINY, *words, "dry_run=true", "out=plan.json")
        folders.append(json.loads(Path("plan.json").read_text())["run_folder"])
    assert folders[0] == folders[1]
    assert refused("train", *TINY, "logger=wandb", "logger.wandb.mode=of").endswith(
        "logger.wandb.mode=of must be online or offline or disabled or null"
    )


def test_a_run_whose_mirror_breaks_trains_to_the_end_with_its_record_whole(smallbatch, monkeypatch):
    monkeypatch.setattr(CSVLogger, "log_metrics", lambda *words, **more: 1 / 0)
    smallbatch("train", *TINY, "logger=csv")
    rows, events = read(only_run()), (only_run() / "events.log").read_text()
    assert sum(row["n"] for row in rows if row["name"] == "train/loss" and "logsnr" in row) == 320
    assert {row["images"] for row in rows if row["name"] == "val/v_mse"} == {160, 320}
    assert events.count("logger=csv failed (division by zero)") == 1 and "finished at 320 images" in events
