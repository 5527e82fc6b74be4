"""Write the notebooks beside the pages: `python docs/tutorials/notebooks.py`. A test compares them, and runs them."""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).parent
PAGES = ("classification", "rag", "end_to_end")


def notebook(page: Path) -> str:
    """The notebook of a page: its texts and its Python blocks, in their order."""
    cells = []
    for number, piece in enumerate(
        re.split(r"^```python\n(.*?)^```\n", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    ):
        text = piece.strip("\n")
        if not text:
            continue
        cell = {"id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        if number % 2:
            cells.append({"cell_type": "code", "execution_count": None, **cell, "outputs": []})
        else:
            cells.append({"cell_type": "markdown", **cell})
    about = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    whole = {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in PAGES:
        (FOLDER / f"{name}.ipynb").write_text(notebook(FOLDER / f"{name}.md"))
