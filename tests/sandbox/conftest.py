"""The interpreters that these tests are about."""

import pytest

from promptgrad import sandbox

pytest.importorskip("pydantic_monty")

MAKERS = {"monty": sandbox.Monty}


@pytest.fixture(params=MAKERS)
def make(request):
    """Makes an interpreter with limits."""
    return lambda **limits: MAKERS[request.param](sandbox.Limits(**limits))


@pytest.fixture
def interpreter(make):
    return make()
