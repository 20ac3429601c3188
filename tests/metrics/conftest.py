"""What the tests of the metrics share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Thousands of small matrices: threads wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
