"""The command line: `smallbatch COMMAND key=value ...`. Hydra reads the words after the command."""

import importlib
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from smallbatch.cli.hints import explain, nearest
from smallbatch.errors import UserError

HELP = """smallbatch - train image diffusion models well on little compute

  smallbatch quickstart                                   digits in minutes on a CPU, with pictures
  smallbatch prepare data=imagenet data.path=DIR data.size=64 out=STORE    pack images once, for quick training
  smallbatch train experiment=digits seed=0               train; the same command again resumes a stopped run
  smallbatch train experiment=digits dry_run=true         what it would cost, without training
  smallbatch train -m prediction=eps,x0,v timesteps=uniform,stratified seed=0,1,2      a sweep
  smallbatch sample run=runs/digits/ID n=100 guidance=1.5 out=samples.npz
  smallbatch evaluate run=runs/digits/ID n=1000           scores of its samples, beside what real images would score
  smallbatch import guided_diffusion weights=FILE.pt model=64x64_diffusion out=RUN    a published model as a run
  smallbatch diagnose run=[RUN,RUN] diagnostic=[loss_curve,consistency] out=DIR     why runs are as they are
  smallbatch reference data=cifar10 extractor=inception out=FILE.npz       measure a data set once
  smallbatch chain experiment=rethinking_fig1             several commands, each run's folder known to the next
  smallbatch report runs=runs/NAME baseline=v out=report.html      a sweep as one page, compared seed by seed

Every command explains its own settings: smallbatch train --help, smallbatch sample --help
"""

COMMANDS = (
    "prepare",
    "train",
    "sample",
    "evaluate",
    "diagnose",
    "reference",
    "report",
    "import guided_diffusion",
)  # the files beside this one that `run`

CHAINS = ("quickstart", "chain")  # of several commands


def main() -> None:
    argv = joined(sys.argv)
    command = argv[1] if len(argv) > 1 else "--help"
    if command in ("-h", "--help", "help"):
        print(HELP)
        return
    try:
        if command in CHAINS:
            command_file(command).run(argv[2:])
        else:
            dispatch(command, argv)
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"smallbatch {command}: {explain(error, conf_dir(), file_name(command), argv[2:])}")
    except (UserError, OSError) as error:
        sys.exit(f"smallbatch {command}: {error}")
    except KeyboardInterrupt:  # before training, which has handlers of its own
        print(f"smallbatch {command}: stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def joined(argv: list[str]) -> list[str]:
    """`import NAME` is one command of two words."""
    return [argv[0], " ".join(argv[1:3]), *argv[3:]] if argv[1:2] == ["import"] and argv[2:3] != ["--help"] else argv[:]


def dispatch(command: str, argv: list[str]) -> Any:
    """Runs one command on the words after it; returns what its last job returned."""
    if command not in COMMANDS:
        raise UserError(f"no such command; {nearest(command, [*COMMANDS, *CHAINS])}")
    returned, failed = None, []

    def job(config: DictConfig) -> None:
        nonlocal returned
        sys.argv = argv  # Lightning starts the other ranks with these words
        try:
            check_mode(config, HydraConfig.get())
            run = command_file(command).run
            quiet()
            returned = run(config)
        except Exception as error:  # raised below, where Hydra prints no words of its own; a sweep goes on
            failed.append(error)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                print(f"job {HydraConfig.get().job.num} failed: {error.__cause__ or error}", file=sys.stderr)

    words = sorted(argv[2:], key=lambda word: word not in ("-m", "--multirun"))  # Hydra wants them in front
    sys.argv = [argv[0], *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to `main` instead of being printed
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=file_name(command))(job)()
    if failed:
        raise failed[0]
    return returned


def file_name(command: str) -> str:
    return command.replace(" ", "_")


def command_file(command: str) -> ModuleType:
    """Imported when the command runs: the imports of some take seconds, which help and mistyped words need not wait."""
    return importlib.import_module(f"smallbatch.cli.{file_name(command)}")


def check_mode(config: DictConfig, hydra: DictConfig) -> None:
    """One run, or many?"""
    many, sweep = hydra.mode == RunMode.MULTIRUN, hydra.runtime.choices.get("sweep")
    if many and config.get("devices", 1) != 1:
        raise UserError(f"devices={config.devices} in a sweep needs a process for each job: use hydra/launcher=local")
    chosen = {word.partition("=")[0] for word in hydra.overrides.task}
    if sweep and not many and not chosen >= set(hydra.sweeper.params or ()):
        raise UserError(f"sweep={sweep} is many runs: add -m, `smallbatch train -m sweep={sweep}`")


def conf_dir() -> Path:
    """conf/ inside the installed package, or beside src/ in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def quiet() -> None:
    """Hides what Lightning says of every run. Lightning's import sets its levels, so this comes after."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for nothing in ("many workers", "is not resumable", "LeafSpec", "all_gather is deprec", "`srun` command"):
        warnings.filterwarnings("ignore", f".*{nothing}.*")


if __name__ == "__main__":
    main()
