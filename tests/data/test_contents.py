import subprocess
import sys

import pytest

import promptgrad.data


def test_every_name_is_there_and_no_other():
    for name in promptgrad.data.__all__:
        assert getattr(promptgrad.data, name) is not None
    assert set(promptgrad.data.__all__) <= set(dir(promptgrad.data))
    with pytest.raises(AttributeError, match="no attribute 'Dataset'"):
        _ = promptgrad.data.Dataset


def test_importing_it_loads_little():
    code = (
        "import sys, promptgrad.data;"
        "print('promptgrad.data.pocket' in sys.modules, 'promptgrad.data._loader' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
