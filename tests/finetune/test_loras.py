"""Fine-tuning LoRAs that share one base, a program's modules each on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.data import Example, pocket
from promptgrad.errors import DataError, NoLMError, StateDictError
from promptgrad.finetune import Conversation, Preference, dpo, local_lms, sft

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
    with pytest.raises(ValueError, match="gradient_checkpointing is for a model of its own"):
        sft(program, said, gradient_checkpointing=True)


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
