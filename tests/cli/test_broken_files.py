"""Files of a run folder that a crash, or somebody, broke: one clear line, and nothing else is lost."""

import json
from pathlib import Path

from smallbatch import status
from tests.cli import UNDRAWN
from tests.outcome import figures, run_folder
from tests.test_files import no_file_beyond

WORDS = ["train", *UNDRAWN, "samples.every_images=null"]
WHOLE = '{"images": 32, "step": 1, "seconds": 0.1, "name": "loss", "value": 1.0}'
BROKEN = [
    WHOLE[:40].encode(),
    b"no json",
    b'"text"',
    b"[1, 2]",
    b'{"images": 32}',
    WHOLE.replace("32", '"32"').encode(),
    b"\xff\xfe" + WHOLE.encode(),
    bytes(300),
    b"",
    b"[" * 100_000,
]


def broken(record):
    first, *others = record.read_bytes().splitlines()
    record.write_bytes(b"\n".join([first, *BROKEN, *others, WHOLE[:30].encode()]))
    return f"{record}: {len(BROKEN) + 1} of {len(BROKEN) + len(others) + 2} lines cannot be read and are left out"


def test_broken_lines_of_the_record_cost_nothing_else(smallbatch):
    smallbatch(*WORDS)
    whole, folder = figures("runs"), run_folder("runs").absolute()
    said = broken(folder / "metrics.jsonl")
    (folder / "checkpoints" / "last.ckpt").unlink()
    assert "resuming" in smallbatch(*WORDS)
    assert figures("runs") == whole
    assert (folder / "events.log").read_text().count(said) == 1
    reported = smallbatch("report", "runs=runs")
    broken(folder / "metrics.jsonl")
    assert smallbatch("report", "runs=runs") == reported


def test_what_became_of_a_run_is_said_even_where_its_log_is_full(smallbatch, refused):
    smallbatch(*WORDS, "dry_run=true", "out=plan.json")
    folder = Path(json.loads(Path("plan.json").read_text())["run_folder"])
    folder.mkdir(parents=True)
    room = 40  # bytes: `started` goes into the log, and no line after it
    (folder / "events.log").write_text("x" * 299_999 + "\n")
    with no_file_beyond(300_000 + room):  # less than a checkpoint
        refused(*WORDS)
    assert status.read(folder).state == "failed"


def test_each_broken_file_is_named_with_what_to_do(smallbatch, refused):
    smallbatch(*WORDS)
    folder = run_folder("runs").absolute()
    for name, words in {
        "status.json": WORDS,
        "model.json": ["sample", f"run={folder}", "n=1", "out=x.npz"],
        "model.safetensors": ["sample", f"run={folder}", "n=1", "out=x.npz"],
        "config.yaml": ["report", f"runs={folder}"],
    }.items():
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:10])
        said = refused(*words)
        assert str(folder) in said and name in said and any(word in said for word in ("again", "remove it")), said
        (folder / name).write_bytes(content)
    (folder / "status.json").unlink()
    assert "already trained" in smallbatch(*WORDS)
    (folder / "events.log").unlink()
    (folder / "events.log").mkdir()
    (folder / "checkpoints" / "last.ckpt").unlink()
    assert "events.log" in refused(*WORDS)
