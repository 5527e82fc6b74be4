"""How many functions of the package one call goes through: counted, so that what a call costs stays what it is."""

import json
import sys
from itertools import count

import pytest

import promptgrad as pg
from promptgrad import nn
from tests.counting import found_alone, functions

REPLY = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"


def main():
    """Write the counts of a call once it is warm: recorded, not recorded, and recorded without layers around the LM."""
    instant = pg.lm.FunctionLM(lambda messages: REPLY, name="instant")
    layered = pg.lm.Cache(pg.lm.Retry(pg.lm.Limit(instant, 256)))
    numbers = count()

    def counted(lm):
        model = nn.Predict("question -> answer", demos=[{"question": "Where?", "answer": "There"}]).to(lm)
        for _ in range(60):
            model(question=f"q{next(numbers)}")
        return functions(lambda: model(question=f"q{next(numbers)}"))

    found = {"recorded": counted(layered), "bare": counted(instant)}
    with pg.no_grad():
        found["unrecorded"] = counted(layered)
    sys.stdout.write(json.dumps(found))


@pytest.fixture(scope="module")
def found():
    return found_alone(__name__)


@pytest.mark.parametrize(("what", "most"), [("recorded", 89), ("unrecorded", 67), ("bare", 71)])
def test_a_call_goes_through_so_many_functions(found, what, most):
    assert found[what] <= most
