import pytest


@pytest.fixture(scope="session")
def programs():
    """Small programs whose calls are played, of the tests of autograd."""
    from tests.autograd import programs

    return programs
