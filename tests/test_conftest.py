import ast
import socket
from pathlib import Path

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


CLOCKS = {"perf_counter", "process_time", "thread_time", "monotonic", "time", "perf_counter_ns", "monotonic_ns"}
LOWER_BOUNDS = {"aio/test_gather.py", "testing/test_loopback.py"}  # a wait lasts at least so long, on any machine


def test_no_test_reads_a_clock():
    """What must be cheap is counted (tests/counting.py), and what must happen is waited for (tests/waiting.py)."""
    folder = Path(__file__).parent
    timed = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if name == "waiting.py" or name in LOWER_BOUNDS:
            continue
        timed += [
            f"{name}:{node.lineno}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CLOCKS
            and getattr(node.func.value, "id", "") == "time"
        ]
    assert timed == []


def test_no_property_has_a_deadline():
    assert settings.default.deadline is None


def test_no_test_stands_where_it_is_not_collected():
    """As in a class whose name does not begin with Test."""
    folder = Path(__file__).parent
    lost = [
        f"{path.relative_to(folder).as_posix()}: {part.name}"
        for path in sorted(folder.rglob("test_*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("Test")
        for part in node.body
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)) and part.name.startswith("test_")
    ]
    assert lost == []
