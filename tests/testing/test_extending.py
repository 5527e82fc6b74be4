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


def run_pytest(folder, name, *options):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        capture_output=True,
        text=True,
        timeout=600,  # ends only what hangs
        check=False,
    )


def test_every_block_of_python_is_a_file():
    assert len(FILES) == PAGE.read_text().count("```python\n")


def test_the_language_model_of_the_page_passes_its_contract(tmp_path):
    for name in ("house_lm.py", "test_house_lm.py"):
        (tmp_path / name).write_text(FILES[name])
    done = run_pytest(tmp_path, "test_house_lm.py")
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"^\d\d passed, 1 skipped", done.stdout, re.MULTILINE), done.stdout[-300:]


def test_and_does_not_when_its_key_shows(tmp_path):
    (tmp_path / "test_house_lm.py").write_text(FILES["test_house_lm.py"])
    (tmp_path / "house_lm.py").write_text(FILES["house_lm.py"].replace('f"house {self.url}', 'f"house {self._key}'))
    done = run_pytest(tmp_path, "test_house_lm.py", "-x")
    assert "test_secrets_show_nowhere" in done.stdout
    assert done.returncode == 1


def test_the_optimizer_of_the_page_passes_its_contract(tmp_path):
    for name in ("random_rewrites.py", "test_random_rewrites.py"):
        (tmp_path / name).write_text(FILES[name])
    done = run_pytest(tmp_path, "test_random_rewrites.py")
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"^\d\d passed, 1 skipped", done.stdout, re.MULTILINE), done.stdout[-300:]


def test_and_does_not_when_it_draws_by_itself(tmp_path):
    drawn = FILES["random_rewrites.py"].replace('session.rng("rewrite", number)', "random.Random(next(DRAWN))")
    source = "import itertools, random\n\nDRAWN = itertools.count()  # goes on from run to run\n"
    (tmp_path / "random_rewrites.py").write_text(source + drawn)
    (tmp_path / "test_random_rewrites.py").write_text(FILES["test_random_rewrites.py"])
    done = run_pytest(tmp_path, "test_random_rewrites.py", "-x")
    assert done.returncode == 1
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
