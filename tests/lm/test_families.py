"""Families of causal models, tiny and random: batched replies with shared prefixes are those of transformers' loop."""

import random

import pytest

from promptgrad.errors import LMError
from promptgrad.lm import Local, Message, Prefix, Request
from tests.lm.conftest import WORDS
from tests.lm.test_local import DEMOS, reference, together

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "initializer_range": 0.3,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
WINDOW = {**GROUPED, "head_dim": 8, "sliding_window": 6}
NO = {"attention_dropout": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
FAMILIES = {
    "Llama": GROUPED,
    "Qwen2": GROUPED,
    "Qwen3": {**GROUPED, "head_dim": 16},
    "Mistral": {**GROUPED, "sliding_window": None},
    "Gemma2": WINDOW,
    "Gemma3Text": {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "Phi": SIZES,
    "GPT2": {**NO, **SIZES, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "GPTNeoX": SIZES,
    "Mixtral": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "Mamba": {**SIZES, "state_size": 8},
    "Lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "Qwen3Next": {
        **{**GROUPED, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        **{"shared_expert_intermediate_size": 16, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
        **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
        "layer_types": ["linear_attention", "full_attention"],
    },
}
MODELS = {"Gemma3Text": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_transformers(family, tokenizer):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family])
    model = getattr(transformers, MODELS.get(family, f"{family}ForCausalLM"))(config).eval().requires_grad_(False)
    lm = Local(model, tokenizer, name=family, threads=1)
    draw = random.Random(0)
    prefixes = [DEMOS, DEMOS, Prefix([Message("system", "w7")])]
    asked = [
        Request(
            draw.choice(prefixes), (Message("user", " ".join(f"w{draw.randrange(50)}" for _ in range(size))),), 0.0, 8
        )
        for size in (1, 3, 25, 2, 9)
    ]
    expected = [reference(model, tokenizer, one, 8) for one in asked]
    if not family.startswith(("Gemma", "Lfm2")):  # a random one says one word for ever
        assert len(set(map(tuple, expected))) > 1
    for _ in range(2):  # prefixes computed, and kept from before
        assert [list(made.ids) for made in together(lm, asked)] == expected
    lora = lm.lora("a", r=2)  # on the layers of each family, also those that are transposed
    with torch.no_grad():
        for name, side in lora.model.named_parameters():
            if name.endswith("lora_B"):
                side.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    assert [list(made.ids) for made in together(lora, asked)] == [
        reference(lora.model, tokenizer, one, 8) for one in asked
    ]
    lm.close()


def test_a_model_whose_memory_is_in_a_form_of_its_own_is_refused(tokenizer):
    """With each token it would have forgotten the ones before."""
    sizes = {"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}
    model = transformers.RwkvForCausalLM(transformers.RwkvConfig(**sizes))
    with pytest.raises(LMError, match="is a RwkvForCausalLM, which keeps what it has read in a form of its own"):
        Local(model, tokenizer)("w1")
