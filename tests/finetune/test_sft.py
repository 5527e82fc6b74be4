"""Fine-tuning, end to end on the embedded model."""

from __future__ import annotations

import asyncio
import copy
import math
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from promptgrad import lm, nn
from promptgrad.data import Example, pocket
from promptgrad.errors import DataError, LMError, NoLMError
from promptgrad.finetune import (
    Conversation,
    Preference,
    TuneResult,
    TuneSettings,
    asft,
    collect,
    distill,
    labeled,
    local_lm,
    sft,
)
from promptgrad.finetune._sft import CONVERSATIONS
from promptgrad.finetune._tune import version_of

Data = tuple[list[Example], list[Example], list[Example]]


def score(program: nn.Module, examples: Sequence[Example]) -> float:
    batch = program.map(examples)
    assert not batch.errors
    return sum(float(pocket.metric(e, o)) for e, o in zip(examples, batch, strict=True)) / len(examples)


@pytest.fixture(scope="module")
def tuned(task: pocket.Task, data: Data) -> TuneResult:
    program = nn.Predict("text -> answer", instruction=task.instruction("vague")).to(lm.pocket())
    return sft(program, data[0], steps=30)


def test_a_new_task_is_learned(program: nn.Predict, data: Data, tuned: TuneResult) -> None:
    before = score(program, data[2])
    assert before < 0.1
    assert score(tuned.program, data[2]) > 0.95
    assert score(program, data[2]) == before  # the program and its model are as they were
    assert program.lm is lm.pocket()
    assert tuned.program.lm is tuned.lm
    assert tuned.program.state_dict()["instruction"] == program.state_dict()["instruction"]


def test_the_result_tells_what_was_done(tuned: TuneResult) -> None:
    assert tuned.samples == 64
    assert len(tuned.losses) == 30
    assert tuned.losses[-1] < 0.05 < tuned.losses[0]
    assert not tuned.interrupted
    assert tuned.lm.name.startswith("pocket+")
    assert repr(tuned).startswith(f"TuneResult({tuned.lm.name}: LoRA r=8, 64 samples, 30 steps, loss ")
    assert not tuned.lm.weights()


def test_saved_and_loaded(task: pocket.Task, data: Data, tuned: TuneResult, tmp_path: Path) -> None:
    folder = tuned.save(tmp_path / "model")
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    answers = [str(p.answer) for p in tuned.program.map(data[2][:40])]
    again = nn.Predict("text -> answer", instruction=task.instruction("vague"))
    again.to(lm.Local(folder, adapter="pocket"))
    assert [str(p.answer) for p in again.map(data[2][:40])] == answers
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft reads names that transformers has renamed
        model = PeftModel.from_pretrained(copy.deepcopy(lm.pocket().model), folder / "lora")
    again.to(lm.Local(model, tuned.lm.tokenizer, name="lora", adapter="pocket"))
    assert [str(p.answer) for p in again.map(data[2][:40])] == answers
    base = lm.Local(pocket.model_path(), adapter="pocket")
    again.to(base.lora("own", folder / "lora"))
    assert [str(p.answer) for p in again.map(data[2][:40])] == answers
    with pytest.raises(LMError, match="trained on other weights of the same shapes"):
        again.to(lm.Local(folder, adapter="pocket").lora("twice", folder / "lora"))(text="cat")


def test_successes_of_a_teacher_with_demos(program: nn.Predict, data: Data) -> None:
    teacher = copy.deepcopy(program)
    teacher.demos.data = data[0][:16]
    made = collect(program, data[0][16:], pocket.metric, teacher=teacher)
    assert made.right > 24
    result = sft(program, made.samples, lora=None, steps=20)
    assert result.samples == len(made)
    assert score(result.program, data[2]) > 0.9
    assert result.settings.lora is None


def test_without_a_metric_all_that_a_teacher_says_is_learned(program: nn.Predict, data: Data) -> None:
    teacher = lm.FunctionLM(lambda messages: "grey")
    result = sft(program, [Example(text=e.text).with_inputs("text") for e in data[0][:16]], teacher=teacher, steps=20)
    assert (result.collected.right, result.samples) == (16, 16)
    assert {str(result.program(text=example.text).answer) for example in data[2][:5]} == {"grey"}


def test_distill_is_a_training_on_what_a_teacher_says(program: nn.Predict, data: Data) -> None:
    teacher = lm.FunctionLM(lambda messages: "grey")
    bare = [Example(text=e.text).with_inputs("text") for e in data[0][:4]]
    made = distill(program, bare, teacher, steps=2)
    assert made.lm.identity() == sft(program, bare, teacher=teacher, steps=2).lm.identity()
    with pytest.raises(DataError, match="nothing to learn"):
        distill(program, data[0][:4], teacher, metric=pocket.metric, steps=2)
    with pytest.raises(TypeError, match="distill needs a teacher"):
        distill(program, bare, None)
    with pytest.raises(TypeError, match="examples, not on Conversations"):
        distill(program, labeled(program, data[0][:2]), teacher)
    with pytest.raises(TypeError, match=r"'learning_rate': write lr="):
        distill(program, bare, teacher, learning_rate=1)


