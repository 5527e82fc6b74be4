"""Every Python block of the README and of the guide runs, in the order in which it stands on its page."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from promptgrad.testing import Fields, LoopbackLM

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
GUIDE = sorted([*(ROOT / "docs" / "guide").glob("*.md"), *(ROOT / "docs" / "tutorials").glob("*.md")])
RUN_HERE = [page for page in GUIDE if not page.with_suffix(".ipynb").exists()]
"""All but those whose blocks run as a notebook, in tests/test_notebooks.py."""

# Runs the pages it is given, each in a folder and a namespace of its own, and writes what went wrong. One process
# for all, because loading torch takes longer than a page.
RUNNER = """
import json, os, pathlib, runpy, sys, traceback
import promptgrad as pg

failures = {}
for script in map(pathlib.Path, sys.argv[1:]):
    os.chdir(script.parent)
    try:
        runpy.run_path(str(script))
    except Exception:
        failures[script.stem] = traceback.format_exc()
    pg.configure(lm=None, critic=None, adapter=None, concurrency=None, cache=None)
pathlib.Path(__file__).with_name("failures.json").write_text(json.dumps(failures))
"""


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def run_script(script, *arguments, timeout, **variables):
    done = subprocess.run(
        [sys.executable, script.name, *map(str, arguments)],
        cwd=script.parent,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_readme_shows_code():
    assert len(blocks_of(README)) >= 2


def test_the_blocks_run_one_after_the_other(tmp_path):
    pytest.importorskip("torch")
    script = tmp_path / "readme.py"
    script.write_text("\n\n".join(blocks_of(README)))
    run_script(script, timeout=600)
    saved = {path.name for path in tmp_path.iterdir()} - {"readme.py"}
    assert saved == set(re.findall(r'pg\.save\([^)]*\), "([^"]+)"\)', "\n".join(blocks_of(README))))


def test_the_first_blocks_are_for_a_provider_and_run_with_its_key_alone(tmp_path):
    blocks = re.findall(r"^```py\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    rows = [
        f"{'I was charged' if n % 2 else 'It crashes'} {n} times,{'billing' if n % 2 else 'helpdesk'}"
        for n in range(24)
    ]
    (tmp_path / "tickets.csv").write_text("\n".join(["message,team", *rows]))
    script = tmp_path / "provider.py"
    script.write_text("\n\n".join(blocks))
    asked = Fields("ok", team=lambda inputs: "billing" if "charged" in inputs["message"] else "helpdesk", urgent="true")
    with LoopbackLM(asked) as server:
        said = run_script(script, timeout=600, OPENAI_API_KEY="none", OPENAI_BASE_URL=server.url)
        assert server.requests
    assert said.splitlines()[0] == "billing True"
    assert (tmp_path / "sort.json").exists()


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """What went wrong on the pages of the guide, by page."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("guide")
    scripts = []
    for page in RUN_HERE:
        script = folder / page.stem / f"{page.stem}.py"
        script.parent.mkdir()
        script.write_text("\n\n".join(blocks_of(page)))
        scripts.append(script)
    runner = folder / "runner.py"
    runner.write_text(RUNNER)
    run_script(runner, *scripts, timeout=1500)  # forty pages, one after the other
    return json.loads((folder / "failures.json").read_text())


@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_of_the_guide_run(page, failures):
    assert blocks_of(page)
    assert page.stem not in failures, failures[page.stem][-3000:]


@pytest.mark.parametrize("page", [*GUIDE, ROOT / "docs" / "reference.md"], ids=lambda page: page.stem)
def test_links_of_the_guide_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
