"""A process that forks after its first call: child and parent both go on, however the child ends."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

SCRIPT = """
import contextlib, os, sys, tempfile, threading
from promptgrad.errors import LMError
from promptgrad.lm import HTTP, Cache, Limit
from promptgrad.testing import Hang, LoopbackLM

server = LoopbackLM(respond=lambda messages: messages[-1]["content"])
folder = tempfile.mkdtemp()
lm = Cache(Limit(HTTP("m", server.url, concurrency=2), 2), folder)
assert lm("before").text == "before"
server.script(Hang(), Hang())

def ask(prompt):
    with contextlib.suppress(LMError):  # the server is reset below
        lm(prompt)

busy = [threading.Thread(target=ask, args=(prompt,), daemon=True) for prompt in ("busy", "busy too")]
for thread in busy:
    thread.start()
server.wait_for(3)

taken = lm.lm._places.lock
taken.acquire()  # as if a thread that is not in the child were just taking a place
child = os.fork()
if child:
    taken.release()
else:
    assert lm("before").cached
    assert lm("busy").text == "busy", "the parent's call in flight holds no place here"
    assert lm("in the child").text == "in the child"
    lm.flush()
    {end}
assert os.waitpid(child, 0)[1] == 0
server.reset()
other = Cache(HTTP("m", server.url), folder)
for i in range(5):
    assert other(str(i)).text == str(i)
assert other("in the child").cached
server.close()
for thread in busy:
    thread.join(60)
print("fine")
"""


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
def test_child_and_parent_go_on(end):
    script = SCRIPT.replace("{end}", end)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
