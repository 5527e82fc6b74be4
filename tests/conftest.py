"""What holds for every test: nothing leaves loopback, and no hub or price list is asked."""

import gc
import ipaddress
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test depends on how fast the machine is: what must be cheap is counted (tests/counting.py), not timed.
# Properties are tried on the same values each time, so that what is red comes from what was changed; on new ones with
# `pytest --hypothesis-profile fresh`.
settings.register_profile("fresh", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("untimed", settings.get_profile("fresh"), derandomize=True)
settings.load_profile("untimed")

# A shell that starts the tests in the background has them ignore Ctrl-C, and their processes with them.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    LITELLM_MODE="PRODUCTION",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # models in tests are tiny, and each core has tests to run

_escapes: list[str] = []
_file: list[Path] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """What a file finds stays: the tests, and the libraries that earlier files loaded.

    Walking through all of it takes longer than what is tested, wherever much is allocated or garbage collected.
    """
    if _file != [item.path]:
        _file[:] = [item.path]
        gc.collect()
        gc.freeze()


def is_loopback(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host is None or host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and not is_loopback(address[0]):
            _escapes.append(f"connect to {address}")
            raise ConnectionRefusedError(f"tests stay on loopback, not {address}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not is_loopback(arguments[0]):
        _escapes.append(f"look-up of {arguments[0]!r}")
        raise ConnectionRefusedError(f"tests stay on loopback, not {arguments[0]!r}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def stays_on_loopback() -> Iterator[None]:
    """Fail the test that tried to leave loopback, even where its own code swallowed the error."""
    _escapes.clear()
    yield
    escapes, _escapes[:] = _escapes[:], []
    if escapes:
        pytest.fail("left loopback: " + "; ".join(escapes))


@pytest.fixture(scope="session")
def world():
    """The simulated world, see tests/train/world.py."""
    from tests.train import world

    return world


@pytest.fixture
def overlap_is_known() -> Iterator[None]:
    """The small worlds of the tests have examples in both halves, of which nobody is to be warned."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ example")
        yield


@pytest.fixture
def escapes() -> list[str]:
    """The attempts to leave loopback so far, for the test of this guard itself."""
    return _escapes
