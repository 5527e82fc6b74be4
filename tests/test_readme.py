"""Every Python block of the README runs, in the order in which it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_shows_code():
    assert len(BLOCKS) >= 2


def test_the_blocks_run_one_after_the_other(tmp_path):
    pytest.importorskip("torch")
    script = tmp_path / "readme.py"
    script.write_text("\n\n".join(BLOCKS))
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    saved = {path.name for path in tmp_path.iterdir()} - {"readme.py"}
    assert saved == set(re.findall(r'pg\.save\([^)]*\), "([^"]+)"\)', "\n".join(BLOCKS)))
