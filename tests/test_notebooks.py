from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def shows_a_picture(cell: NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def test_there_are_notebooks():
    assert NOTEBOOKS


@notebooks
def test_notebooks_are_committed_without_outputs(path):
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(path))


@notebooks
def test_notebooks_run_and_their_picture_cells_show_pictures(path, monkeypatch):
    """nbclient raises where a cell does."""
    monkeypatch.setenv("SMALLBATCH_NOTEBOOK_IMAGES", "256")
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=120, resources={"metadata": {"path": path.parent}}).execute()
    expected = [cell for cell in book.cells if "picture" in cell.metadata.get("tags", [])]
    assert expected, "tag the cells that must show a picture with `picture`"
    assert [cell.id for cell in expected if not shows_a_picture(cell)] == []
