"""`docs/reference.md` has one line for each public name of each room, and no other."""

import importlib
import re
from pathlib import Path

import pytest

import promptgrad as pg

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "reference.md").read_text()
SECTIONS = {
    title: dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", body, re.MULTILINE))
    for title, body in re.findall(r"^## (\S+)$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
}
ROOMS = [
    "promptgrad",
    *(f"promptgrad.{room}" for room in pg._ROOMS),
    "promptgrad.data.pocket",
    "promptgrad.testing.adapters",
    "promptgrad.testing.interpreters",
    "promptgrad.testing.lms",
    "promptgrad.testing.modules",
    "promptgrad.testing.optimizers",
]


def test_every_room_has_a_section_and_no_other_has():
    assert sorted(SECTIONS) == sorted(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_section_lists_the_public_names_of_its_room(room):
    public, listed = set(importlib.import_module(room).__all__), set(SECTIONS.get(room, {}))
    assert public - listed == set(), f"add a line for these to docs/reference.md, under {room}"
    assert listed - public == set(), f"docs/reference.md has these under {room}, and the room does not"


def test_every_line_says_something():
    assert [(room, name) for room, lines in SECTIONS.items() for name, line in lines.items() if len(line) < 8] == []
