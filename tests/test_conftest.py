import ast
import functools
import gc
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings


def test_a_connection_that_leaves_loopback_is_refused_and_noticed(escapes):
    with pytest.raises(ConnectionRefusedError, match="stay on loopback"), socket.socket() as out:
        out.connect(("192.0.2.1", 80))
    with pytest.raises(ConnectionRefusedError, match="stay on loopback"):
        socket.getaddrinfo("example.com", 443)
    assert len(escapes) == 2
    escapes.clear()


def test_loopback_may_be_reached(escapes):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    socket.getaddrinfo("localhost", 80)
    assert escapes == []


def test_what_an_earlier_file_left_is_not_walked_through(pytestconfig):
    def is_walked(thing):
        return any(each is thing for each in gc.get_objects())

    conftest = pytestconfig.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))
    left = [[]]
    assert is_walked(left)
    conftest.pytest_runtest_protocol(SimpleNamespace(path=Path("another.py")))
    assert not is_walked(left)


@functools.cache
def files():
    """Every file of the tests, parsed, by its path from here."""
    folder = Path(__file__).parent
    return {path.relative_to(folder).as_posix(): ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}


@functools.cache
def method_calls():
    """Every call of an attribute in the files of the tests, with the name of its file."""
    return [
        (name, node)
        for name, tree in files().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]


CLOCKS = {"perf_counter", "process_time", "thread_time", "monotonic", "time", "perf_counter_ns", "monotonic_ns"}
LOWER_BOUNDS = {"aio/test_gather.py", "testing/test_loopback.py"}  # a wait lasts at least so long, on any machine


def test_no_test_reads_a_clock():
    """What must be cheap is counted (tests/counting.py), and what must happen is waited for (tests/waiting.py)."""
    timed = [
        f"{name}:{node.lineno}"
        for name, node in method_calls()
        if name != "waiting.py"
        and name not in LOWER_BOUNDS
        and node.func.attr in CLOCKS
        and getattr(node.func.value, "id", "") == "time"
    ]
    assert timed == []


HANGS = 300
"""Seconds after which a process of a test hangs: with less, a busy machine decides."""
WAITS = {"run", "communicate", "wait", "check_output", "check_call", "call"}


def test_no_process_is_given_up_early():
    early = [
        f"{name}:{node.lineno}"
        for name, node in method_calls()
        if node.func.attr in WAITS
        for keyword in node.keywords
        if keyword.arg == "timeout"
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, (int, float))
        and keyword.value.value < HANGS
    ]
    assert early == []


def test_no_property_has_a_deadline():
    assert settings.default.deadline is None


def test_no_test_stands_where_it_is_not_collected():
    """As in a class whose name does not begin with Test."""
    lost = [
        f"{name}: {part.name}"
        for name, tree in files().items()
        if Path(name).name.startswith("test_")
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("Test")
        for part in node.body
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)) and part.name.startswith("test_")
    ]
    assert lost == []
