import torch

from smallbatch.data.images import to_float, to_pixels

every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_pixels_survive_the_round_trip_through_floats():
    assert torch.equal(to_pixels(to_float(every)), every)


def test_floats_span_minus_one_to_one():
    assert (to_float(every).min(), to_float(every).max()) == (-1, 1)


def test_values_out_of_range_are_clamped():
    x = torch.tensor([-3.0, -1, 0.999, 1, 7]).reshape(1, 1, 1, 5)
    assert to_pixels(x).flatten().tolist() == [0, 0, 255, 255, 255]
