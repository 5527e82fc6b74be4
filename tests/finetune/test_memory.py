"""What makes a training smaller leaves its gradients as they are; what does not fit leaves its weights as they are."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from promptgrad import lm, nn
from promptgrad.data import Example
from promptgrad.errors import OutOfMemoryError
from promptgrad.finetune import Preference, dpo, sft
from promptgrad.finetune._dpo import Pair, preferring
from promptgrad.finetune._memory import autocast, checkpointed, is_out_of_memory
from promptgrad.finetune._train import likelihood
from promptgrad.finetune._training import Share, Training, TuneSettings
from promptgrad.lm import Tokens

Data = tuple[list[Example], list[Example], list[Example]]
PREFIX = tuple(range(5, 25))
DATA = [Tokens((*PREFIX, *range(30, 31 + i), 40 + i, 4), 20 + i) for i in range(7)]
PAIRS = [Pair(Tokens((*PREFIX, 30 + i, 40, 4), 21), Tokens((*PREFIX, 30 + i, 50 + i, 4), 21)) for i in range(5)]


def fresh() -> Any:
    return copy.deepcopy(lm.pocket().model).requires_grad_(True).train()


def gradient(objective: Any, model: Any, batch: Any, share: Share) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = objective(model, batch, share)
    return loss, {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-5) -> bool:
    assert one.keys() == other.keys()
    return all(float((one[name] - w).norm()) <= tolerance * (float(w.norm()) + 1e-6) for name, w in other.items())


def small_memory(model: Any, places: int, error: BaseException) -> list[int]:
    """Let a model's memory end above so many tokens in a pass; returns the sizes of the passes that fitted."""
    fitted: list[int] = []

    def before(module: Any, args: Any, kwargs: Any) -> None:
        if module.training and kwargs["input_ids"].numel() > places:
            raise error
        fitted.append(kwargs["input_ids"].numel())

    model.register_forward_pre_hook(before, with_kwargs=True)
    return fitted


@pytest.mark.parametrize("kind", ["likelihood", "preferences"])
def test_a_batch_in_small_parts_has_the_gradient_of_the_whole(kind: str) -> None:
    model = fresh()
    objective, batch = (likelihood, DATA) if kind == "likelihood" else (preferring(fresh(), PAIRS, beta=0.2), PAIRS)
    whole, grads = gradient(objective, model, batch, Share())
    fitted = small_memory(model, 24, RuntimeError("too large"))
    loss, parts = gradient(objective, model, batch, Share(limit=8))
    assert loss == pytest.approx(whole, rel=1e-5)
    assert close(parts, grads)
    assert len(fitted) > 5


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you ..."
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_what_does_not_fit_is_tried_in_smaller_parts(error: RuntimeError) -> None:
    settings = TuneSettings(None, 3, 1e-3, 7)
    easy, tight = Training(fresh(), settings), Training(fresh(), settings, Share(limit=512))
    long = [Tokens((7 + i, *range(30, 60), 4), 3) for i in range(7)]  # they share nothing
    easy.step(partial(likelihood, easy.model, long))
    fitted = small_memory(tight.model, 130, error)
    with pytest.warns(UserWarning, match=r"in parts of 512 tokens.*in parts of 128"):
        loss = tight.step(lambda: likelihood(tight.model, long, tight.share))
    assert tight.share.limit == 128
    assert max(fitted) <= 128
    assert loss == pytest.approx(easy.losses[0], rel=1e-5)
    assert all(torch.allclose(weight, easy.weights[name], atol=3e-5) for name, weight in tight.weights.items())
    tight.step(lambda: likelihood(tight.model, long, tight.share))  # it stays small, so nothing is said again


