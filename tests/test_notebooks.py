"""The notebooks of the tutorials are their pages, and run in a real kernel."""

import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
WRITER = runpy.run_path(str(FOLDER / "notebooks.py"))


@pytest.mark.parametrize("name", WRITER["PAGES"])
def test_a_notebook_is_its_page(name):
    assert (FOLDER / f"{name}.ipynb").read_text() == WRITER["notebook"](FOLDER / f"{name}.md"), (
        "run python docs/tutorials/notebooks.py"
    )


def test_every_notebook_is_run_here():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(WRITER["PAGES"])


@pytest.mark.parametrize("name", WRITER["PAGES"])
def test_a_notebook_is_a_script_too(name):
    """Without what only a kernel runs: commands of the shell, and `await` outside of a function."""
    blocks = re.findall(r"^```python\n(.*?)^```", (FOLDER / f"{name}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    compile("\n\n".join(blocks), name, "exec")


@pytest.mark.parametrize("name", WRITER["PAGES"])
def test_a_notebook_runs_from_its_first_cell_to_its_last(name, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("torch")
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = [output for cell in code for output in cell.outputs]
    assert any("FitResult" in str(output) for output in shown)
