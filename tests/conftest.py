"""No test leaves a process behind, however it ends; and no test reads a YAML file of ours again."""

import copy

import lightning  # noqa: F401  before any module of ours: see below
import matplotlib.pyplot  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch_fidelity  # noqa: F401
import wandb  # noqa: F401
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource

from tests.processes import end_all

# What a module of ours imports is compiled anew, not read from its .pyc, for jaxtyping's hook gives whatever loads
# meanwhile other names of such files. Loaded here, before the hook sees any module, the libraries cost half.


@pytest.fixture(autouse=True)
def nothing_left_running():
    yield
    end_all()


@pytest.fixture(autouse=True, scope="session")
def each_config_file_is_read_once():
    """Reading YAML is half of what it takes to compose, which hundreds of tests do."""
    with pytest.MonkeyPatch.context() as patch:
        for source in (FileConfigSource, ImportlibResourcesConfigSource):
            patch.setattr(source, "load_config", read_once(source.load_config))
        yield


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """Imported here, as below: it takes seconds, which most tests need not."""
    from tests.text.models import save_clip

    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return folder


@pytest.fixture(scope="session")
def vae_folder(tmp_path_factory):
    from tests.latents.models import save_vae

    folder = tmp_path_factory.mktemp("vae")
    save_vae(folder, scaling_factor=0.5, shift_factor=0.25)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Of scenes of shapes, 16 pixels a side, each beside its caption."""
    from tests.photos import save_photos

    folder = tmp_path_factory.mktemp("photos")
    save_photos(folder)
    return folder


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory):
    """Inception of random weights; to make it takes seconds."""
    from tests.metrics import random_inception

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    random_inception.write(path)
    return path


def read_once(load_config):
    kept = {}

    def load(self, config_path):
        key = self.path, config_path
        if key not in kept:
            kept[key] = load_config(self, config_path)
        return copy.deepcopy(kept[key])

    return load
