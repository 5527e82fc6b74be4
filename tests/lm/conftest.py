"""A loopback server, and a tiny random model."""

import pytest

from promptgrad.testing import LoopbackLM


@pytest.fixture
def server():
    with LoopbackLM(respond=lambda messages: f"echo {messages[-1]['content']}") as running:
        yield running


WORDS = ["<pad>", "<unk>", "<s>", "<end>", "system", "user", "assistant", *(f"w{i}" for i in range(57))]


def make_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="<end>"
    )
    tokenizer.chat_template = (
        "<s>{% for m in messages %}{{ ' ' + m.role + ' ' + m.content + ' <end>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' assistant' }}{% endif %}"
    )
    return tokenizer


def make_model(kind="llama", **changes):
    import torch
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    sizes = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "initializer_range": 0.4,
        **changes,
    }
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    if kind == "sliding":
        return MistralForCausalLM(MistralConfig(sliding_window=6, **sizes)).eval()
    return Qwen3ForCausalLM(Qwen3Config(head_dim=16, **sizes)).eval()


@pytest.fixture(scope="session")
def tokenizer():
    pytest.importorskip("transformers")
    return make_tokenizer()


@pytest.fixture(scope="session")
def models():
    """Random models by kind, made once, frozen; tests that change weights copy them."""
    pytest.importorskip("torch")
    return {kind: make_model(kind).requires_grad_(False) for kind in ("llama", "qwen3", "sliding")}
