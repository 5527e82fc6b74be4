"""Every example runs, as its users run it: in a process of its own, on a server or on the embedded model."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from promptgrad import lm, nn
from promptgrad.data import pocket, read_jsonl
from promptgrad.testing import Fields, LoopbackLM, Reply, Status

FOLDER = Path(__file__).resolve().parents[1] / "examples"


def run(script, *arguments, folder, code=0, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(FOLDER / script), *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def server():
    with LoopbackLM(Fields("red"), record=False) as server:
        yield server


def test_every_example_is_run_here():
    tested = set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text()))
    assert {path.name for path in FOLDER.glob("*.py")} == tested


def test_gsm8k_plans_without_a_call(server, tmp_path):
    shown = run("gsm8k.py", "--lm", "m", "--base-url", server.url, "--plan", folder=tmp_path, OPENAI_API_KEY="none")
    assert "calls" in shown
    assert server._script.received == 0


@pytest.mark.parametrize("optimizer", ["bootstrap", "tgd"])
def test_gsm8k_optimizes_and_goes_on_with_a_finished_run(optimizer, server, tmp_path):
    arguments = ["--lm", "m", "--base-url", server.url, "--optimizer", optimizer, "--run-dir", "run"]
    sizes = ["--train", "6", "--val", "6", "--test", "4"]
    first = run("gsm8k.py", *arguments, *sizes, folder=tmp_path, OPENAI_API_KEY="none")
    assert "Saved as" in first
    assert (tmp_path / "run" / "program.json").exists()
    sent = server._script.received
    again = run("gsm8k.py", *arguments, *sizes, folder=tmp_path, OPENAI_API_KEY="none")
    assert "Going on with the run" in again
    assert server._script.received == sent
    other = run("gsm8k.py", *arguments, *sizes, "--max-calls", "9", folder=tmp_path, code=1, OPENAI_API_KEY="none")
    assert "--max-calls was None and is 9" in other
    assert "--seed" not in other
    assert server._script.received == sent


def test_quickstart_needs_a_test_example(tmp_path):
    assert "--test is at least 1, not 0" in run("quickstart.py", "--test", "0", folder=tmp_path, code=2)


def test_quickstart_runs_on_a_server(server, tmp_path):
    name = pocket.families()["chain"][0]
    train, _, _ = pocket.task(name).split(train=64, val=96, test=10)
    [(most_common, _)] = Counter(example.answer for example in train).most_common(1)
    server._script.respond = Fields(most_common)
    chosen = [
        "--lm",
        "openai/m",
        "--task",
        name,
        "--test",
        "10",
        "--optimizers",
        "BootstrapFewShot",
        "BootstrapFinetune",
    ]
    shown = run("quickstart.py", *chosen, folder=tmp_path, OPENAI_API_KEY="none", OPENAI_BASE_URL=server.url)
    assert "weights of openai/m are not at hand" in shown
    assert "the same as here" in shown
    assert list(tmp_path.iterdir()) == []


def test_quickstart_improves_the_embedded_model(tmp_path):
    pytest.importorskip("torch")
    shown = run("quickstart.py", "--optimizers", "BootstrapFewShot", "--test", "60", folder=tmp_path)
    assert "the same as here" in shown
    row = next(line for line in shown.splitlines() if "BootstrapFewShot" in line and "│" in line)
    gain = re.search(r"([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]", row)
    assert gain is not None, row
    assert float(gain[2]) > 0


def test_solution_gets_right_without_a_model(tmp_path):
    shown = run("solution.py", folder=tmp_path)
    assert "SIMULATED language model" in shown
    course = [float(value) for value in re.findall(r"loss ([\d.]+)", shown)]
    assert course == sorted(course, reverse=True)
    assert len(set(course)) == len(course) > 2
    assert course[-1] == 0
    assert re.search(r"\(right on all months\), after \d+ calls for rewrites and 0 for critiques", shown)
    assert list(tmp_path.iterdir()) == []


def test_solution_asks_a_server(server, tmp_path):
    asked = []
    right = "^ja|^ma|jul|au|o.t|ec"

    def answer(inputs):
        asked.append(inputs)
        return right if len(asked) == 2 else "["

    server._script.respond = Fields(new_solution=answer)
    arguments = ["--lm", "m", "--base-url", server.url]
    shown = run("solution.py", *arguments, folder=tmp_path, OPENAI_API_KEY="none")
    assert f"{right}  (right on all months), after 2 calls for rewrites" in shown
    assert "it should match 'july'" in asked[0]["rows"]
    assert "SIMULATED" not in shown
    assert "--base-url needs --lm" in run("solution.py", "--base-url", server.url, folder=tmp_path, code=2)


def test_micro_improves_its_prompts_with_nothing_but_the_standard_library(tmp_path):
    tree = ast.parse((FOLDER / "micro.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= {"__future__", "collections", "collections.abc"}
    assert len((FOLDER / "micro.py").read_text().splitlines()) < 190
    shown = run("micro.py", folder=tmp_path)
    assert "SIMULATED language models" in shown
    assert [float(value) for value in re.findall(r"Test loss at the \w+: ([\d.]+)", shown)] == [1.0, 0.0]
    assert re.findall(r"(\w+)\.instruction: '.*' (kept|refused), ([\d.]+) -> ([\d.]+)", shown) == [
        ("paint", "refused", "1.0", "1.0"),
        ("paint", "kept", "1.0", "0.5"),
        ("pick", "kept", "0.5", "0.0"),
    ]
    assert "pick.instruction: Pick a word. Take the last word." in shown
    assert list(tmp_path.iterdir()) == []


def test_custom_optimizer_is_whole_on_one_page_and_finds_the_phrases(tmp_path):
    assert len((FOLDER / "custom_optimizer.py").read_text().splitlines()) < 60
    shown = run("custom_optimizer.py", folder=tmp_path)
    assert "FitResult: shipped" in shown
    assert "instruction: write the color of the last word" in shown
    assert list(tmp_path.iterdir()) == []


def test_custom_optimizer_asks_a_server(server, tmp_path):
    answer = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": server.url}
    shown = run("custom_optimizer.py", "--lm", "openai/m", "--calls", "200", folder=tmp_path, **answer)
    assert "instruction: write" in shown
    assert 0 < server._script.received <= 200


@contextmanager
def served(script, *arguments, folder):
    """An example that serves a page, in a process of its own, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / script), "--port", "0", *arguments],
        cwd=folder,
        env={**os.environ, "OPENAI_API_KEY": "none"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield next(line.strip() for line in process.stdout if line.startswith("http://127.0.0.1:"))
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def sent_events(response):
    """The events of a response with server-sent events."""
    name = ""
    for line in map(bytes.decode, response):
        if line.startswith("event: "):
            name = line[7:].strip()
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def test_stream_chat_shows_answers_as_they_are_written_and_lets_go_of_them(server, tmp_path):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    server._script.respond = Fields(reasoning="so it is", answer="a red one")
    with served("stream_chat.py", "--lm", "m", "--base-url", server.url, folder=tmp_path) as address:
        with urlopen(address, timeout=60) as page:
            assert "EventSource" in page.read().decode()
        with urlopen(f"{address}ask?question=which", timeout=60) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            events = list(sent_events(response))
        deltas = [data for name, data in events if name == "delta"]
        assert [(data["field"], data["text"]) for data in deltas] == [
            *(("reasoning", "so"), ("reasoning", " it"), ("reasoning", " is")),
            *(("answer", "a"), ("answer", " red"), ("answer", " one")),
        ]
        assert events[-1][0] == "end"
        assert events[-1][1]["calls"] == 1
        server.script("no marker, [[ ## reasoning ## ]]", Status(401))
        with urlopen(f"{address}ask?question=fails", timeout=60) as response:
            assert list(sent_events(response))[-1] == ("failed", "AuthenticationError")
        server.script(Reply("[[ ## reasoning ## ]]\nso it goes on", pace=3600.0))
        with urlopen(f"{address}ask?question=slow", timeout=60):
            server.wait_for(4)
        server.wait_idle()  # the reader has left, and so has the request
    assert list(tmp_path.iterdir()) == []


def test_stream_chat_has_a_simulated_model():
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    spec = importlib.util.spec_from_file_location("stream_chat", FOLDER / "stream_chat.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    program = nn.ChainOfThought("question -> answer").to(lm.FunctionLM(example.simulated, name="simulated"))
    assert program(question="me").answer == "You asked: me"


def test_stream_chat_in_a_browser(server, tmp_path):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on the PATH")
    server._script.respond = Fields(reasoning="so it is", answer="a <red> one")
    with served("stream_chat.py", "--lm", "m", "--base-url", server.url, folder=tmp_path) as address:
        shown = dump_page(browser, f"{address}?question=which", tmp_path)
    assert '<p id="reasoning">so it is</p><p id="answer">a &lt;red&gt; one</p><p id="state">done: {' in shown


BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")


def dump_page(browser, address, folder):
    """What a page shows once its scripts have run, in a browser without a window and with a profile of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
        command = [browser, *flags, "--timeout=5000", "--virtual-time-budget=5000", "--dump-dom", address]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout


@pytest.mark.parametrize(("script", "kind"), [("finetune_intents.py", "Llama"), ("finetune_t5.py", "T5")])
def test_a_small_model_is_trained_on_real_questions(script, kind, tmp_path):
    for package in ("torch", "transformers", "peft"):
        pytest.importorskip(package)
    shown = run(script, "--quick", folder=tmp_path, OMP_NUM_THREADS="1")
    assert f"a {kind} of " in shown
    assert "30 training and 15 test questions of 3 intents" in shown
    rows = re.findall(r"│ ([\w ]+?) +│ +([\d,]+) │ +\d+ │ (\d\.\d{3}) \[(\d\.\d{3}), (\d\.\d{3})\]", shown)
    words = ["bag of words"] if importlib.util.find_spec("sklearn") else []
    assert [name for name, *_ in rows] == ["the base", "LoRA", "all weights", *words]
    assert all(float(low) <= float(score) <= float(high) for _, _, score, low, high in rows)
    assert ("The bag of words is left out: pip install scikit-learn" in shown) == (not words)
    assert list(tmp_path.iterdir()) == []


def test_finetune_intents_refuses_more_intents_than_there_are(tmp_path):
    assert "--intents is from 2 to 77, not 78" in run("finetune_intents.py", "--intents", "78", folder=tmp_path, code=2)


def test_the_sample_of_banking77_is_balanced_and_its_parts_share_no_question():
    parts = {}
    for part, number in (("train", 10), ("test", 5)):
        rows = read_jsonl(FOLDER / "data" / "banking77" / f"{part}.jsonl")
        assert set(Counter(row["intent"] for row in rows).values()) == {number}
        parts[part] = {" ".join(row["text"].lower().split()) for row in rows}
        assert len(parts[part]) == len(rows) == 77 * number
    assert not parts["train"] & parts["test"]
