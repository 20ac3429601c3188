"""What the README shows really works."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from smallbatch import densities, predictions
from smallbatch.cli.naming import run_id
from tests.leaves import SCHEDULES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^smallbatch (prepare|train|sample) ([^#\n]*)", README, re.M)


def shown(name, module):
    """The class of that name from the README, in the namespace of the file that it belongs to."""
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", README, re.S) if f"class {name}(" in b)
    namespace = dict(vars(module))
    exec(block, namespace)
    return namespace[name]()


def test_the_prediction_shown_recovers_image_and_noise():
    score = shown("Score", predictions)
    level = SCHEDULES["cosine"](torch.linspace(0.1, 0.9, 5).double())
    x0, eps = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    a, b = score.basis(level)
    got = score.decode(a * x0 + b * eps, level.mix(x0, eps), level)
    torch.testing.assert_close(got.x0, x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.eps, eps, atol=1e-5, rtol=1e-5)


def test_the_density_shown_has_the_density_it_states():
    u = (torch.arange(10_000) + 0.5) / 10_000
    t, importance = shown("Middle", densities)(u, SCHEDULES["cosine"], 0.0)
    assert abs((t < 0.25).float().mean() - (1 - 0.5**0.5) / 2) < 1e-3 and (importance == 1).all()


@pytest.mark.parametrize("command, words", COMMANDS, ids=[f"{c} {w}".strip()[:60] for c, w in COMMANDS])
def test_a_command_shown_composes(command, words):
    overrides = [word.split(",")[0] for word in shlex.split(words) if word != "-m"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose(command, overrides)


def test_the_commands_for_several_gpus_go_on_with_each_other():
    text = (ROOT / "docs" / "many_gpus.md").read_text().replace("\\\n", " ")
    shown = re.findall(r"train (experiment=cifar10_one_gpu [^#\n]*)", text)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        ids = {run_id(compose("train", shlex.split(words)), "") for words in shown}
    assert len(shown) == 4 and len(ids) == 1


def test_the_tree_shown_names_every_file_of_the_package():
    tree = README.split("src/smallbatch/\n")[1].split("\ntests/")[0]
    package = ROOT / "src" / "smallbatch"
    named = {*re.findall(r"\b(\w+\.py)", tree), *re.findall(r"\b(\w+/)", tree)}
    there = {f.name for f in package.glob("*.py")} | {f"{f.name}/" for f in package.iterdir() if f.is_dir()}
    assert named == there - {"__init__.py", "__pycache__/"}
