"""A network that does not fit its data or its prediction is refused before anything is written."""

from pathlib import Path

import pytest

from smallbatch.networks.unet import UNet
from tests.cli import TINY


class OneMapTooMany(UNet):
    def __init__(self, spec, outputs, **flags):
        super().__init__(spec, outputs + 1, **flags)


class Deaf(UNet):
    """Enlarges nothing."""

    def __init__(self, spec, outputs, **flags):
        super().__init__(spec._replace(low_size=None), outputs, **flags)


def test_small_images_need_a_network_that_enlarges_them(refused):
    line = refused("train", *TINY, "data.low_size=4", f"network._target_={__name__}.Deaf")
    assert "data.low_size=4: Deaf enlarges no images" in line and not Path("runs").exists()


@pytest.mark.parametrize("more", [(), ("dry_run=true",)])
def test_a_low_size_that_does_not_divide_the_size_is_refused(refused, more):
    line = refused("train", *TINY, "data.low_size=3", *more)
    assert "data.low_size=3 does not divide 8: use one of [1, 2, 4]" in line and not Path("runs").exists()


def test_a_prediction_whose_outputs_the_network_lacks_is_refused_with_both_numbers(refused):
    line = refused("train", *TINY, f"network._target_={__name__}.OneMapTooMany")
    assert "needs 1 x 1 = 1 maps, the network gives 2" in line and not Path("runs").exists()


def test_the_cost_of_an_upsampler_is_known_without_its_data(smallbatch):
    plain, upsampler = (smallbatch("train", *TINY, "dry_run=true", f"data.low_size={side}") for side in ("null", 4))
    parameters, more = (int(out.split("parameters")[1].split()[0].replace(",", "")) for out in (plain, upsampler))
    assert more == parameters + 9 * 8
