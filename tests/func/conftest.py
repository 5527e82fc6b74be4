import pytest


@pytest.fixture
def model(world):
    """`text -> word -> answer`: takes the first word and copies it, until its instructions say better."""
    from promptgrad import lm

    return world.Program().to(lm.FunctionLM(world.answer, name="simulated"))
