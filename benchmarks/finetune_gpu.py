"""What a training holds in memory, by method: for large models by paper, for a GPU by measurement where there is one.

By paper: the model is built from its configuration without memory for its weights (device "meta"), LoRA's layers
by peft, and the bytes of weights, gradients and AdamW's moments are counted: what is there between a backward pass and
its step, without activations.

Measured: on a GPU the peak of torch's allocator and tokens a second over some steps, of a Llama of 12 layers of 768;
without one a line says why there are none. On the CPU a model of 4.2M weights takes real steps: its bytes are counted
in the real tensors, beside those by paper.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

LORA = {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear"}
METHODS = ("full float32", "full, bfloat16 compute", "LoRA r=16 on bfloat16", "LoRA r=16 on 4 bits")


def configs() -> dict[str, Any]:
    """Shapes of published models."""
    from transformers import LlamaConfig, T5Config

    return {
        "Llama-2-13B": LlamaConfig(
            vocab_size=32000, hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
        ),
        "T5-base": T5Config(
            vocab_size=32128, d_model=768, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0
        ),
    }


def built(config: Any, device: str) -> Any:
    """A model of this shape; on "meta" without memory."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device(device):
        return kind.from_config(config, dtype=torch.float32)


def held(config: Any, method: str) -> dict[str, int]:
    """Bytes of weights, gradients and moments of a training."""
    from promptgrad.finetune._train import add_lora
    from promptgrad.lm._local_plan import FOUR_BITS

    model = built(config, "meta")
    head = model.get_output_embeddings()
    linear = {id(layer.weight) for layer in model.modules() if type(layer).__name__ == "Linear" and layer is not head}
    lora = "LoRA" in method
    if lora:
        model.requires_grad_(requires_grad=False)
        model = add_lora(model, dict(LORA))
    weights = trained = 0.0
    for weight in model.parameters():
        if weight.requires_grad:
            trained += weight.numel()
            weights += 4 * weight.numel()
        else:
            packed = "4 bits" in method and id(weight) in linear
            weights += weight.numel() * (FOUR_BITS if packed else 2)
    return {
        "trained": int(trained),
        "weights": int(weights),
        "gradients": int(4 * trained),
        "moments": int(8 * trained),
    }


def small(layers: int = 6, width: int = 192) -> Any:
    """The shape of time_finetune.py."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=4096,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=6,
        max_position_embeddings=1024,
    )


def stepped(config: Any, method: str, device: str, steps: int) -> dict[str, Any]:
    """Real steps on 32 samples with a common prefix: the bytes of the real tensors, and tokens a second."""
    import torch

    from promptgrad.finetune import TuneSettings
    from promptgrad.finetune._memory import autocast
    from promptgrad.finetune._train import add_lora, likelihood
    from promptgrad.finetune._training import Training
    from promptgrad.lm import Tokens

    model = built(config, device)
    if "LoRA" in method:
        model.to(torch.bfloat16).requires_grad_(requires_grad=False)
        model = add_lora(model, dict(LORA))
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
    prefix = tuple(range(3, 133))
    batch = [Tokens((*prefix, *range(200 + row, 214 + row)), 138) for row in range(32)]
    training = Training(model, TuneSettings(None, steps + 1, 1e-4, 32))
    kept: dict[str, int] = {}

    def gradient() -> float:
        loss = likelihood(model, batch)
        kept["gradients"] = sum(w.grad.numel() * w.grad.element_size() for w in training.weights.values())
        return loss

    with training.running(), autocast(model, None if method == METHODS[0] else "bfloat16"):
        training.step(gradient)
        begun = time.perf_counter()
        for _ in range(steps):
            training.step(gradient)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
        kept["weights"] = sum(w.numel() * w.element_size() for w in model.parameters())
        moments = [s[k] for s in training.optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
        kept["moments"] = sum(t.numel() * t.element_size() for t in moments)
    rate = {"tokens_per_second": round(steps * sum(len(one.ids) for one in batch) / seconds)} if steps else {}
    if device == "cuda":
        rate["peak"] = torch.cuda.max_memory_allocated()
    return {**kept, **rate}


def main() -> None:
    """Print one JSON line for each row."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small shapes alone, one step each")
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps({"bench": "finetune_gpu", "torch": torch.__version__, "cuda": torch.cuda.is_available()}))
    shapes = {"T5-base": configs()["T5-base"]} if given.quick else configs()
    for name, config in shapes.items():
        for method in METHODS:
            row = {"who": "promptgrad", "target": "by paper", "model": name, "method": method}
            print(json.dumps({**row, **held(config, method)}))
    torch.set_num_threads(1)
    steps = 1 if given.quick else given.steps
    for method in METHODS[:3]:
        row = {"who": "promptgrad", "target": "cpu", "model": "Llama of 4.2M", "method": method}
        print(json.dumps({**row, **stepped(small(), method, "cpu", steps), "by_paper": held(small(), method)}))
    if not torch.cuda.is_available():
        print(json.dumps({"who": "promptgrad", "target": "cuda", "skipped": "torch finds no GPU here"}))
        return
    for method in METHODS[:3]:
        torch.cuda.reset_peak_memory_stats()
        row = {"who": "promptgrad", "target": "cuda", "model": "Llama, 12 layers of 768", "method": method}
        print(json.dumps({**row, **stepped(small(12, 768), method, "cuda", steps)}))


if __name__ == "__main__":
    main()
