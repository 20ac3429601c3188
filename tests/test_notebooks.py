from pathlib import Path

import matplotlib
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib import pyplot as plt
from matplotlib_inline.backend_inline import configure_inline_support
from nbformat import NotebookNode
from traitlets.config import Config

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
INLINE = "module://matplotlib_inline.backend_inline"
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.fixture
def shell(monkeypatch):
    """What a notebook's kernel runs cells in, here in this process, which has loaded torch already."""
    monkeypatch.setenv("SMALLBATCH_NOTEBOOK_IMAGES", "160")
    monkeypatch.chdir(NOTEBOOKS[0].parent)
    before = matplotlib.get_backend()
    plt.switch_backend(INLINE)
    made = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    configure_inline_support(made, INLINE)
    with plt.ion():
        yield made
    configure_inline_support(made, before)
    InteractiveShell.clear_instance()
    plt.switch_backend(before)


def shows_a_picture(shell: InteractiveShell, cell: NotebookNode) -> bool:
    """Runs a cell; raises what it raises."""
    with capture_output() as shown:
        ran = shell.run_cell(cell.source)
    ran.raise_error()
    last, _ = shell.display_formatter.format(ran.result)
    return any("image/png" in data for data in [last, *(output.data for output in shown.outputs)])


def test_there_are_notebooks():
    assert NOTEBOOKS


@notebooks
def test_notebooks_are_committed_without_outputs(path):
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(path))


@notebooks
def test_notebooks_run_and_their_picture_cells_show_pictures(path, shell):
    shown = {cell.id: shows_a_picture(shell, cell) for cell in code_cells(path)}
    expected = [cell.id for cell in code_cells(path) if "picture" in cell.metadata.get("tags", [])]
    assert expected, "tag the cells that must show a picture with `picture`"
    assert [cell for cell in expected if not shown[cell]] == []
