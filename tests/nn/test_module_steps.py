"""What modules do beside their calls, counted in steps of Python beside those of a plain `Predict`."""

import json
import sys
from itertools import count

import pytest

import promptgrad as pg
from promptgrad import nn
from tests.counting import found_alone, steps

QA = "question -> answer"
ANSWER = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"


def look(name: str) -> str:
    """Look something up."""
    return "Nothing is known."


def reply(request: pg.lm.Request) -> pg.lm.Completion:
    """An answer; of an agent first a call of its tool, and then the end."""
    said = "\n".join(message.preview for message in request.messages)
    if "[[ ## tool ## ]]" not in said:
        return pg.lm.Completion(ANSWER)
    ends = "Nothing is known." in said
    values = {
        "thought": "So.",
        "tool": "finish" if ends else "look",
        "arguments": json.dumps({"answer": "Paris"} if ends else {"name": "Paris"}),
    }
    sections = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in values.items())
    return pg.lm.Completion(f"{sections}\n\n[[ ## completed ## ]]")


def each_call(model, calls, *, loop=False):
    """Steps for each LM call of a module, once it is warm and the history is full.

    With `loop` those of the program loop too, for what calls side by side; what else is left there counts as well, so
    not for what is driven in this thread.
    """
    model.to(pg.lm.FunctionLM(reply, name="instant"))
    numbers = count()
    for _ in range(60):
        model(question=f"q{next(numbers)}")
    return min(steps(lambda: model(question=f"q{next(numbers)}"), loop=loop) for _ in range(3)) / calls


MODULES = {
    "ReAct": (lambda: nn.ReAct(QA, [look]), 2, False),
    "BestOfN": (lambda: nn.BestOfN(nn.Predict(QA), 3, lambda inputs, output: 0.0, threshold=1.0), 3, False),
    "SelfConsistency": (lambda: nn.SelfConsistency(nn.Predict(QA), 3), 3, True),
    "Ensemble": (lambda: nn.Ensemble([nn.Predict(QA), nn.Predict(QA), nn.Predict(QA)]), 3, True),
}


def main():
    """Write how many times the steps of a call of a `Predict` each module takes for one of its calls."""
    plain = {loop: each_call(nn.Predict(QA), 1, loop=loop) for loop in (False, True)}
    found = {name: each_call(make(), calls, loop=loop) / plain[loop] for name, (make, calls, loop) in MODULES.items()}
    sys.stdout.write(json.dumps(found))


@pytest.fixture(scope="module")
def found():
    return found_alone(__name__)


@pytest.mark.parametrize(
    ("name", "most"), [("ReAct", 3.0), ("BestOfN", 2.0), ("SelfConsistency", 2.5), ("Ensemble", 2.0)]
)
def test_a_call_in_a_module_costs_little_more_than_a_call(name, most, found):
    assert 1 < found[name] < most
