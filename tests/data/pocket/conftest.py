"""The exported model, loaded once; tests that need it are skipped where `transformers` is not installed."""

from __future__ import annotations

from typing import Any

import pytest

from promptgrad.data import pocket


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(pocket.model_path())


@pytest.fixture(scope="session")
def model() -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(pocket.model_path(), dtype=torch.float32).eval()
