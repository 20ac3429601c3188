"""FSDP2 for Lightning: the network and what the optimizer keeps of it shared out, one file per checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from smallbatch.sharding import for_file, part_of


class FSDP(ModelParallelStrategy):
    """One group of all devices. A checkpoint is what ddp and one process write, so that any of them goes on with it."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes  # its own "auto" is one device of every node
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def post_backward(self, closure_loss: Tensor) -> None:
        """FSDP2 averages the gradients of what it shares out; here are the others, as DDP would average them.

        Accumulated ones too: what they hold from earlier micro-batches is the same on every rank.
        """
        for parameter in self.lightning_module.parameters():
            if parameter.grad is not None and not isinstance(parameter, DTensor):
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.world_size

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return optimizer.state_dict()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        whole = apply_to_collection(checkpoint, DTensor, for_file)
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(whole, filepath)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        own = self.lightning_module.state_dict()
        saved = {name: part_of(value, own[name]) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(saved, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            kept = {number: parts_of(saved["state"][number], parameters[number]) for number in saved["state"]}
            optimizer.load_state_dict(saved | {"state": kept})


def parts_of(kept: dict[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """What an optimizer keeps of a parameter: moments of its shape lie where it lies, counts are everywhere."""
    return {name: part_of(x, parameter) if x.shape == parameter.shape else x for name, x in kept.items()}
