"""A network that does not fit its data or its prediction is refused before anything is written."""

from pathlib import Path

from smallbatch.networks.unet import UNet
from tests.cli import TINY


class OneMapTooMany(UNet):
    def __init__(self, spec, outputs, **flags):
        super().__init__(spec, outputs + 1, **flags)


def test_an_upsampler_needs_data_with_small_images(refused):
    line = refused("train", *TINY, "network.low_resolution=4")
    assert "network.low_resolution=4: this data set gives no small images" in line and not Path("runs").exists()


def test_a_prediction_whose_outputs_the_network_lacks_is_refused_with_both_numbers(refused):
    line = refused("train", *TINY, f"network._target_={__name__}.OneMapTooMany")
    assert "needs 1 x 1 = 1 maps, the network gives 2" in line and not Path("runs").exists()


def test_the_cost_of_an_upsampler_is_known_without_its_data(smallbatch):
    plain, upsampler = (
        smallbatch("train", *TINY, "dry_run=true", f"network.low_resolution={side}") for side in ("null", 4)
    )
    parameters, more = (int(out.split("parameters")[1].split()[0].replace(",", "")) for out in (plain, upsampler))
    assert more == parameters + 9 * 8
