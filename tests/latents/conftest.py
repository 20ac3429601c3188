import pytest


@pytest.fixture(scope="session")
def vae_folder(tmp_path_factory):
    from tests.latents.models import save_vae

    folder = tmp_path_factory.mktemp("vae")
    save_vae(folder, scaling_factor=0.5, shift_factor=0.25)
    return folder