def test_what_never_fits_is_an_error_and_the_weights_are_those_of_the_last_step() -> None:
    training = Training(fresh(), TuneSettings(None, 5, 1e-3, 7))
    training.step(partial(likelihood, training.model, DATA))
    kept = {name: weight.detach().clone() for name, weight in training.weights.items()}
    small_memory(training.model, 3, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(
        OutOfMemoryError, match=r"step 2 does not fit .*CUDA out of memory.*of step 1.*dtype='bfloat16'"
    ):
        training.step(lambda: likelihood(training.model, DATA, training.share))
    assert all(torch.equal(kept[name], weight) for name, weight in training.weights.items())
    assert not any(weight.grad is not None for weight in training.weights.values())
    assert training.whole


def test_other_errors_are_not_memory() -> None:
    training = Training(fresh(), TuneSettings(None, 5, 1e-3, 7))

    def wrong() -> float:
        raise RuntimeError("the shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        training.step(wrong)
    assert not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as found:
        torch.empty(10**16)
    assert is_out_of_memory(found.value)  # what torch says now


def test_moments_that_do_not_fit_are_said_to_be_so() -> None:
    training = Training(fresh(), TuneSettings(None, 5, 1e-3, 7))

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    training.optimizer.register_step_pre_hook(full)
    with pytest.raises(OutOfMemoryError, match=r"moments of AdamW do not fit.*LoRA"):
        training.step(partial(likelihood, training.model, DATA))


def test_checkpointed_activations_are_fewer_and_the_gradients_equal() -> None:
    model = fresh()
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    def measured() -> tuple[dict[str, torch.Tensor], int]:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = -next(iter(lm.reply_logprobs(model, DATA, shared=False))).logprobs.sum()
        size = sum(kept)
        model.zero_grad()
        loss.backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters()}, size

    plain, much = measured()
    with checkpointed(model, wanted=True):
        light, little = measured()
    assert close(light, plain)
    assert little < 0.5 * much
    assert measured()[1] == much  # and it is off again


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_what_was_trained_with_checkpointing_has_no_hook_of_it(
    program: nn.Predict, data: Data, lora: dict[str, Any] | None
) -> None:
    """What a prompt is embedded as required a gradient for ever, and the model could not be pickled."""
    program = program.to(lm.pocket(temperature=0.0))  # a model of its own: that of the process may have others' hooks
    tuned = sft(program, data[0], steps=1, batch_size=4, lora=lora, gradient_checkpointing=True)
    assert not any(module._forward_hooks for module in tuned.lm.model.modules())
    assert not tuned.lm.model.get_input_embeddings()(torch.tensor([1])).requires_grad
    pickle.dumps(tuned.lm.model)


def test_half_precision_computes_in_it_and_also_trains_after_a_pass_without_a_graph() -> None:
    model = fresh()
    whole, grads = gradient(likelihood, model, DATA, Share())
    seen: list[torch.dtype] = []
    model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with autocast(model, "bfloat16"):
        with torch.no_grad():
            list(lm.reply_logprobs(model, DATA))
        loss, half = gradient(likelihood, model, DATA, Share())
    assert set(seen) == {torch.bfloat16}
    assert loss == pytest.approx(whole, rel=2e-2)
    assert close(half, grads, 0.1)
    assert gradient(likelihood, model, DATA, Share())[0] == whole  # and it is off again


@pytest.mark.parametrize(
    "option", [{"gradient_checkpointing": True}, {"dtype": torch.bfloat16}, {"micro_batch_tokens": 40}]
)
def test_every_training_takes_the_options(program: nn.Predict, data: Data, option: dict[str, Any]) -> None:
    plain = sft(program, data[0][:12], steps=4, batch_size=6)
    seen: set[bool] = set()
    hook = register_module_forward_pre_hook(
        lambda module, args: seen.add(getattr(module, "gradient_checkpointing", False))
    )
    try:
        result = sft(program, data[0][:12], steps=4, batch_size=6, **option)
    finally:
        hook.remove()
    assert (True in seen) == ("gradient_checkpointing" in option)
    assert result.losses == pytest.approx(plain.losses, rel=5e-2 if "dtype" in option else 1e-4)
    assert result.losses != plain.losses  # by rounding: the passes are others
    assert (result.lm.name == plain.lm.name) == ("dtype" not in option)
    assert {weight.dtype for weight in result.lm.model.parameters()} == {torch.float32}
    assert not any(getattr(module, "gradient_checkpointing", False) for module in result.lm.model.modules())
    assert "forward" not in vars(result.lm.model)
    pairs = [Preference(program.messages(text=e.text), e.answer, "no", example_id=e.id) for e in data[0][:4]]
    assert dpo(program, pairs, steps=2, **option).losses == pytest.approx(dpo(program, pairs, steps=2).losses, rel=5e-2)


def test_narrow_weights_are_trained_in_float32_and_come_back_narrow(data: Data) -> None:
    """In bfloat16 alone a small step is rounded away."""
    narrow = lm.pocket().with_model(copy.deepcopy(lm.pocket().model).to(torch.bfloat16), "narrow")
    program = nn.Predict("text -> answer").to(narrow)
    wide = sft(program, data[0][:8], steps=4, lora=None, lr=1e-5, dtype="bfloat16")
    alone = sft(program, data[0][:8], steps=4, lora=None, lr=1e-5)
    start = dict(narrow.model.named_parameters())
    moved = [
        sum(int((w != start[name]).sum()) for name, w in result.lm.model.named_parameters()) for result in (wide, alone)
    ]
    assert moved[0] > 2 * moved[1]
    assert {weight.dtype for weight in wide.lm.model.parameters()} == {torch.bfloat16}


def test_what_cannot_be(program: nn.Predict, data: Data) -> None:
    with pytest.raises(ValueError, match="dtype is 'bfloat16', or None"):
        sft(program, data[0], dtype="float16")
    with pytest.raises(ValueError, match="micro_batch_tokens is at least 1"):
        sft(program, data[0], micro_batch_tokens=0)
    with pytest.raises(TypeError, match=r"sft.*'gradient_accumulation_steps'.*parts of micro_batch_tokens"):
        sft(program, data[0], gradient_accumulation_steps=4)
    with pytest.raises(TypeError, match=r"dpo.*'bf16': write dtype=\"bfloat16\""):
        dpo(program, data[0], bf16=True)


@pytest.mark.parametrize("kind", ["lora", "soft", "both"])
def test_checkpointed_layers_of_what_stands_beside_a_base_are_its_own(kind: str) -> None:
    """The gradient is the same, each layer computes twice, and the base goes on answering as it did."""
    base = lm.pocket().with_model(lm.pocket().model, "base")
    local = base.lora("one") if kind != "soft" else base
    if kind != "soft":
        with torch.no_grad():
            for weight in local.model.parameters():
                weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    local = lm.SoftTokens(3).on(local) if kind != "lora" else local
    home = local.model.copy().requires_grad_(True)
    _, plain = gradient(likelihood, home, DATA, Share(apart=True))
    model = home.apart()
    counts: list[bool] = []

    def count(module: Any, args: Any) -> None:
        if type(module).__name__.endswith("Attention"):
            counts.append(torch.is_grad_enabled())

    reply = base("cat", temperature=0, max_tokens=4).text
    hook = register_module_forward_pre_hook(count)
    try:
        with checkpointed(model, wanted=True):
            _, again = gradient(likelihood, model, DATA, Share(apart=True))
            layers, passes = base.model.config.num_hidden_layers, len(counts)
            assert base("cat", temperature=0, max_tokens=4, replicate=1).text == reply
    finally:
        hook.remove()
    assert passes == 2 * layers
    assert close(again, plain, 1e-4)
    assert all(mine is other for mine, other in zip(model.parameters(), home.parameters(), strict=True))
    for whole in (base.model, model.get_base_model()):
        assert not any(one.training or getattr(one, "gradient_checkpointing", False) for one in whole.modules())
    pairs = zip(base.model.parameters(), model.get_base_model().parameters(), strict=True)
    assert all(mine.data_ptr() == other.data_ptr() for mine, other in pairs)
