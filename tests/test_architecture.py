"""Who may import what: the arrow of the design, read from the syntax trees."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "smallbatch"
FILES = sorted(ROOT.rglob("*.py"))
BASE = {"errors", "notation"}
MAY = {  # the package's own modules that each file of the mathematics may name
    "errors": set(),
    "notation": set(),
    "files": {"errors"},
    "recorded": {"errors", "files"},
    "status": {"errors", "files"},
    "randomness": set(),
    "schedules": BASE,
    "tables": BASE | {"schedules"},
    "predictions": BASE,
    "teaching": BASE | {"predictions"},
    "fusing": BASE | {"running"},
    "mixtures": BASE | {"fusing", "predictions", "teaching"},
    "variances": BASE | {"predictions", "schedules", "tables"},
    "weightings": BASE | {"predictions"},
    "uncertainty": BASE | {"predictions", "randomness", "running", "weightings"},
    "draws": BASE | {"randomness"},
    "densities": BASE | {"schedules", "tables"},
    "curricula": BASE | {"densities", "running", "schedules", "tables"},
    "asymmetric": BASE | {"densities", "schedules", "tables"},
    "running": BASE,
    "proposals": BASE | {"densities", "running", "schedules", "tables"},
    "slots": BASE | {"curves", "densities", "proposals", "running", "schedules", "tables"},
    "curves": BASE | {"denoiser", "files", "randomness", "schedules", "tables", "validation", "weightings"},
    "timesteps": BASE | {"densities", "draws", "proposals", "randomness", "schedules"},
    "masking": BASE | {"networks", "randomness"},
    "denoiser": BASE | {"predictions", "schedules"},
    "objective": BASE | {"denoiser", "masking", "randomness", "timesteps", "weightings"},
    "solvers": BASE,
    "churn": BASE | {"schedules", "solvers"},
    "wrappers": BASE | {"denoiser"},
    "sampler": BASE | {"churn", "denoiser", "schedules", "solvers", "tables", "wrappers"},
    "generation": BASE | {"denoiser", "randomness", "sampler"},
    "oracle": BASE,
    "likeness": BASE,
    "validation": BASE | {"denoiser", "randomness"},
    "networks": BASE | {"networks"},
    "published": BASE,
    "text": BASE | {"published", "text"},
    "latents": BASE | {"latents", "published"},
    "learning_rates": BASE,
    "optimizers": BASE,
    "sharding": {"networks"},
    "fsdp": {"sharding"},
    "ema": BASE | {"sharding"},
    "posthoc": BASE | {"ema", "files"},
    "guard": BASE,
}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_file_imports_only_what_its_layer_may(file):
    names = set(imports(file))
    roots = {name.split(".")[0] for name in names}
    assert layer(file) == "cli" or not roots & {"hydra", "omegaconf"}
    assert layer(file) in {"cli", "module", "fsdp", "data", "callbacks"} or "lightning" not in roots
    own = {name.split(".")[1] for name in names if name.startswith("smallbatch.")}
    assert own <= MAY.get(layer(file), own), f"{file.name} may not import {own - MAY[layer(file)]}"


def test_only_the_command_line_imports_the_command_line():
    outside = [file for file in FILES if layer(file) != "cli"]
    assert not [file for file in outside if any(name.startswith("smallbatch.cli") for name in imports(file))]
