"""A run in Weights & Biases: on its server where that can be reached, else in the run folder, to be synced later."""

import os
import secrets
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import WandbLogger

from smallbatch.callbacks.mirrors import one_line
from smallbatch.files import replacing

TAGS = ("experiment", "sweep", "data", "network", "schedule", "prediction", "timesteps", "weighting")


def connect(
    save_dir: Path,
    choices: Mapping[str, str],
    seed: int,
    warn: Callable[[str], None],
    project: str,
    entity: str | None,
    group: str | None,
    tags: list[str],
    mode: Literal["online", "offline", "disabled"] | None,
    init_timeout: float,
    finish_timeout: float,
) -> WandbLogger:
    """`choices` are those of the config groups: some become tags. `mode` null: online where wandb finds a key.

    Waits `init_timeout` seconds for the server before the run goes on offline, and `finish_timeout` for what it has
    not yet taken at the end.
    """
    import wandb  # an extra

    start = partial(
        wandb.init,
        project=project,
        entity=entity,
        group=group,
        tags=[*tags, *(f"{name}={choices[name]}"[:64] for name in TAGS if name in choices)],  # wandb's limit
        name=f"{choices.get('prediction')} {choices.get('timesteps')} seed={seed}",
        id=run_id(save_dir),
        dir=save_dir,
        resume="allow",
        reinit="create_new",  # a run that failed in this process is left alone
        settings=wandb.Settings(init_timeout=init_timeout, finish_timeout=finish_timeout, quiet=True),
    )
    try:
        mode = mode or os.environ.get("WANDB_MODE") or preferred()
        run = start(mode=mode)
    except Exception as error:
        if mode == "offline":
            raise
        warn(f"logger=wandb cannot go online ({one_line(error)}): this run is logged offline")
        wandb.teardown()  # which would hold the id
        run = start(mode="offline")
    run.define_metric("trainer/global_step", hidden=True)  # Lightning's name for the images
    run.define_metric("images", hidden=True)
    run.define_metric("*", step_metric="images", step_sync=True)
    return WandbLogger(experiment=run, project=project)


def preferred() -> str:
    import wandb

    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def run_id(folder: Path) -> str:
    """The folder's own for ever. Its name alone would not do: the same settings may be trained in another root."""
    path = folder / "wandb_id"
    if not path.exists():
        with replacing(path) as partial:
            partial.write_text(f"{folder.name}-{secrets.token_hex(4)}\n")
    return path.read_text().strip()


def sync_command(folder: Path) -> str | None:
    """What to type to upload what is waiting in a run folder; None where nothing is."""
    waiting = [path for path in folder.glob("wandb/offline-run-*/*.wandb") if not Path(f"{path}.synced").exists()]
    return shlex.join(["wandb", "sync", str(folder / "wandb")]) if waiting else None
