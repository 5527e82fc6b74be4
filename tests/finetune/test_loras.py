"""Fine-tuning LoRAs that share one base, a program's modules each on its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import promptgrad as pg
from promptgrad import aio, lm, nn, optim
from promptgrad.autograd import LossRow
from promptgrad.data import Example, pocket
from promptgrad.errors import DataError, NoLMError, StateDictError
from promptgrad.finetune import Conversation, Preference, dpo, grpo, local_lms, sft
from promptgrad.finetune._policy import Policy, PolicyOptions
from promptgrad.finetune._rollouts import graded
from promptgrad.finetune._sample import arollouts
from promptgrad.finetune._surrogate import Surrogate
from promptgrad.finetune._training import TuneSettings

Data = tuple[list[Example], list[Example], list[Example]]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        vague = pocket.task("label-map-kind", seed=3).instruction("vague")
        self.first = nn.Predict("text -> answer", instruction=vague)
        self.second = nn.Predict("text -> answer", instruction=vague)

    def forward(self, text: str) -> Any:
        return self.second(text=self.first(text=text).answer)


def conversations(program: Two, replies: dict[str, str]) -> list[Conversation]:
    return [
        Conversation(tuple(lm.Message(**m) for m in program.get_submodule(path).render(text=text)), reply, path)
        for path, reply in replies.items()
        for text in ("wolf", "frog", "cat")
    ]


@pytest.fixture
def base() -> lm.Local:
    return lm.pocket(max_tokens=4).with_model(lm.pocket().model, "base")


@pytest.fixture
def program(base: lm.Local) -> Two:
    made = Two()
    made.first.to(base.lora("one", r=4))
    made.second.to(base.lora("two", r=2, dropout=0.1))
    return made


def test_each_is_trained_on_the_calls_of_its_modules(program: Two, base: lm.Local, tmp_path: Path) -> None:
    before = base.identity(), base.lora("one").identity()
    assert [(local.title, paths) for local, paths in local_lms(program)] == [("one", ("first",)), ("two", ("second",))]
    result = sft(program, conversations(program, {"first": "grey", "second": "green"}), steps=15)
    trained = result.program
    assert (str(trained.first(text="wolf").answer), str(trained.second(text="wolf").answer)) == ("grey", "green")
    assert list(result.parts) == ["one", "two"]
    assert (len(result.losses), result.samples, result.settings.steps) == (30, 6, 30)
    assert result.lm is trained.first.lm is result.parts["one"].lm
    assert result.parts["one"].settings.lora == {"r": 4, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"}
    assert trained.first.lm.base is trained.second.lm.base is base
    assert trained.first.lm.name.startswith("base:one+")
    assert (base.identity(), base.lora("one").identity()) == before
    assert program.first.lm is base.lora("one")

    result.save(tmp_path)
    loaded = Two()
    loaded.first.to(base.lora("saved", tmp_path / "one"))
    loaded.second.to(base.lora("saved2", tmp_path / "two"))
    assert (str(loaded.first(text="wolf").answer), str(loaded.second(text="wolf").answer)) == ("grey", "green")


def test_a_saved_program_has_them(program: Two, base: lm.Local, tmp_path: Path) -> None:
    pg.save(program, tmp_path / "new")
    assert not (tmp_path / "new" / "weights").exists()  # a new LoRA is made anew
    result = sft(program, conversations(program, {"first": "grey", "second": "green"}), steps=15)
    pg.save(result.program, tmp_path / "trained")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) < 400_000
    elsewhere = lm.pocket(max_tokens=4).with_model(lm.pocket().model, "elsewhere")
    plain = Two().to(elsewhere)
    pg.load(tmp_path / "trained", plain)
    assert (str(plain.first(text="wolf").answer), str(plain.second(text="wolf").answer)) == ("grey", "green")
    assert plain.first.lm.base is plain.second.lm.base is elsewhere
    assert plain.first.lm.name == result.program.first.lm.name
    pg.load(tmp_path / "trained", program)  # on LoRAs of the same names, which stay as they are
    assert str(program.first(text="wolf").answer) == "grey"
    assert program.first.lm is not base.lora("one")
    again = sft(program, conversations(program, {"first": "green"}), steps=15)
    assert str(again.program.first(text="wolf").answer) == "green"
    assert str(again.program.second(text="wolf").answer) == "green"
    file = next((tmp_path / "trained").rglob("adapter_config.json"))
    file.write_text("{}")
    with pytest.raises(StateDictError, match="peft_type"):
        pg.load(tmp_path / "trained", Two().to(elsewhere))


def test_one_of_them_by_name(program: Two) -> None:
    said = conversations(program, {"first": "grey", "second": "green"})
    result = sft(program, said, steps=3, lora="two")
    assert (result.samples, result.parts) == (3, {})
    assert result.program.first.lm is program.first.lm
    assert result.program.second.lm is result.lm is not program.second.lm
    with pytest.raises(NoLMError, match=r"no module runs on a LoRA 'three'.*there are 'one', 'two'"):
        sft(program, said, lora="three")
    with pytest.raises(DataError, match="nothing to learn"):
        sft(program, said[:3], lora="two")
    with pytest.raises(ValueError, match="whose LoRA is trained as it is"):
        sft(program, said, lora=None)


def test_a_name_for_a_program_on_the_base(base: lm.Local) -> None:
    program = Two().to(base)
    weights = [weight.clone() for weight in base.model.parameters()]
    result = sft(program, conversations(program, {"first": "grey"}), steps=15, lora="mine")
    assert str(result.program.first(text="wolf").answer) == "grey"
    assert result.lm.base is base
    assert result.lm.title == "mine"
    assert all(torch.equal(old, new) for old, new in zip(weights, base.model.parameters(), strict=True))
    assert result.settings.lr == 5e-3


def test_loras_of_two_bases_are_refused(program: Two, base: lm.Local) -> None:
    other = base.with_model(base.model, "other")
    program.second.to(other.lora("two"))
    with pytest.raises(NoLMError, match=r"2 local models \('base:one', 'other:two'\).*share one base"):
        sft(program, conversations(program, {"first": "grey", "second": "green"}))


def test_modules_on_the_base_itself_are_left_out(program: Two, base: lm.Local) -> None:
    program.second.to(base)
    result = sft(program, conversations(program, {"first": "grey", "second": "green"}), steps=2)
    assert result.samples == 3
    assert result.program.second.lm is base


def test_preferences_too(program: Two) -> None:
    said = conversations(program, {"first": "grey", "second": "green"})
    pairs = [Preference(one.messages, one.reply, "wolf", one.path) for one in said]
    result = dpo(program, pairs, steps=4, beta=0.5)
    assert list(result.parts) == ["one", "two"]
    assert result.parts["one"].losses[-1] < result.parts["one"].losses[0]


def test_same_seed_same_matrices(program: Two) -> None:
    said = conversations(program, {"first": "grey", "second": "green"})
    one, two, other = (sft(program, said, steps=3, batch_size=2, seed=seed) for seed in (1, 1, 2))
    assert one.losses == two.losses != other.losses
    assert one.program.second.lm.identity() == two.program.second.lm.identity() != other.program.second.lm.identity()


TASK = pocket.task("color-of-last", seed=3)


class Chain(nn.Module):
    """It says a color, and then a color of that."""

    def __init__(self, base: lm.Local) -> None:
        super().__init__()
        self.first = nn.Predict("text -> answer", instruction=TASK.instruction("partial")).to(base.lora("one", r=4))
        self.second = nn.Predict("text -> answer", instruction=TASK.instruction("partial")).to(base.lora("two", r=2))

    def forward(self, text: str) -> Any:
        return self.second(text=self.first(text=text).answer + " " + text)


def odd(example: Example, output: Any) -> float:
    return float(len(str(output.answer)) % 2)


def matrices(local: lm.Local) -> list[torch.Tensor]:
    return [weight.detach().clone() for _, weight in sorted(local.model.named_parameters())]


def test_scores_train_all_of_them_in_the_same_steps(base: lm.Local, tmp_path: Path) -> None:
    program = Chain(base)
    before = base.identity(), program.first.lm.identity(), program.second.lm.identity()
    asked: list[tuple[int, str, str]] = []

    async def runs(policy: nn.Module, examples: Sequence[Example], n: int, step: int) -> Sequence[LossRow]:
        rows = await arollouts(policy, examples, odd, n)
        for row in rows:
            assert row.tape is not None
            asked.extend((step, node.path, trace.lm.name) for node in row.tape.nodes for trace in node.weight_traces)
        return rows

    options: dict[str, Any] = {"n": 4, "batch_size": 4, "steps": 3, "runs": runs, "progress": False}
    result = grpo(program, TASK.split(8, 1, 1)[0], **options)
    assert {(path, name.partition("+")[0]) for _, path, name in asked} == {
        ("first", "base:one"),
        ("second", "base:two"),
    }
    assert len(asked) == 3 * 16 * 2
    assert list(result.parts) == ["one", "two"]
    assert len(result.losses) == 3
    one, two = (result.program.get_submodule(path).lm for path in ("first", "second"))
    assert [one, two] == [part.lm for part in result.parts.values()]
    assert one.base is two.base is base
    for new, old in ((one, program.first.lm), (two, program.second.lm)):
        assert not all(torch.equal(a, b) for a, b in zip(matrices(new), matrices(old), strict=True))
    assert (base.identity(), program.first.lm.identity(), program.second.lm.identity()) == before
    cut = {**options, "checkpoint": tmp_path / "run", "checkpoint_every": 1}
    again = grpo(Chain(base), TASK.split(8, 1, 1)[0], **cut)
    found = grpo(Chain(base), TASK.split(8, 1, 1)[0], **cut)
    for made in (again, found):
        for name in ("one", "two"):
            pairs = zip(matrices(made.parts[name].lm), matrices(result.parts[name].lm), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    result.save(tmp_path / "saved")
    loaded = base.lora("again", tmp_path / "saved" / "two")
    assert all(torch.equal(a, b) for a, b in zip(matrices(loaded), matrices(two), strict=True))


def test_the_gradient_of_each_is_of_its_own_replies(base: lm.Local) -> None:
    """Summed over both, it is that of the expected score; the norm that is clipped is that of both together."""
    program = Chain(base)
    learners = [program.first.lm, program.second.lm]
    settings = TuneSettings({"r": 4}, 4, 1e-3, 4)
    policy = Policy(program, learners, PolicyOptions(4, 1.0, 0.2, 1, 0.1, False, 1.0), settings)
    policy.sampling(0)
    rows = aio.run(arollouts(policy.program, TASK.split(4, 1, 1)[0], odd, 4))
    found = graded(rows, *policy.lms)
    assert {reply.by for reply in found.replies} == {0, 1}
    grads: list[list[torch.Tensor]] = []
    for by, own in enumerate(policy.lms):
        other = graded(rows, own)
        mine = [reply for reply in found.replies if reply.by == by]
        assert [(r.tokens, r.advantage) for r in mine] == [(r.tokens, r.advantage) for r in other.replies]
        Surrogate(mine, found.runs, kl=0.1, reference=policy.references[by]).gradient(policy.models[by])
        grads.append([weight.grad.clone() for weight in policy.models[by].parameters()])
        policy.models[by].zero_grad()
    norm = torch.stack([grad.norm() for both in grads for grad in both]).norm()
    seen: list[torch.Tensor] = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: seen.extend(weight.grad.clone() for weight in optimizer.param_groups[0]["params"])
    )
    try:
        policy.learn(found)
    finally:
        hook.remove()
    scale = min(1.0, 1.0 / (float(norm) + 1e-6))
    assert float(norm) > 0
    for got, expected in zip(seen, [grad * scale for both in grads for grad in both], strict=True):
        assert torch.allclose(got, expected, atol=1e-6)


def test_scores_train_one_of_them_by_name(base: lm.Local) -> None:
    program = Chain(base)
    given: dict[str, Any] = {"n": 4, "batch_size": 4, "steps": 2, "progress": False}
    result = grpo(program, TASK.split(4, 1, 1)[0], odd, lora="two", **given)
    assert result.program.first.lm is program.first.lm
    assert result.program.second.lm is result.lm
    assert result.parts == {}
    alone = nn.Predict("text -> answer", instruction=TASK.instruction("partial")).to(base)
    made = grpo(alone, TASK.split(4, 1, 1)[0], odd, lora="fresh", **given)
    assert (made.lm.title, made.lm.base, alone.lm) == ("fresh", base, base)
    with pytest.raises(NoLMError, match="no module runs on a LoRA 'three'"):
        grpo(program, TASK.split(4, 1, 1)[0], odd, lora="three", **given)
    with pytest.raises(ValueError, match="whose LoRA is trained as it is"):
        grpo(program, TASK.split(4, 1, 1)[0], odd, lora={"r": 2}, **given)
    program.second.to(base.lora("dropping", dropout=0.1))
    with pytest.raises(ValueError, match="without dropout, and 'base:dropping' has some"):
        grpo(program, TASK.split(4, 1, 1)[0], odd, **given)


def test_scores_train_them_in_the_trainer(base: lm.Local) -> None:
    program = Chain(base)
    optimizer = optim.GRPO(program, n=4, steps=2, batch_size=4)
    train, val, _ = TASK.split(8, 8, 1)
    result = pg.Trainer(program, optimizer, metric=odd, progress=False).fit(train, val)
    assert list(optimizer.result.parts) == ["one", "two"]
    if result.shipped:
        assert program.first.lm is optimizer.result.parts["one"].lm
