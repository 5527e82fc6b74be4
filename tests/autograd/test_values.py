"""Looking into values: how deep a record copies them."""

import pytest

from promptgrad.autograd._values import snapshot


@pytest.mark.parametrize(
    ("around", "into"),
    [
        (lambda inner: [inner], lambda outer: outer[0]),
        (lambda inner: (inner,), lambda outer: outer[0]),
        (lambda inner: {"a": inner}, lambda outer: outer["a"]),
    ],
)
def test_containers_are_copied_to_a_depth_and_kept_from_there_on(around, into):
    value = around("a text")
    for _ in range(60):
        value = around(value)
    copy = snapshot(value)
    same = []
    for _ in range(60):
        same.append(copy is value)
        copy, value = into(copy), into(value)
    assert same == [False] * 33 + [True] * 27
