"""Run folders read back."""

import fcntl
import json
import math
from threading import Timer

import pytest

from smallbatch import status
from smallbatch.cli.runs import lock
from smallbatch.errors import UserError
from smallbatch.report import runs
from smallbatch.report.choices import grouped
from smallbatch.report.outcome import held
from tests.report.folders import make


def read(folder):
    return runs.read(folder, ("name", "price"))


def test_a_run_says_what_it_was_and_what_it_cost(tmp_path):
    run = read(make(tmp_path / "a", "x=a seed=3 name=other", {8: 9.0, 7200: 1.0}))
    assert (run.settings, run.seed, run.command) == ({"x": "a"}, 3, "smallbatch train x=a seed=3 name=other")
    assert run.points["val/v_mse"] == [(8, 0.8, 9.0), (7200, 720.0, 1.0)]
    assert run.bins["val/v_mse"][7200] == {-1.0: 1.0, 1.0: 1.0} and run.spent == {-1.0: 6, 1.0: 2}
    assert (run.device_hours, run.money, run.flops) == (0.4, 1.0, 7_200_000)


def test_a_price_given_comes_before_the_runs_own(tmp_path):
    folder = make(tmp_path / "a", "x=a", {3600 * 10: 1.0})
    assert runs.read(folder, (), price=10.0).money == 20


@pytest.mark.parametrize("words", ["batch=8 x=a seed=0", "+seed=0 x=b x=a batch=8", "x=a batch=8 name=other"])
def test_the_order_of_words_their_repetition_and_what_changes_no_result_do_not_matter(words, tmp_path):
    run = read(make(tmp_path / "a", words, {8: 1.0}))
    assert (run.settings, run.seed) == ({"batch": "8", "x": "a"}, 0)


@pytest.mark.parametrize("word", ["sampler=ddim", "sampler.steps=9", "sampler/grid=edm", "sampler@other=x", "~sampler"])
def test_all_of_a_group_that_changes_no_result_is_ignored(word, tmp_path):
    folder = make(tmp_path / "a", f"x=a {word} samplers=b", {8: 1.0})
    assert runs.read(folder, ("sampler",)).settings == {"samplers": "b", "x": "a"}


def test_a_command_is_shown_as_words_that_a_shell_takes_as_they_are(tmp_path):
    run = read(make(tmp_path / "a", "x=a; touch $(y) '\x1b[2J' #", {8: 1.0}))
    assert run.command == r"smallbatch train 'x=a;' touch '$(y)' '\x1b[2J' '#'"


@pytest.mark.parametrize("head", ["seed: 0", "# smallbatch train 'x", "# smallbatch train seed=one"])
def test_a_run_without_its_words_is_refused(head, tmp_path):
    folder = make(tmp_path / "a", "x=a", {8: 1.0})
    (folder / "config.yaml").write_text(f"{head}\n")
    with pytest.raises(UserError, match=r"a/config\.yaml"):
        read(folder)


@pytest.mark.parametrize(
    "line", ["{", "5", '{"name": "val/v_mse", "images": "x"}', '{"name": "val/v_mse", "value": NaN}']
)
def test_a_line_that_is_no_figure_is_left_out(line, tmp_path):
    folder = make(tmp_path / "a", "x=a", {8: 1.0})
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    assert len(read(folder).points["val/v_mse"]) == 1


@pytest.mark.parametrize("entry", [{"state": "<b>"}, {"images": "many"}, {"seconds": float("nan")}])
def test_a_status_of_another_kind_is_refused(entry, tmp_path):
    folder = make(tmp_path / "a", "x=a", {8: 1.0})
    (folder / "status.json").write_text(json.dumps({"state": "finished"} | entry))
    with pytest.raises(UserError, match=r"status\.json"):
        read(folder)


def test_a_run_that_nobody_trains_was_interrupted(tmp_path):
    folder = make(tmp_path / "a", "x=a", {8: 1.0}, state="training")
    assert read(folder).status.state == "interrupted"
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert read(folder).status.state == "training"


def test_a_run_begins_though_a_report_looks_at_that_moment(tmp_path):
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as the report does
        look = Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN))
        look.start()
        lock(tmp_path)
        look.join()
    assert held(tmp_path)


