"""The parts on the page for people who extend promptgrad pass the contract suites, run as a reader runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "extending.md"
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))


BROKEN = {
    "house_lm": ('f"house {self.url}', 'f"house {self._key}'),
    "random_rewrites": ('session.rng("rewrite", number)', "random.Random(next(DRAWN))"),
}
"""What is replaced in a part of the page, so that it breaks a promise."""
DRAWN = "import itertools, random\n\nDRAWN = itertools.count()  # goes on from run to run\n"


def run_pytest(folder, *options):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rpfs", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        capture_output=True,
        text=True,
        timeout=600,  # ends only what hangs
        check=False,
    )


def test_every_block_of_python_is_a_file():
    assert len(FILES) == PAGE.read_text().count("```python\n")


def test_the_parts_of_the_page_pass_their_contracts(tmp_path):
    """In one process: a language model, an optimizer, an adapter, an interpreter and a search."""
    pytest.importorskip("pydantic_monty")
    for name, source in FILES.items():
        (tmp_path / name).write_text(source)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.findall(r"^PASSED (test_\w+)\.py::", done.stdout, re.MULTILINE)
    suites = {name: passed.count(name) for name in dict.fromkeys(passed)}
    assert set(suites) == {"test_house_lm", "test_random_rewrites", "test_lines", "test_audited", "test_full_text"}
    assert min(suites.values()) >= 8, suites
    skipped = re.findall(r"^SKIPPED \[\d+\] .*: (.*)$", done.stdout, re.MULTILINE)
    assert len(skipped) <= 8, skipped


def test_and_do_not_when_they_break_a_promise(tmp_path):
    """The key of the language model shows, and the optimizer draws by itself."""
    for name, (old, new) in BROKEN.items():
        assert old in FILES[f"{name}.py"]
        begins = DRAWN if "DRAWN" in new else ""
        (tmp_path / f"{name}.py").write_text(begins + FILES[f"{name}.py"].replace(old, new))
        (tmp_path / f"test_{name}.py").write_text(FILES[f"test_{name}.py"])
    done = run_pytest(tmp_path, "-k", "secrets or same_seed")
    assert done.returncode == 1
    assert "test_secrets_show_nowhere" in done.stdout
    assert "ake all chance from session.rng" in done.stdout


def test_the_optimizer_of_the_page_trains(tmp_path):
    pytest.importorskip("torch")
    for name in ("random_rewrites.py", "train_with_rewrites.py"):
        (tmp_path / name).write_text(FILES[name])
    done = subprocess.run(
        [sys.executable, "train_with_rewrites.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        capture_output=True,
        text=True,
        timeout=600,  # ends only what hangs
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "FitResult: " in done.stdout
