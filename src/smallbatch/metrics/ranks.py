"""What all processes of a run hold together. Every rank must call these, and in the same order."""

import torch
import torch.distributed as dist
from jaxtyping import Int, Shaped
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if _several() else 0


def world_size() -> int:
    return dist.get_world_size() if _several() else 1


def summed_(tensor: Tensor) -> Tensor:
    """The sum over the ranks, in place."""
    if _several():
        carried = tensor.to(_carrier())
        dist.all_reduce(carried)
        if carried is not tensor:
            tensor.copy_(carried)
    return tensor


def gathered(rows: Shaped[Tensor, "b ..."], numbers: Int[Tensor, " b"]) -> Shaped[Tensor, "n ..."]:
    """All ranks' rows in the order of their numbers, on every rank; ranks may hold different counts, or none."""
    order = _all(numbers).argsort()
    return _all(rows)[order]


def _all(rows: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "n ..."]:
    """Rank after rank, filled up to the most rows that one holds: a collective wants equal shapes."""
    if not _several():
        return rows
    mine = rows.to(_carrier())
    counts = [mine.new_zeros(1, dtype=torch.long) for _ in range(world_size())]
    dist.all_gather(counts, counts[0].new_tensor([len(mine)]))
    filled = mine.new_zeros(int(max(counts)), *mine.shape[1:])
    filled[: len(mine)] = mine
    parts = [torch.empty_like(filled) for _ in counts]
    dist.all_gather(parts, filled)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(rows.device)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _carrier() -> torch.device:
    """Where the backend moves tensors: NCCL on the GPU alone, others through the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")
