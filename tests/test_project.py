"""The files around the package agree with it."""

import configparser
import re
from pathlib import Path

import pytest

import promptgrad as pg

ROOT = Path(__file__).resolve().parents[1]
NOT_SHIPPED = {"__pycache__"}


def data_files():
    for path in sorted((ROOT / "promptgrad").rglob("*")):
        if path.is_file() and path.suffix != ".py" and not NOT_SHIPPED & set(path.parts):
            yield path.relative_to(ROOT)


def test_every_data_file_is_shipped():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = {
        Path(*package.split(".")): [pattern.strip() for pattern in listed.replace("\n", ",").split(",") if pattern]
        for package, listed in setup["options.package_data"].items()
    }
    files = list(data_files())
    assert Path("promptgrad/py.typed") in files
    for file in files:
        shipped = any(file.match(str(folder / pattern)) for folder, listed in patterns.items() for pattern in listed)
        assert shipped, f"{file} is in no package_data of setup.cfg"


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in (ROOT / "promptgrad").rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == pg.__version__


def test_each_change_stands_once_in_the_changelog():
    lines = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("- ")]
    twice = {line[:60] for line in lines if sum(other[:60] == line[:60] for other in lines) > 1}
    assert twice == set()


PAGES = ["README.md", "CHANGELOG.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them of their words."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title)).lower().replace(" ", "-") for title in titles
    }


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"`[^`\n]*`", "", (ROOT / page).read_text())
    for target, anchor in re.findall(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page} links to {target}#{anchor}"


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+\.md)", page.read_text()):
            file = (page.parent / target).resolve()
            todo += [file] if file not in reached and file not in todo else []
    assert [page for page in PAGES if ROOT / page not in reached] == []


def test_every_target_that_the_readme_names_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z-]+)\b(?=[ `]*(?:#|`|\n|  ))", (ROOT / "README.md").read_text()))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"


SMELL = 450
"""Lines from which on a file is asked whether it is still one concept."""
LONG = {
    "errors.py": "one tree, drawn and listed in one place",
    "testing/lms.py": "one suite: subclasses override its methods, and each promise has its docstring",
    "testing/optimizers.py": "one suite, as testing.lms",
    "data/pocket/_ops.py": "a table: one entry for each operation of the pocket world",
    "data/pocket/_episodes.py": "a table: one entry for each kind of episode",
}
"""Files that are longer, and why each is one concept all the same."""


def test_a_long_file_says_why():
    lengths = {path.relative_to(ROOT / "promptgrad").as_posix(): path for path in (ROOT / "promptgrad").rglob("*.py")}
    long = {name for name, path in lengths.items() if len(path.read_text().splitlines()) > SMELL}
    assert long - LONG.keys() == set(), "split it by concepts, or say here why it is one"
    assert LONG.keys() - long == set(), "it is short enough: no reason is needed"
