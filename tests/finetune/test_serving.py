"""What was trained, served elsewhere: the folder, the LoRA, and servers that the program runs on unchanged."""

from __future__ import annotations

import copy
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from promptgrad import lm, nn
from promptgrad.data import Example
from promptgrad.finetune import TuneResult, sft
from promptgrad.testing import LoopbackLM
from tests.waiting import until

DATA = [
    Example(text=text, answer=answer) for text, answer in (("a cow", "dax"), ("a wolf", "fep"), ("the horse", "nup"))
]
TEXTS = ["a cow", "a wolf", "the horse", "here is a cow", "amy has a wolf", "a hammer"]


@pytest.fixture(scope="module")
def base() -> lm.Local:
    """A random Qwen 3 that reads what the embedded model reads."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = lm.pocket().tokenizer
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    return lm.Local(Qwen3ForCausalLM(config).eval(), tokenizer, name="base", adapter="pocket", max_tokens=12)


@pytest.fixture(scope="module")
def tuned(base: lm.Local) -> TuneResult:
    program = nn.Predict("text -> answer", instruction="answer the question").to(base)
    return sft(program, DATA, steps=30, lr=5e-3, batch_size=3, lora={"r": 16, "alpha": 32})


@pytest.fixture(scope="module")
def folder(tuned: TuneResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned.save(tmp_path_factory.mktemp("served") / "tuned")


def replies(tuned: TuneResult, model: lm.LM) -> list[str]:
    program = copy.deepcopy(tuned.program).to(model)
    return [str(program(text=text).answer) for text in TEXTS]


@pytest.fixture(scope="module")
def right(tuned: TuneResult) -> list[str]:
    answers = replies(tuned, tuned.lm)
    assert len(set(answers)) > 1
    return answers


def test_the_folder_is_an_ordinary_one(tuned: TuneResult, folder: Path, right: list[str]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.architectures == ["Qwen3ForCausalLM"]  # servers ask for it
    loaded = lm.Local(model, AutoTokenizer.from_pretrained(folder), adapter="pocket", max_tokens=12)
    assert replies(tuned, loaded) == right
    assert replies(tuned, lm.Local(folder, adapter="pocket", max_tokens=12)) == right
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".jinja"}


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve FOLDER`, a process of its own."""
    pytest.importorskip("fastapi", reason="transformers serve needs fastapi and uvicorn")
    pytest.importorskip("uvicorn", reason="transformers serve needs fastapi and uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "serve.log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--port", str(port)]
    with log.open("wb") as out:
        server = subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=out, stderr=out)
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: server.poll() is not None or is_up(f"{address}/health"), seconds=600)
        assert server.poll() is None, log.read_text()
        yield f"{address}/v1"
    finally:
        server.kill()
        server.wait()


def is_up(url: str) -> bool:
    try:
        with urlopen(url, timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_same_weights_are_the_same_bytes(base: lm.Local, tuned: TuneResult, tmp_path: Path) -> None:
    """The order of a file's metadata is drawn anew by safetensors."""
    of_view = sft(nn.Predict("text -> answer").to(base.lora("view")), DATA, steps=1)
    for made, name in ((tuned, "model.safetensors"), (of_view, "adapter_model.safetensors")):
        files = {(made.save(tmp_path / f"{name} {n}") / name).read_bytes() for n in range(8)}
        assert len(files) == 1


def test_transformers_serve_writes_what_the_folder_writes(
    tuned: TuneResult, folder: Path, right: list[str], served: str
) -> None:
    """The recipe for transformers: `transformers serve FOLDER`, and the program unchanged."""
    model = lm.resolve(str(folder), base_url=served, adapter="pocket", temperature=0.0, max_tokens=12)
    assert replies(tuned, model) == right


def test_hosted_vllm_is_asked_for_the_served_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe for vLLM: `vllm serve FOLDER --served-model-name tuned`."""
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "token-of-the-server")
    with LoopbackLM("dax") as server:
        monkeypatch.setenv("HOSTED_VLLM_API_BASE", server.url)
        program = nn.Predict("text -> answer", instruction="answer the question")
        program.to(lm.resolve("hosted_vllm/tuned", adapter="pocket", temperature=0.0, max_tokens=12))
        assert program(text="a cow").answer == "dax"
        (asked,) = server.requests
    assert asked.path == "/v1/chat/completions"
    assert asked.json == {
        "model": "tuned",
        "messages": program.render(text="a cow"),
        "temperature": 0.0,
        "max_tokens": 12,
    }
    assert asked.headers["authorization"] == "Bearer token-of-the-server"
