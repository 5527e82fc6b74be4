"""The interpreters that these tests are about."""

import sys

import pytest

from promptgrad import sandbox

pytest.importorskip("pydantic_monty")

MAKERS = {"monty": sandbox.Monty, "subprocess": sandbox.Subprocess}
CONFINED = sys.platform == "linux" and not sandbox.Subprocess().missing()
"""Whether this machine can take from a process what `Subprocess` takes."""


@pytest.fixture(params=MAKERS)
def make(request):
    """Makes an interpreter with limits."""
    if request.param == "subprocess" and not CONFINED:
        pytest.skip("a process cannot be confined here")
    return lambda **limits: MAKERS[request.param](sandbox.Limits(**limits))


@pytest.fixture
def interpreter(make):
    return make()
