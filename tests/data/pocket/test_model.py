"""The exported folder: an ordinary Hugging Face model that obeys this world."""

from __future__ import annotations

import itertools
import json
from random import Random
from typing import Any

import pytest

from promptgrad.data import pocket
from promptgrad.data.pocket import _episodes as episodes

PATH = pocket.model_path()


def test_the_folder_is_small_and_ordinary() -> None:
    names = {p.name for p in PATH.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= names
    assert sum(p.stat().st_size for p in PATH.iterdir()) < 8_000_000
    config = json.loads((PATH / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert "auto_map" not in config


def test_the_tokenizer_has_the_vocabulary_in_its_order(tokenizer: Any) -> None:
    words = tokenizer.get_vocab()
    assert sorted(words, key=words.get) == list(pocket.vocabulary())


def test_decoding_gives_the_words_back(tokenizer: Any) -> None:
    r = Random(0)
    for _ in range(200):
        text = " ".join(episodes.mixture_episode(r).tokens)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert len(ids) == len(text.split())
    assert tokenizer.decode(tokenizer("it is red . and ; wolf")["input_ids"]) == "it is red . and ; wolf"


CONVERSATION = [
    {"role": "system", "content": "give the color of the last word"},
    {"role": "user", "content": "[[text]] cat wolf [[answer]]"},
    {"role": "assistant", "content": "grey"},
    {"role": "user", "content": "[[text]] wolf cat [[reasoning]]"},
    {"role": "assistant", "content": "the last word is cat [[answer]] black"},
]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("generate", [False, True])
def test_the_chat_template_renders_every_prefix_alike(tokenizer: Any, first: int, *, generate: bool) -> None:
    messages = CONVERSATION[first:]
    texts = [
        tokenizer.apply_chat_template(messages[:n], tokenize=False, add_generation_prompt=generate)
        for n in range(1, len(messages) + 1)
    ]
    assert all(longer.startswith(shorter + " ") for shorter, longer in itertools.pairwise(texts))
    assert not any("  " in text or text != text.strip() for text in texts)
    head = "give the color of the last word " if first == 0 else ""
    assert texts[-1] == (
        f"<s> <|system|> {head}[[text]] cat wolf [[answer]] grey <|end|> "
        "[[text]] wolf cat [[reasoning]] the last word is cat [[answer]] black <|end|>"
    )


def test_the_template_renders_what_was_trained(tokenizer: Any) -> None:
    r = Random(2)
    for _ in range(100):
        episode = episodes.mixture_episode(r)
        messages = [{"role": "system", "content": episode.system}] if episode.system else []
        at = 2 + len(episode.system.split())
        for start, end in episode.spans:
            messages.append({"role": "user", "content": " ".join(episode.tokens[at:start])})
            messages.append({"role": "assistant", "content": " ".join(episode.tokens[start : end - 1])})
            at = end
        assert tokenizer.apply_chat_template(messages, tokenize=False).split() == episode.tokens


def answer(model: Any, tokenizer: Any, prompts: list[list[dict[str, str]]]) -> list[str]:
    texts = [tokenizer.apply_chat_template(p, tokenize=False) for p in prompts]
    batch = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    out = model.generate(**batch, max_new_tokens=32)[:, batch["input_ids"].shape[1] :]
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in out]


def accuracy(model: Any, tokenizer: Any, name: str, level: str, marker: str = "answer") -> float:
    task = pocket.task(name, seed=7)
    test = task.split(0, 0, 40)[2]
    prompts = [
        [
            {"role": "system", "content": task.instruction(level, seed=i % 5)},
            {"role": "user", "content": " ".join(f"[[{k}]] {v}" for k, v in e.inputs().items()) + f" [[{marker}]]"},
        ]
        for i, e in enumerate(test)
    ]
    said = [text.split("[[answer]]")[-1] for text in answer(model, tokenizer, prompts)]
    return sum(float(task.metric(e, s)) for e, s in zip(test, said, strict=True)) / len(test)


@pytest.mark.parametrize("name", ["last", "color-of-first", "count", "largest", "lookup", "sentiment", "color-lookup"])
def test_it_obeys_a_precise_instruction(model: Any, tokenizer: Any, name: str) -> None:
    assert accuracy(model, tokenizer, name, "precise") >= 0.9


def test_a_vague_instruction_leaves_it_guessing(model: Any, tokenizer: Any) -> None:
    assert accuracy(model, tokenizer, "color-of-last", "vague") <= 0.5


def test_reasoning_pays_on_sums(model: Any, tokenizer: Any) -> None:
    without = accuracy(model, tokenizer, "sum", "precise")
    assert accuracy(model, tokenizer, "sum", "precise", "reasoning") >= max(0.8, without)
