import re

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.autograd import Critique, Gradient
from promptgrad.errors import NoLMError


def critique(text, example="e", support=1):
    return Critique(example, "pick", 0, "instruction", text, support=support)


class Writer:
    """A language model that improves instructions with scripted texts, and keeps what it was shown."""

    def __init__(self, *texts):
        self.texts = list(texts)
        self.shown = []

    def __call__(self, messages):
        self.shown.append(messages[-1].content)
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        return text if text.startswith("<raw>") else f"[[ ## new_instruction ## ]]\n{text}\n\n[[ ## completed ## ]]"


class Blames:
    async def critique(self, failure):
        return {"instruction": "Take the last."}


def predict(instruction="Take a word from {text}.", grad=("Take the last word.",)):
    model = nn.Predict("text -> word", instruction=instruction)
    list(model.named_parameters())
    if grad:
        model.instruction.grad = Gradient([critique(text) for text in grad])
    return model


def step(model, *texts, **options):
    writer = Writer(*texts)
    opt = optim.TGD(model.parameters(), lm=lm.Function(writer), **options)
    return opt, opt.step(), writer


class TestOneStep:
    def test_the_rewrite_is_installed_and_said_to_be_ungated(self):
        model = predict()
        _, report, writer = step(model, "Take the last word from {text}.")
        assert model.instruction.data == "Take the last word from {text}."
        assert report.gate is None
        assert report.calls == len(writer.shown) == 1
        assert "1 of 1 parameters changed, not gated; 1 calls" in repr(report)
        assert "edit 0.22" in repr(report)

    @pytest.mark.parametrize(
        ("text", "options", "reason"),
        [
            ("Take the last word.", {}, "drops the placeholder {text}"),
            ("Choose wisely among what {text} says, and mind the spelling!", {"max_edit": 0.3}, "max_edit=0.3"),
            ("Take one or another word from {text}, please.", {"max_tokens": 8}, "max_tokens=8"),
            ("Take a word from {text}.", {}, "does not change"),
            ("SHOUT {text}", {"constraints": [lambda text: "it shouts" if "SHOUT" in text else None]}, "it shouts"),
        ],
    )
    def test_what_breaks_a_rule_is_rejected_with_its_reason(self, text, options, reason):
        model = predict()
        _, report, _ = step(model, text, **options)
        assert model.instruction.data == "Take a word from {text}."
        assert report.changes[0].status == "rejected"
        assert reason in report.changes[0].reason
        assert reason in repr(report)

    @pytest.mark.parametrize(
        "reply",
        [
            "<reasoning>It is too short.</reasoning> Take the last word of {text}.",
            "Sure! Here is the new instruction: take the last word of {text}.",
            "I'm sorry, but I can't help with {text}.",
            "[[ ## role ## ]]\nTake the last word of {text}.",
            "",
        ],
    )
    def test_a_reply_that_is_no_instruction_is_never_installed(self, reply):
        model = predict()
        opt = optim.TGD(model.parameters(), lm=lm.Function(lambda messages: reply, name="chatty"))
        report = opt.step()
        assert model.instruction.data == "Take a word from {text}."
        assert report.changes[0].status == "rejected"

    def test_an_unreadable_reply_is_asked_for_once_more_and_then_rejected(self):
        model = predict()
        confused = lm.Function(lambda messages: "[[ ## other ## ]]\nx", name="confused")
        opt = optim.TGD(model.parameters(), lm=confused)
        inputs = "role, instruction, critiques: list[str], failures: list, rules: list[str], rejected: list[str]"
        opt.proposer = nn.Predict(f"{inputs} -> why, new_instruction")
        report = opt.step()
        assert report.changes[0].status == "rejected"
        assert report.calls == 2
        assert "the reply holds no instruction" in report.changes[0].reason

    def test_no_gradient_no_call(self):
        model = predict(grad=())
        _, report, writer = step(model, "x")
        assert writer.shown == []
        assert report.changes[0].status == "untouched"
        assert "backward() was not called" in report.changes[0].reason

    def test_an_lm_that_is_down_rejects_and_keeps_the_text(self):
        from promptgrad.errors import LMConnectionError

        def down(messages):
            raise LMConnectionError("refused")

        model = predict()
        report = optim.TGD(model.parameters(), lm=lm.Function(down)).step()
        assert "no answer: refused" in report.changes[0].reason
        assert model.instruction.data == "Take a word from {text}."

    def test_no_lm(self):
        with pytest.raises(NoLMError, match=r"optim\.TGD\(model\.parameters\(\), lm=\.\.\.\)"):
            optim.TGD(predict().parameters()).step()

    def test_without_an_lm_the_one_of_the_blamed_call_writes(self):
        writer = Writer("Take the last word from {text}.")
        model = nn.Predict("text -> word", instruction="Take a word from {text}.")
        model.to(
            lm.Function(
                lambda messages: (
                    "[[ ## word ## ]]\na" if "new_instruction" not in messages[0].content else writer(messages)
                )
            )
        )
        examples = [pg.Example(text="a b", word="b").with_inputs("text")]
        criterion = nn.MetricLoss(lambda example, output: example.word == output.word)
        criterion(model.map(examples), examples).backward(critic=Blames())
        assert model.instruction.grad.critiques[0].lm is model.lm
        assert "lm" not in model.instruction.grad.critiques[0].to_dict()
        optim.TGD(model.parameters()).step()
        assert model.instruction.data == "Take the last word from {text}."

    @pytest.mark.parametrize(
        "options", [{"max_edit": 0}, {"max_edit": 1.5}, {"momentum": 1}, {"gate": 1}, {"steps": 0}]
    )
    def test_options_out_of_range(self, options):
        with pytest.raises(ValueError, match="not"):
            optim.TGD(predict().parameters(), **options)

    def test_a_group_may_have_its_own_bound(self):
        model = predict()
        with pytest.raises(ValueError, match="max_edit"):
            optim.TGD([{"params": model.parameters(), "max_edit": 2}])
        writer = Writer("Choose wisely among what {text} says, and mind the spelling!")
        opt = optim.TGD([{"params": model.parameters(), "max_edit": 0.3}], lm=lm.Function(writer))
        assert opt.step().changes[0].status == "rejected"
        assert "change at most 30% of the words" in writer.shown[0]


