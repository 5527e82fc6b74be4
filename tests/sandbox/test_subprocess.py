"""`sandbox.Subprocess`: what a Python of its own can do, and what is left of it."""

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from promptgrad import nn, sandbox
from promptgrad.sandbox import Subprocess
from tests.nn.test_code_modules import Writer
from tests.sandbox.conftest import CONFINED

pytestmark = pytest.mark.skipif(not CONFINED, reason="a process cannot be confined here")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where its processes have their folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_nothing_is_left_of_a_session(folder):
    session = Subprocess().session()
    session.run("x = 1")
    pid = session._process._process.pid
    assert len(list(folder.iterdir())) == 1
    session.close()
    assert list(folder.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_nothing_is_left_of_one_that_was_ended(folder):
    session = Subprocess(sandbox.Limits(seconds=0.1)).session()
    session.run("1")
    pid = session._process._process.pid
    assert session.run("while True: pass").error.limit == "seconds"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list(folder.iterdir()) == []
    session.close()


def test_a_program_on_a_machine_that_is_busy_comes_to_its_end():
    session = Subprocess(sandbox.Limits(seconds=0.3, wall=60)).session()
    with session:
        assert session.run("import time\ntime.sleep(0.5)\n1").value == 1

        def starve():  # the machine has no processor for it
            pid = session._process._process.pid
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(0.5, os.kill, (pid, signal.SIGCONT)).start()

        assert session.run("starve()\nsum(range(1000))", functions={"starve": starve}).value == 499500


def test_a_program_that_waits_is_ended_by_the_clock():
    limits = sandbox.Limits(seconds=0.1, wall=0.2)
    found = Subprocess(limits).run("import time\ntime.sleep(100)").error
    assert (found.kind, found.limit) == ("TimeoutError", "wall")
    assert found.message == "it took more than 0.2 s by the clock, and computed for less of it"


def test_a_program_that_computes_is_ended_by_the_processor_s_time():
    limits, seen = sandbox.Limits(seconds=0.3, wall=60), []
    code = """
import time
begun = time.process_time()
while True:
    if time.process_time() - begun > 0.02 * (told + 1):
        told += 1
        note(time.process_time() - begun)
"""
    found = Subprocess(limits).run(code, {"told": 0}, {"note": seen.append}).error
    assert found.limit == "seconds"
    assert seen[-1] > 0.2


def test_the_whole_language_and_its_library_are_there():
    code = """
import dataclasses, enum, heapq, statistics, sqlite3, string, asyncio

class Colour(enum.Enum):
    RED = 1

def squares():
    for n in range(4):
        yield n * n

class Base:
    @property
    def kind(self): return "base"

class Derived(Base): pass

found = [*squares()]
del found[0]
rows = sqlite3.connect(":memory:").execute("select 7")
[found, Derived().kind, statistics.median(found), Colour.RED.value, rows.fetchone()[0]]
"""
    assert Subprocess().run(code).value == [[1, 4, 9], "base", 4, 1, 7]


def test_packages_on_request_and_no_other_files():
    pytest.importorskip("numpy")
    code = "import numpy\nint((numpy.ones((20, 20)) @ numpy.ones((20, 20)))[0, 0])"
    assert Subprocess().run(code).error.kind == "ModuleNotFoundError"
    with Subprocess(sandbox.Limits(seconds=60), packages=True).session() as session:
        assert session.run(code).value == 20
        assert session.run("open(path).read()", {"path": __file__}).error.kind == "PermissionError"


def test_it_finds_nothing_of_its_parent():
    code = "import os, sys\n[sorted(os.environ), sys.argv, os.getcwd()]"
    names, argv, here = Subprocess().run(code).value
    assert set(names) <= {"PYTHONHASHSEED", "LC_CTYPE"}
    assert [Path(path).name for path in argv] == ["_child.py"]
    assert Path(here) != Path.cwd()
    assert str(Path(__file__).resolve().parents[2]) not in Subprocess().run("import sys\nrepr(sys.path)").value


def test_modules_run_their_code_in_it():
    writer = Writer("def squares():\n  yield 4\nsubmit(next(squares()))")
    model = nn.ProgramOfThought("question -> answer: int", interpreter=Subprocess()).to(writer)
    assert model("?").answer == 4
    version = ".".join(map(str, sys.version_info[:2]))
    assert f"Python {version}, with its standard library" in writer.asked[0].messages[-1].preview
