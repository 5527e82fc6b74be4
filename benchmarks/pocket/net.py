"""The training twin of a stock `Qwen3ForCausalLM`: the same function with fused matrices, its optimizers, its export.

The twin packs q/k/v and gate/up into one matrix each and keeps the logit scale apart (it folds into the last norm
on export). Nothing of it is needed to use the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    vocab: int
    d: int = 128
    layers: int = 5
    heads: int = 4
    ff: int = 384
    theta: float = 10000.0
    eps: float = 1e-6


def rope(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    frequency = theta ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angle = torch.arange(length).float()[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.heads, self.eps = c.heads, c.eps
        self.qkv = nn.Linear(c.d, 3 * c.d, bias=False)
        self.o = nn.Linear(c.d, c.d, bias=False)
        self.gu = nn.Linear(c.d, 2 * c.ff, bias=False)
        self.down = nn.Linear(c.ff, c.d, bias=False)
        self.n1 = nn.Parameter(torch.ones(c.d))
        self.n2 = nn.Parameter(torch.ones(c.d))
        self.qn = nn.Parameter(torch.full((c.d // c.heads,), 2**0.5))
        self.kn = nn.Parameter(torch.full((c.d // c.heads,), 2**0.5))
        nn.init.zeros_(self.o.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, d = x.shape
        h = F.rms_norm(x, (d,), self.n1, self.eps)
        q, k, v = self.qkv(h).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q = rotate(F.rms_norm(q, q.shape[-1:], self.qn, self.eps), cos, sin)
        k = rotate(F.rms_norm(k, k.shape[-1:], self.kn, self.eps), cos, sin)
        y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, d))
        gate, up = self.gu(F.rms_norm(x, (d,), self.n2, self.eps)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Twin(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.emb = nn.Embedding(c.vocab, c.d)
        nn.init.normal_(self.emb.weight, std=0.5)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.nf = nn.Parameter(torch.ones(c.d))
        self.hs = nn.Parameter(torch.full((1,), 2 / math.sqrt(c.d)))

    def body(self, ids: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = F.embedding(ids, self.emb.weight)
        for block in self.blocks:
            x = block(x, cos, sin)
        return x

    def logits(self, x: Tensor) -> Tensor:
        h = F.rms_norm(x.float(), (self.c.d,), self.nf, self.c.eps)
        return F.linear(h, self.emb.weight).float() * self.hs

    def hf_state(self) -> dict[str, Tensor]:
        """Weights under the names of `Qwen3ForCausalLM`."""
        state = {"model.embed_tokens.weight": self.emb.weight, "model.norm.weight": self.nf * self.hs}
        for i, b in enumerate(self.blocks):
            p = f"model.layers.{i}."
            for name, part in zip("qkv", b.qkv.weight.chunk(3), strict=True):
                state[f"{p}self_attn.{name}_proj.weight"] = part
            gate, up = b.gu.weight.chunk(2)
            state |= {
                f"{p}self_attn.o_proj.weight": b.o.weight,
                f"{p}self_attn.q_norm.weight": b.qn,
                f"{p}self_attn.k_norm.weight": b.kn,
                f"{p}mlp.gate_proj.weight": gate,
                f"{p}mlp.up_proj.weight": up,
                f"{p}mlp.down_proj.weight": b.down.weight,
                f"{p}input_layernorm.weight": b.n1,
                f"{p}post_attention_layernorm.weight": b.n2,
            }
        return {name: tensor.detach().clone() for name, tensor in state.items()}


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton-Schulz steps (Jordan et al. 2024); q, k, v and gate, up each on their own."""

    def __init__(
        self, parts: list[tuple[nn.Parameter, int]], lr: float, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        self.parts = {id(p): n for p, n in parts}
        super().__init__([p for p, _ in parts], {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            stacks: dict[tuple[int, ...], list[tuple[Tensor, Tensor, bool]]] = {}
            for p in group["params"]:
                state = self.state[p]
                if "m" not in state:
                    state["m"] = torch.zeros_like(p)
                state["m"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["m"], group["momentum"])
                n = self.parts[id(p)]
                for q, w in zip(p.chunk(n), update.chunk(n), strict=True):
                    tall = w.shape[0] > w.shape[1]
                    stacks.setdefault(tuple(sorted(w.shape)), []).append((q, w.T if tall else w, tall))
            for items in stacks.values():
                x = torch.stack([w for _, w, _ in items])
                x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
                for _ in range(5):
                    a = x @ x.mT
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                for (q, _, tall), u in zip(items, x, strict=True):
                    u = u.T if tall else u
                    scale = max(1.0, u.shape[0] / u.shape[1]) ** 0.5
                    q.mul_(1 - group["lr"] * group["decay"]).add_(u, alpha=-group["lr"] * scale)


def optimizers(model: Twin, muon: float, adamw: float) -> tuple[list[torch.optim.Optimizer], list[nn.Parameter]]:
    """Muon for the matrices of the blocks, AdamW for all else; and that "all else", to be clipped."""
    hidden = []
    for b in model.blocks:
        hidden += [(b.qkv.weight, 3), (b.o.weight, 1), (b.gu.weight, 2), (b.down.weight, 1)]
    ids = {id(p) for p, _ in hidden}
    rest = [p for p in model.parameters() if id(p) not in ids]
    return [Muon(hidden, muon), torch.optim.AdamW(rest, adamw, betas=(0.9, 0.98), weight_decay=0)], rest


CHAT_TEMPLATE = (
    "<s> <|system|>"
    "{%- for m in messages %}"
    "{%- if m.role == 'assistant' %}{{ ' ' + m.content + ' <|end|>' }}"
    "{%- elif m.content %}{{ ' ' + m.content }}{%- endif %}"
    "{%- endfor %}"
)
"""`<s> <|system|> SYSTEM USER ASSISTANT <|end|> USER`; no generation prompt: a user turn ends with a marker."""

RESPONSE_TEMPLATE = {
    "start_anchor_pattern": r"\Z",
    "fields": {"content": {"close": "<|end|>", "content": "text"}},
    "defaults": {"role": "assistant"},
}
"""For servers that read replies by it (`transformers serve`): all that follows the prompt is the reply."""


def export(model: Twin, vocabulary: list[str], folder: Path, *, half: bool = True) -> None:
    """Write an ordinary Hugging Face folder: config, safetensors, fast tokenizer with chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    c, index = model.c, {word: i for i, word in enumerate(vocabulary)}
    special = {"bos_token_id": index["<s>"], "eos_token_id": index["<|end|>"], "pad_token_id": index["<pad>"]}
    config = Qwen3Config(
        vocab_size=c.vocab,
        hidden_size=c.d,
        intermediate_size=c.ff,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.heads,
        head_dim=c.d // c.heads,
        max_position_embeddings=512,
        rms_norm_eps=c.eps,
        tie_word_embeddings=True,
        attention_bias=False,
        hidden_act="silu",
        use_sliding_window=False,
        rope_parameters={"rope_type": "default", "rope_theta": c.theta},
        **special,
    )
    net = Qwen3ForCausalLM(config)
    missing, unexpected = net.load_state_dict(model.hf_state(), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise RuntimeError(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    net.tie_weights()
    net = net.half() if half else net
    net.generation_config.update(do_sample=False, max_new_tokens=48, **special)
    net.save_pretrained(folder)
    core = Tokenizer(models.WordLevel(index, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|end|>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
        chat_template=CHAT_TEMPLATE,
        response_template=RESPONSE_TEMPLATE,
    )
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
