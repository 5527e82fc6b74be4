"""The type of a part of a value, for what is said of a reply that does not fit."""

from typing import Any

import pytest

from promptgrad.adapters._inside import type_at


@pytest.mark.parametrize(
    ("annotation", "steps", "wanted"),
    [
        (list[int], (3,), int),
        (tuple[int, ...], (3,), int),
        (tuple[int, str], (1,), str),
        (tuple[int, str], (2,), None),
        (set[int], (0,), None),
        (dict[str, list[float]], ("a", 0), float),
        (list[int] | None, (0,), int),
        (list[int] | dict[str, int], (0,), None),
        (Any, (0,), None),
    ],
)
def test_the_type_of_a_part(annotation, steps, wanted):
    assert type_at(annotation, steps) is wanted
