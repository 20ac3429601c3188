from pathlib import Path

import pytest
from small_files import NAMES, draw


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Thirty images in three class folders."""
    for seed, name in enumerate(NAMES):
        draw(tmp_path / "animals" / name, seed)
    return tmp_path / "animals"
