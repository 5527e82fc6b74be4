"""How many functions of the package one call goes through: counted, so that what a call costs stays what it is."""

import json
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad import nn

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = str(Path(pg.__file__).parent)
REPLY = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"


def functions(work):
    """How many functions of the package are entered, each turn of a coroutine included."""
    entered = 0

    def profile(frame, event, argument):
        nonlocal entered
        entered += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return entered


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
    """Counted in a process of its own: what other tests have loaded and left there changes the count."""
    code = "from tests.nn.test_call_steps import main; main()"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize(("what", "most"), [("recorded", 89), ("unrecorded", 67), ("bare", 71)])
def test_a_call_goes_through_so_many_functions(found, what, most):
    assert found[what] <= most
