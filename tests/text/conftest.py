import pytest

from smallbatch.text.clip import Clip
from smallbatch.text.t5 import T5


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory):
    from tests.text.models import save_t5

    folder = tmp_path_factory.mktemp("t5")
    save_t5(folder)
    return folder


@pytest.fixture(params=["clip", "t5"])
def encoder(request):
    """Of texts of 12 tokens."""
    kind = {"clip": Clip, "t5": T5}[request.param]
    return kind(str(request.getfixturevalue(f"{request.param}_folder")), length=12)
