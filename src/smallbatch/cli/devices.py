"""Whether the devices that a run asks for are at hand, and can do together what it asks of them."""

import torch
from omegaconf import DictConfig, OmegaConf

from smallbatch.errors import UserError


def check(config: DictConfig) -> None:
    accelerator, there = config.trainer.accelerator, torch.cuda.device_count()
    if accelerator == "gpu" and not there:
        raise UserError("trainer=gpu, but no GPU is at hand: use trainer=cpu, or trainer=auto to take what there is")
    if accelerator != "cpu" and there and config.devices > there:
        raise UserError(
            f"devices={config.devices}, but {there} GPU{'s are' if there > 1 else ' is'} at hand: use devices={there}, "
            "or trainer.accelerator=cpu for processes on the CPU"
        )


def shares_weights(config: DictConfig) -> bool:
    """Whether a device holds only a part of the network."""
    return OmegaConf.is_dict(config.trainer.strategy)


def check_sharing(config: DictConfig) -> None:
    if config.devices * config.nodes == 1:
        raise UserError("trainer=fsdp shares the weights out: use devices=2 or more, or trainer=auto for one device")
    for name in ("channels_last", "compile"):
        if config[name]:
            raise UserError(f"trainer=fsdp cannot do with {name}=true: use {name}=false, or trainer=ddp")
