"""Real questions of bank customers: a small T5 learns to name what they ask for, beside a bag of words.

    python examples/finetune_t5.py                     # offline, no key, a few minutes on two cores
    python examples/finetune_t5.py --quick             # seconds: everything runs, nothing is learnt to the end

It is `examples/finetune_intents.py` on another shape: an encoder reads the prompt, a decoder writes the reply. Data,
base, trainings and the bag of words are the same; `lm.Local` and `finetune.sft` see that the model has an encoder.
"""

from __future__ import annotations

from typing import Any

from finetune_intents import arguments, compare

RATES = {"the base": 2e-3, "LoRA": 3e-3, "all weights": 2e-3}
STEPS = {"the base": 800, "LoRA": 600, "all weights": 600}


def t5(vocabulary: int, seed: int) -> Any:
    """A T5 of two layers on each side, with random weights."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=vocabulary,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


if __name__ == "__main__":
    compare(arguments(__doc__), "T5", t5, RATES, STEPS)