def test_a_killed_run_came_as_far_as_its_record(tmp_path):
    """Since it was resumed with 3 images, 0.5 s and one device-second, on two devices."""
    folder = make(tmp_path / "a", "x=a", {8: 1.0})
    status.write(folder, status.Status("training", 3, 0.5, 1.0, devices=2))
    known = read(folder).status
    assert (known.state, known.images, known.seconds) == ("interrupted", 8, 0.8)
    assert known.device_seconds == pytest.approx(1.0 + 2 * 0.3)
    assert "ended without a word" in known.error


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_so_did_one_of_which_somebody_else_said_that_it_failed(state, tmp_path):
    """A launcher knows no more than the run had written when it began."""
    folder = make(tmp_path / "a", "x=a", {8: 1.0})
    status.write(folder, status.Status(state, 0, 0.0, 0.0, devices=2, error="killed"))
    known = read(folder).status
    assert (known.state, known.images, known.seconds, known.error) == (state, 8, 0.8, "killed")
    assert known.device_seconds == pytest.approx(1.6)


def test_a_folder_without_a_status_is_no_run(tmp_path):
    folder = make(tmp_path / "a", "x=a", {8: 1.0})
    (folder / "status.json").unlink()
    assert list(runs.folders(tmp_path)) == []


def test_a_failed_run_shows_the_end_of_its_log_as_a_terminal_left_it(tmp_path):
    folder = make(tmp_path / "a", "x=a", {}, state="failed", error="no")
    (folder / "job.log").write_text("".join(f"{i}\n" for i in range(99)) + "1 %\r2 %\n\x1b[31mred\x1b[0m\n")
    assert read(folder).log.splitlines()[-3:] == ["98", "2 %", "red"] and read(folder).log.count("\n") < 25


def test_of_a_log_only_the_end_is_read(tmp_path):
    folder = make(tmp_path / "a", "x=a", {}, state="failed", error="no")
    with open(folder / "job.log", "wb") as file:
        file.truncate(2**40)
        file.seek(2**40)
        file.write(b"\n50 %\r\n\x9bend\xe2\x80\xae\n")
    assert read(folder).log.splitlines()[-2:] == ["50 %", "\ufffdend\\u202e"]


def test_scores_come_with_those_of_real_images_and_what_is_to_know_of_them(tmp_path):
    folder = make(tmp_path / "a", "x=a", {8: 1.0}, metric="metrics/fd_classifier@40")
    (folder / "metrics").mkdir()
    with open(folder / "metrics.jsonl", "a") as file:  # it went on after it was evaluated
        file.write('{"name": "val/v_mse", "images": 16, "seconds": 1.6, "value": 1.0}\n')
    scores = [
        {"name": "fd_classifier@40", "value": 1.0, "marks": ["few"]},
        {"name": "fd_classifier_floor@40", "value": 0.5},
        {"name": "clip_score@40", "value": 20.0},
        {"name": "clip_score_real@8", "value": 30.0},  # of fewer images
    ]
    for stem in ("000000008", "guidance_2"):
        (folder / "metrics" / f"{stem}.json").write_text(json.dumps({"metrics": scores, "asked": {"images": 8}}))
    for stem, content in {"other": [], "old": {"metrics": scores, "asked": {}}}.items():
        (folder / "metrics" / f"{stem}.json").write_text(json.dumps(content))
    (folder / "metrics" / "endless.json").write_text(json.dumps({"metrics": scores, "asked": {"images": math.inf}}))
    run = read(folder)
    assert run.scores["metrics/fd_classifier@40"] == (0.5, ("few",))
    assert run.scores["metrics/clip_score@40"] == (30.0, ())
    assert run.points["metrics/fd_classifier@40 of guidance_2"] == [(8, 0.8, 1.0)]
    assert not [name for name in [*run.points, *run.scores] if name.endswith((" of old", " of endless"))]


def test_folders_within_a_run_are_no_runs(tmp_path):
    inner = make(tmp_path / "b" / "run", "x=a", {8: 1.0})
    make(inner / "wandb" / "copy", "x=a", {8: 1.0})
    make(tmp_path / "a", "x=a", {8: 1.0})
    assert list(runs.folders(tmp_path)) == [tmp_path / "a", inner]


def test_runs_are_grouped_by_the_words_in_which_they_differ(tmp_path):
    for i, words in enumerate(["x=a seed=0 k=1", "x=a seed=1 k=1", "x=b seed=0 k=1", "k=1 seed=0 x=b"]):
        make(tmp_path / str(i), words, {8 + i: 1.0})
    made, left_out = grouped([read(folder) for folder in runs.folders(tmp_path)])
    assert {choice.label: list(choice.runs) for choice in made} == {"x=a": [0, 1], "x=b": [0]}
    assert made[1].first.folder.name == "3"  # of twins the one that went further
    assert "2: the same settings and seed as" in left_out[0] and len(left_out) == 1
