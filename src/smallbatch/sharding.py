"""Weights shared out over devices: each holds a part of every tensor, a file holds them whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from smallbatch.networks.network import Network


def shard(network: Network, mesh: DeviceMesh) -> None:
    """Cuts the weights in place; a block's come together while it runs, and a gradient is its mean over the devices.

    Also the outermost weights part again after a forward pass: an average may be written into them before the next.
    """
    blocks = [part for part in network.modules() if isinstance(part, network.block_types)]
    for part in (*blocks, network):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


@contextmanager
def whole_weights(network: nn.Module) -> Iterator[None]:
    """Lends every device all the weights, so that each may run the network as often as it likes."""
    parts = [part for part in network.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def local(tensor: Tensor) -> Tensor:
    """The part that lies here, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def for_file(tensor: Tensor) -> Tensor:
    """The whole, on the CPU of the first rank; what was shared out is empty elsewhere. Every rank must call this."""
    if not isinstance(tensor, DTensor):
        return tensor.detach().cpu()
    whole = tensor.detach().full_tensor()
    return whole.cpu() if tensor.device_mesh.get_rank() == 0 else whole.new_empty(0)


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """What of a whole tensor, the same on every rank, lies here if it is shared out as `like` is."""
    if not isinstance(like, DTensor):
        return whole.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def clip_(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """The norm of all gradients together, which are then scaled down to at most `most`. Torch's own takes no mixture of
    those that are shared out and those that are not."""
    kinds = [[p for p in parameters if isinstance(p, DTensor) is shared] for shared in (True, False)]
    kinds = [kind for kind in kinds if kind]
    norms = [nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None], foreach=True) for kind in kinds]
    norm = torch.linalg.vector_norm(torch.stack([n.full_tensor() if isinstance(n, DTensor) else n for n in norms]))
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, most, norm, foreach=True)
    return norm
