"""Preferences: which replies are paired, and what learning from the pairs does to a model."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from typing import Any

import pytest

from promptgrad import lm, nn
from promptgrad.data import Example, pocket
from promptgrad.errors import DataError
from promptgrad.finetune import Preference, Preferences, TuneSettings, collect_preferences, dpo, sft
from promptgrad.finetune._dpo import Pair, _margins, preferring
from promptgrad.finetune._train import train
from promptgrad.lm import Tokens

torch = pytest.importorskip("torch")

Data = tuple[list[Example], list[Example], list[Example]]
EXAMPLES = [Example(question=q).with_inputs("question") for q in ("a", "b", "c")]


class Two(nn.Module):
    """A thought, then an answer; both say what the replicate tells them."""

    def __init__(self, replies: Any) -> None:
        super().__init__()
        self.think = nn.Predict("question -> thought")
        self.say = nn.Predict("question, thought -> answer")
        self.to(lm.FunctionLM(replies))

    def forward(self, question: str) -> Any:
        return self.say(question=question, thought=self.think(question=question).thought)


def two_ways() -> Any:
    """Every other reply to the same prompt is another one."""
    asked: dict[str, int] = {}

    def reply(messages: Any) -> str:
        text = messages[-1]["content"]
        asked[text] = asked.get(text, -1) + 1
        way = "good" if asked[text] % 2 == 0 else "bad"
        if "[[ ## thought ## ]]\n" in text:
            thought = re.findall(r"thought ## \]\]\n(\w+)", text)[-1]
            return f"[[ ## answer ## ]]\n{thought}"
        return f"[[ ## thought ## ]]\n{way}"

    return reply


def good(example: Example, output: Any) -> float:
    return float(output.answer == "good")


def test_the_call_at_which_two_runs_part_makes_the_pair() -> None:
    found = collect_preferences(Two(two_ways()), EXAMPLES, good, n=2)
    assert (found.runs, found.alike, found.errors, len(found)) == (6, 0, 0, 3)
    assert repr(found) == "Preferences(3 pairs of 6 runs, 0 errors)"
    first = found.samples[0]
    assert first.path == "think"  # what is said after it had another prompt
    assert (first.chosen, first.rejected) == ("[[ ## thought ## ]]\ngood", "[[ ## thought ## ]]\nbad")
    assert first.messages[-1].text.startswith("[[ ## question ## ]]\na")
    assert [pair.example_id for pair in found] == [example.id for example in EXAMPLES]


def test_equal_scores_make_no_pair() -> None:
    found = collect_preferences(Two(two_ways()), EXAMPLES, lambda example, output: 0.5, n=4)
    assert (len(found), found.alike) == (0, 3)
    assert "3 examples have equal scores" in found.nothing()
    with pytest.raises(ValueError, match=r"n is a number of runs .* at least 2, not 1"):
        collect_preferences(Two(two_ways()), EXAMPLES, good, n=1)


def test_an_equal_pair_counts_once_and_a_failed_run_is_counted_apart() -> None:
    assert len(collect_preferences(Two(two_ways()), EXAMPLES, good, n=4)) == 3

    reply = two_ways()

    def fails(messages: Any) -> str:
        if "\nb\n" in messages[-1]["content"]:
            raise ValueError("no")
        return str(reply(messages))

    found = collect_preferences(Two(fails), EXAMPLES, good, n=2)
    assert (found.runs, found.errors, len(found)) == (6, 2, 2)


def pairs(number: int) -> list[Pair]:
    prompt = tuple(range(5, 25))
    return [
        Pair(Tokens((*prompt, 30 + i, 40, 41, 4), 21), Tokens((*prompt, 30 + i, 50, 51 + i, 4), 21))
        for i in range(number)
    ]


def fresh() -> Any:
    return copy.deepcopy(lm.pocket().model).requires_grad_(True)


def test_the_gradient_is_that_of_the_formula() -> None:
    """`-log sigmoid(beta * margin)`, written out with torch's autograd."""
    model, start, batch = fresh(), fresh(), pairs(3)
    objective = preferring(start, batch, beta=0.3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.01)
    loss = objective(model, batch)
    ours = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]

    def likelihood(of: Any, tokens: Tokens) -> Any:
        logits = of(input_ids=torch.tensor([tokens.ids])).logits[0].log_softmax(-1)
        return sum(logits[place - 1, tokens.ids[place]] for place in range(tokens.start, len(tokens.ids)))

    model.zero_grad()
    model.train()
    total = torch.zeros(())
    for pair in batch:
        now = likelihood(model, pair.chosen) - likelihood(model, pair.rejected)
        with torch.no_grad():
            before = likelihood(start, pair.chosen) - likelihood(start, pair.rejected)
        total = total - torch.nn.functional.logsigmoid(0.3 * (now - before)) / len(batch)
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-4)
    theirs = [weight.grad for weight in model.parameters() if weight.grad is not None]
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).abs().max()) <= 1e-4 * float(b.abs().max()) + 1e-9


def test_it_begins_at_log_2_and_widens_the_margins() -> None:
    model, data = fresh(), pairs(6)
    objective = preferring(model, data, beta=0.1)
    with torch.no_grad():
        before = _margins(model, data)
    losses = train(model, data, TuneSettings(None, 8, 1e-3, 4), objective)
    with torch.no_grad():
        after = _margins(model, data)
    assert losses[0] == pytest.approx(math.log(2), rel=1e-3)
    assert losses[-1] < 0.5
    assert all(now > then for now, then in zip(after, before, strict=True))


def score(program: nn.Module, examples: Sequence[Example]) -> float:
    batch = program.map(examples)
    return sum(float(pocket.metric(e, o)) for e, o in zip(examples, batch, strict=True)) / len(examples)


def test_a_model_that_samples_learns_which_of_its_replies_are_right(
    task: pocket.Task, data: Data, program: nn.Predict
) -> None:
    half = sft(program, data[0][:16], steps=14, lora=None, lr=5e-4)  # it knows the answers, not which is whose
    half.lm.options["temperature"] = 1.0
    result = dpo(half.program, data[0], pocket.metric, n=6, steps=40, lora=None, lr=5e-4, beta=0.3)
    assert isinstance(result.collected, Preferences)
    assert result.samples > 8
    assert result.losses[0] == pytest.approx(math.log(2), rel=1e-2)
    for tuned in (half.lm, result.lm):
        tuned.options["temperature"] = 0.0
    assert score(result.program, data[2]) > score(half.program, data[2]) + 0.1
    assert result.lm.name != half.lm.name


def test_preferences_are_taken_as_they_are_and_errors_say_what_to_do(program: nn.Predict, data: Data) -> None:
    given = [
        Preference(program.messages(text=example.text), example.answer, "no", example_id=example.id)
        for example in data[0][:4]
    ]
    result = dpo(program, given, steps=2)
    assert (result.samples, len(result.losses)) == (4, 2)
    assert dpo(program, given, steps=2, beta=0.5).lm.name != result.lm.name
    with pytest.raises(DataError, match="a metric has to say which runs are better"):
        dpo(program, data[0])
    with pytest.raises(ValueError, match="beta is a number above 0"):
        dpo(program, given, beta=0)
    with pytest.raises(DataError, match=r"there is nothing to learn: of 8 runs no two of one example.*temperature"):
        dpo(program, data[0][:2], pocket.metric)
    with pytest.raises(DataError, match=r"every sample .* is longer than 3 tokens"):
        dpo(program, given, max_length=3)
