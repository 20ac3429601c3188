"""One of the processes that make a sharded store dies."""

import os
import signal

import pytest

from tests.faults.test_ranks import is_rank
from tests.processes import session, start, within


@pytest.fixture
def words(photos, vae_folder, clip_folder):
    images = ["data=captions", f"data.path={photos}", "data.size=16", "data.held_out=0.1"]
    text = ["text=clip", f"text.name={clip_folder}", "text.length=12", "text.pad=null"]
    return ["prepare", *images, "latents=vae", f"latents.name={vae_folder}", *text, "shard_mib=0.002", "at_once=1"]


def shards(store):
    return {file.relative_to(store): file.read_bytes() for file in store.glob("*/*.bin")}


@pytest.mark.faults
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_process_dies_the_others_end_and_the_same_command_goes_on(rank, words, tmp_path):
    run = start(tmp_path, *words, "devices=2", "out=store")
    lists = tmp_path / ".partial.store" / "train"
    assert within(120, lambda: len([*lists.glob("*.index.json")]) >= 3 or run.code is not None, every=0.002)
    (other,) = (pid for pid in session(run.pid) if pid != run.pid and is_rank(pid))
    os.kill([run.pid, other][rank], signal.SIGKILL)
    assert run.gone(60), run.said
    assert not (tmp_path / "store").exists()
    start(tmp_path, *words, "devices=2", "out=store").finish()
    start(tmp_path, *words, "out=whole").finish()
    assert shards(tmp_path / "store") == shards(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == [".lock.store", ".lock.whole", "store", "whole"]
