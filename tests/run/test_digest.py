import subprocess
import sys

import pytest

from promptgrad.data import Example
from promptgrad.lm import ImagePart
from promptgrad.run import value_digest


def test_equal_values_have_equal_digests_and_others_differ():
    demo = Example(q="a", a="b")
    values = [
        "a",
        "b",
        1,
        "1",
        1.5,
        None,
        True,
        ("a", "b"),
        (),
        (demo,),
        (demo.copy(a="c"),),
        {"a": 1},
        {"a": 2},
        {1: 2},
        ImagePart(b"one", "image/png"),
        ImagePart(b"two", "image/png"),  # shown alike
    ]
    digests = [value_digest(value) for value in values]
    assert len(set(digests)) == len(digests)
    assert value_digest((Example(a="b", q="a"),)) == value_digest([demo])


def test_it_is_the_same_in_another_process():
    code = (
        "from promptgrad.run import value_digest; from promptgrad.data import Example;"
        "print(value_digest((Example(q='ä', n=[1, {'k': {1, 2}}]),)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == value_digest((Example(q="ä", n=[1, {"k": {1, 2}}]),))


def test_an_object_without_content_is_refused():
    with pytest.raises(TypeError, match="no content that another process could compare"):
        value_digest(object())
