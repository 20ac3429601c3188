"""Where training begins: at the weights that another run exported, instead of random ones."""

from pathlib import Path

from safetensors.torch import load_file

from smallbatch.cli.naming import weights_of
from smallbatch.cli.runs import autoencoder_of, refuse_other_latents, shapes_in, text_of
from smallbatch.cli.shapes import Shapes, misfit, shapes_of
from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.latents.autoencoder import Autoencoder
from smallbatch.text.encoder import TextEncoder
from smallbatch.text.words import Words


def check(denoiser: Denoiser, init_from: str, autoencoder: Autoencoder | None) -> None:
    """All of the network's weights must be there, and no others, and have learned such images or latents.

    `denoiser` may live on the meta device.
    """
    path = weights_of(init_from)
    if not path.is_file():
        raise UserError(f"init_from={init_from} holds no {path.name}: give the folder of a run that has exported")
    wanted, there = shapes_of(denoiser.state_dict()), shapes_in(path)
    if odd := misfit(shared(wanted, there), shared(there, wanted)):
        raise UserError(f"init_from={init_from} has another network: {odd}; choose its network= and prediction=")
    refuse_other_latents(f"init_from={init_from}", autoencoder_of(path.parent), autoencoder)


def load(denoiser: Denoiser, init_from: str) -> None:
    """Overwrites the network's weights, and what the prediction has learned where both have learned it."""
    state, stored = denoiser.state_dict(), load_file(weights_of(init_from))
    for name in shared(shapes_of(state), shapes_of(stored)):
        state[name].copy_(stored[name])


def vocabulary(text: TextEncoder | None, init_from: str | None) -> TextEncoder | None:
    """The words whose numbers stand in those weights, where none are given."""
    if init_from is None or not isinstance(text, Words) or text.words is not None:
        return text
    known = text_of(Path(init_from).expanduser())
    return Words(known.words, text.length or known.length) if isinstance(known, Words) else text


def shared(mine: Shapes, other: Shapes) -> Shapes:
    """The network's, and of the rest what both have."""
    return {name: shape for name, shape in mine.items() if name.startswith("network.") or name in other}
