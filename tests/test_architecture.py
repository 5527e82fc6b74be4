"""docs/architecture.md is true: the rooms and the files that it names are there, and no room is left out."""

import re

import pytest

from tests.test_layering import GROUP, PACKAGE

ROOT = PACKAGE.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
TABLE = re.search(r"^## The rooms$(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)[1]
LISTED = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in TABLE.splitlines() if line.startswith("| `")]


def files(page):
    """Paths of the files that a page names; one without a folder is in that of the file named before it."""
    found, folder = [], ""
    for path in re.findall(r"`([\w./]+\.(?:py|md|toml|cfg))`", page):
        if "/" in path:
            folder = path.rpartition("/")[0]
        found.append(path if "/" in path or path == "__init__.py" else f"{folder}/{path}")
    return list(dict.fromkeys(found))


def test_the_table_has_every_room_once_in_the_order_of_imports():
    there = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    named = [room for line in LISTED for room in line]
    assert sorted(named) == sorted(["errors", *there])
    assert [GROUP[room] for room in named] == sorted(GROUP[room] for room in named)
    assert [line for line in LISTED if len({GROUP[room] for room in line}) > 1] == []


@pytest.mark.parametrize("path", files(PAGE))
def test_a_file_that_the_page_names_is_there(path):
    assert (PACKAGE / path).exists() or (ROOT / path).exists()


def test_files_are_found_with_their_folders():
    assert files("`nn/_a.py` and `_b.py`, `__init__.py`; `tests/c.py`") == [
        "nn/_a.py",
        "nn/_b.py",
        "__init__.py",
        "tests/c.py",
    ]
    assert {"autograd/_engine.py", "autograd/_joint.py", "optim/_search.py"} <= {*files(PAGE)}