class TestWhatIsShown:
    def test_critiques_are_counted_and_the_most_frequent_come_first(self):
        model = predict(grad=("rare", "often", "seldom", "often", "often", "seldom"))
        _, _, writer = step(model, "New {text}", max_critiques=2)
        assert re.findall("often|seldom|rare", writer.shown[0]) == ["often", "seldom"]

    def test_the_whole_text_is_shown(self):
        long = "Take a word from {text}. " + "And so on. " * 300
        _, _, writer = step(predict(long), "x {text}")
        assert long.strip() in writer.shown[0]

    def test_failed_calls_are_shown_with_their_feedback(self, world):
        writer = Writer("Take the last word.")
        model = world.Program().to(lm.Function(world.answer))
        batch = world.examples(8)
        nn.MetricLoss(world.metric)(model.map(batch), batch).backward()
        optim.TGD(model.parameters(), lm=lm.Function(writer), max_failures=2).step()
        shown = world.sections(writer.shown[0])
        import json

        failures = json.loads(shown["failures"])
        assert len(failures) == 2
        assert failures[0]["inputs"] == {"text": batch[0].text}
        assert failures[0]["outputs"] == {"word": batch[0].text.split()[0]}
        assert failures[0]["feedback"] == [f"the word should be {batch[0].text.split()[-1]}"]

    def test_momentum_keeps_what_was_said_before(self):
        model = predict(grad=("first", "first"))
        opt, _, writer = step(model, "One {text}", "Two {text}", "Three {text}", momentum=0.5)
        model.instruction.grad = Gradient([critique("second")])
        opt.step()
        assert re.findall("first|second", writer.shown[1]) == ["second", "first"]  # 1 and 0.5 * 2, the newer first
        model.instruction.grad = Gradient([critique("third")])
        opt.step()
        assert re.findall("first|second|third", writer.shown[2]) == ["third", "second", "first"]

    def test_what_a_gate_rejected_is_shown_and_not_tried_again(self):
        model = predict()
        model.to(lm.Function(lambda m: "[[ ## word ## ]]\nx\n\n[[ ## completed ## ]]"))
        batch = [pg.Example(text=f"t{i}", word="y").with_inputs("text") for i in range(4)]
        criterion = nn.MetricLoss(pg.metrics.exact_match)
        writer = Writer("Never {text}")
        opt = optim.TGD(model.parameters(), lm=lm.Function(writer))
        first = opt.step(lambda: criterion(model.map(batch), batch))
        assert "not better" in first.changes[0].reason
        second = opt.step()
        assert "Never {text}" in writer.shown[1]
        assert "tried before" in second.changes[0].reason
        assert model.instruction.data == "Take a word from {text}."


class TestTheLoop:
    def test_a_program_of_two_steps_learns_its_task(self, world):
        simulated = lm.Function(world.answer)
        model = world.Program().to(simulated)
        opt = optim.TGD(model.parameters(), lm=simulated)
        criterion = nn.MetricLoss(world.metric)
        losses, calls = [], []
        for batch in pg.data.DataLoader(world.examples(16), batch_size=8):
            with pg.track_usage() as usage:
                opt.zero_grad()
                loss = criterion(model.map(batch), batch)
                loss.backward()
                opt.step()
            losses.append(loss.item())
            calls.append(usage.calls)
        assert losses == [1.0, 0.0]
        assert calls == [16 + 16 + 2, 16]  # forward, backward, step; a success costs nothing
        assert "Take the last word." in model.pick.instruction.data
        assert "Reverse the word." in model.spell.instruction.data

    def test_only_what_is_to_blame_is_touched(self, world):
        simulated = lm.Function(world.answer)
        model = world.Program().to(simulated)
        model.pick.instruction.data = "Take the last word."
        batch = world.examples(8)
        nn.MetricLoss(world.metric)(model.map(batch), batch).backward()
        report = optim.TGD(model.parameters(), lm=simulated).step()
        assert [change.status for change in report.changes] == ["untouched", "accepted"]
        assert model.pick.instruction.data == "Take the last word."