def test_same_seed_same_weights(program: nn.Predict, data: Data) -> None:
    state = torch.get_rng_state()
    one, two, other = (sft(program, data[0][:8], steps=2, seed=seed) for seed in (1, 1, 2))
    assert one.lm.identity() == two.lm.identity()
    assert one.losses == two.losses
    assert one.lm.name != other.lm.name
    assert torch.equal(torch.get_rng_state(), state)


def test_same_seed_same_weights_in_threads(program: nn.Predict, data: Data) -> None:
    state = torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: sft(program, data[0][:8], steps=3, seed=1), range(3)))
    assert results[0].losses == results[1].losses == results[2].losses
    assert torch.equal(torch.get_rng_state(), state)


def test_another_seed_is_another_training(program: nn.Predict, data: Data) -> None:
    """With one sample and two steps the order cannot differ: only what the seed draws for the LoRA does."""
    one, other = (sft(program, data[0][:1], steps=2, batch_size=1, seed=seed) for seed in (1, 2))
    assert one.losses[0] == other.losses[0]  # a LoRA begins as nothing
    weights = [result._lora[1] for result in (one, other)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_name_is_equal_for_an_equal_start_samples_settings_and_steps_and_no_others() -> None:
    class Start:
        def __init__(self, weights: str) -> None:
            self.weights = weights

        def identity(self) -> str:
            return self.weights

    def sample(question: str = "wolf", reply: str = "grey", role: str = "user") -> Conversation:
        return Conversation((lm.Message(role, question),), reply)

    def name(weights: str = "base", samples: Any = None, steps: int = 5, **settings: Any) -> str:
        given = (sample(),) if samples is None else samples
        start: Any = Start(weights)
        return version_of(start, given, TuneSettings(**{**usual, **settings}), steps, CONVERSATIONS)

    usual = {"lora": {"r": 8}, "steps": 5, "lr": 0.1, "batch_size": 4, "seed": 0}
    others = [
        name("tuned before"),
        name(samples=(sample("frog"),)),
        name(samples=(sample(reply="green"),)),
        name(samples=(sample(role="system"),)),
        name(samples=(sample(), sample())),
        name(steps=3),  # Ctrl-C ended it
        name(lora={"r": 4}),
        name(lora=None),
        name(lr=0.2),
        name(seed=1),
    ]
    assert name() == name()
    assert len({name(), *others}) == 1 + len(others)


def test_the_metric_decides_what_is_learned(program: nn.Predict, data: Data) -> None:
    with pytest.raises(DataError, match=r"there is nothing to learn: 0 of 6 runs went right.*teacher="):
        sft(program, data[0][:6], metric=lambda example, output: 0.0)
    result = sft(program, data[0][:6], metric=lambda example, output: 1.0, steps=1)
    assert (result.collected.runs, result.samples) == (6, 6)


def test_only_modules_on_the_local_model(data: Data) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Predict("text -> reasoning").to(lm.FunctionLM(lambda messages: "it is positive"))
            self.second = nn.Predict("text, reasoning -> answer").to(lm.Cache(lm.pocket()))

        def forward(self, text: str) -> Any:
            return self.second(text=text, reasoning=self.first(text=text).reasoning)

    program = Two()
    assert local_lm(program) == (lm.pocket(), ("second",))
    result = sft(program, data[0][:4], metric=lambda example, output: 1.0, steps=1)
    assert result.samples == 4
    assert result.program.first.lm is program.first.lm
    assert isinstance(result.program.second.lm, lm.Cache)
    assert result.program.second.lm.transport is result.lm
    assert program.second.lm.transport is lm.pocket()


def test_the_model_of_the_context(task: pocket.Task, data: Data) -> None:
    program = nn.Predict("text -> answer", instruction=task.instruction("vague"))
    with lm.context(lm=lm.pocket()):
        result = sft(program, data[0][:4], steps=1)
    assert result.program.lm is result.lm


def test_no_local_model_or_two(data: Data) -> None:
    program = nn.Predict("text -> answer").to(lm.FunctionLM(lambda messages: "x"))
    with pytest.raises(NoLMError, match=r"runs on no local model.*\.to\(promptgrad.lm.Local"):
        sft(program, data[0])
    with pytest.raises(NoLMError, match="runs on no local model"):
        sft(nn.Predict("text -> answer"), data[0])
    both = nn.ModuleList(
        [
            nn.Predict("text -> answer").to(lm.pocket()),
            nn.Predict("text -> answer").to(lm.pocket().with_model(lm.pocket().model, "other")),
        ]
    )
    with pytest.raises(NoLMError, match="2 local models \\('pocket', 'other'\\)"):
        sft(both, data[0])


def test_what_cannot_be(program: nn.Predict, data: Data) -> None:
    with pytest.raises(ValueError, match="steps or epochs, not both"):
        sft(program, data[0], steps=1, epochs=1)
    for name in ("lr", "epochs"):
        for odd in (0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=rf"^{name} is a .*number.*, not {odd!r}"):
                sft(program, data[0], **{name: odd})
    for name in ("lr", "epochs", "warmup", "weight_decay", "max_norm"):
        with pytest.raises(TypeError, match=rf"^{name} is a number, not '1'"):
            sft(program, data[0], **{name: "1"})
    with pytest.raises(ValueError, match="threshold is a number, not nan"):
        sft(program, data[0], metric=lambda example, output: 0.0, threshold=math.nan)
    with pytest.raises(DataError, match="the data is empty"):
        sft(program, [])
    with pytest.raises(DataError, match=r"every sample .* is longer than 3 tokens"):
        sft(program, data[0], max_length=3)


def test_experts_of_a_mixture_learn_too(tmp_path: Path) -> None:
    """Their matrices are one parameter, which is no linear layer."""
    from transformers import MixtralConfig, MixtralForCausalLM

    from tests.lm.conftest import make_tokenizer

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MixtralConfig(vocab_size=64, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, **sizes)
    local = lm.Local(MixtralForCausalLM(config).eval(), make_tokenizer(), name="mixture", threads=1)
    rows = [Example(text=f"w{n}", answer=f"w{n + 1}") for n in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own
        result = sft(nn.Predict("text -> answer").to(local), rows, steps=4, lr=1e-2)
    assert result.losses[-1] < result.losses[0]
    before = dict(local.model.named_parameters())
    changed = {name for name, weight in result.lm.model.named_parameters() if not torch.equal(weight, before[name])}
    assert "model.layers.0.mlp.experts.down_proj" in changed
    assert lm.Local(result.save(tmp_path / "tuned"), max_tokens=2)("w1").text is not None


def test_what_is_no_lora(program: nn.Predict, data: Data) -> None:
    """Nothing else than None trains all weights."""
    for odd in (True, False, 8, ["q_proj"]):
        with pytest.raises(TypeError, match="lora is the options of a LoRA such as"):
            sft(program, data[0], lora=odd)
    for options, says in (
        ({"rank": 4}, "not 'rank'"),
        ({"r": 0}, "r and alpha above 0"),
        ({"r": "8"}, "r and alpha above 0"),
        ({"dropout": 2}, "dropout from 0 to below 1"),
        ({"target_modules": ["nothing"]}, "does not fit a .*nothing"),
    ):
        with pytest.raises(ValueError, match=says):
            sft(program, data[0], lora=options, steps=1)


def test_what_is_no_program_and_no_data(program: nn.Predict, data: Data) -> None:
    for odd in (lambda text: text, program.lm, nn.Predict):
        with pytest.raises(TypeError, match="a program is a Module"):
            sft(odd, data[0])
    for odd in (None, "rows.jsonl", Path("rows.jsonl"), data[0][0], {"text": "a", "answer": "b"}, 3):
        with pytest.raises(TypeError, match="the data of a training is a collection of examples, not "):
            sft(program, odd)
    with pytest.raises(TypeError, match=r"read the file first, promptgrad.data.read_jsonl\(path\) or finetune.load_"):
        sft(program, "rows.jsonl")
    record = labeled(program, data[0][:1]).samples[0]
    with pytest.raises(DataError, match="all of one kind, and these are Conversation and Example"):
        sft(program, [data[0][0], record])
    pair = Preference(record.messages, "a", "b")
    with pytest.raises(DataError, match=r"these are preferences, which finetune.dpo learns from"):
        sft(program, [pair])


def test_ctrl_c_returns_what_is_trained(program: nn.Predict, data: Data) -> None:
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    steps = []

    def interrupt(*_: Any) -> None:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt

    hook = register_optimizer_step_pre_hook(interrupt)
    try:
        result = sft(program, data[0][:8], steps=9)
    finally:
        hook.remove()
    assert len(result.losses) == 2
    assert result.interrupted
    assert "2 steps of 9, interrupted" in repr(result)
    first, last = result.losses
    assert f"loss {first:.3f} -> {last:.3f}" in repr(result)
    assert result.program(text=data[2][0].text).answer


@pytest.mark.asyncio
async def test_from_a_coroutine(program: nn.Predict, data: Data) -> None:
    before = program.lm
    result = await asft(program, data[0][:4], metric=lambda example, output: 1.0, steps=2)
    assert len(result.losses) == 2
    assert program.lm is before is not result.program.lm


@pytest.mark.asyncio
async def test_a_training_whose_coroutine_is_cancelled_stops(program: nn.Predict, data: Data) -> None:
    assert program.lm is not None
    local = program.lm.transport
    assert isinstance(local, lm.Local)
    passes: list[int] = []
    training = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch(*_: Any) -> None:
        passes.append(1)
        loop.call_soon_threadsafe(training.set)

    model = copy.deepcopy(local.model)
    model.register_forward_hook(watch)  # copies of a model keep its hooks
    watched = copy.deepcopy(program).to(local.with_model(model, "watched"))
    task = asyncio.ensure_future(asft(watched, data[0][:4], steps=500, lora=None))
    await training.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    after = len(passes)
    await asft(program, data[0][:4], steps=1, lora=None)  # trainings of one process run one after the other
    assert len(passes) < after + 100
