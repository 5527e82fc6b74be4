import asyncio
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.autograd import Critique, Gradient
from promptgrad.errors import LMConnectionError, NoLMError
from promptgrad.search import TIPS
from tests.waiting import turns


def critique(text, example="", support=1):
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


def on_scale(model):
    """Let the program get the first n examples right, of an instruction with the words "up to n"."""

    def answer(messages):
        bound = re.search(r"up to (\d+)", messages[0].content)
        number = int(re.search(r"t(\d+)", messages[-1].content).group(1))
        word = "right" if bound and number < int(bound.group(1)) else "wrong"
        return f"[[ ## word ## ]]\n{word}\n\n[[ ## completed ## ]]"

    model.to(lm.FunctionLM(answer))
    return [pg.Example(text=f"t{i}", word="right").with_inputs("text") for i in range(12)]


def gated(opt, model):
    """A step that is measured on 12 examples, and the instructions that it was measured with."""
    batch = on_scale(model)
    criterion = nn.MetricLoss(pg.metrics.exact_match)
    runs = []

    def closure():
        runs.append(str(model.instruction.data))
        return criterion(model.map(batch), batch)

    return opt.step(closure), runs


def step(model, *texts, **options):
    writer = Writer(*texts)
    opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(writer), **options)
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
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(lambda messages: reply, name="chatty"))
        report = opt.step()
        assert model.instruction.data == "Take a word from {text}."
        assert report.changes[0].status == "rejected"

    @pytest.mark.parametrize(
        "reply",
        [
            "[[ ## new_instruction ## ]]\n```\nTake the last word of {text}.\n```",
            '[[ ## new_instruction ## ]]\n"Take the last word of {text}."',
            "[[ ## analysis ## ]]\nIt is the last.\n\n[[ ## new_instruction ## ]]\n`Take the last word of {text}.`",
        ],
    )
    def test_what_stands_around_the_whole_text_is_taken_away(self, reply):
        model = predict()
        report = optim.TGD(model.parameters(), lm=lm.FunctionLM(lambda messages: reply)).step()
        assert model.instruction.data == "Take the last word of {text}."
        assert report.calls == 1, "an analysis may be missing"

    def test_an_unreadable_reply_is_asked_for_once_more_and_then_rejected(self):
        model = predict()
        confused = lm.FunctionLM(lambda messages: "[[ ## other ## ]]\nx", name="confused")
        opt = optim.TGD(model.parameters(), lm=confused)
        inputs = "role, instruction, rows: list[dict[str, Any]]"
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
        report = optim.TGD(model.parameters(), lm=lm.FunctionLM(down)).step()
        assert "no answer: refused" in report.changes[0].reason
        assert model.instruction.data == "Take a word from {text}."

    @pytest.mark.parametrize("error", [RuntimeError("boom"), TimeoutError("slow")])
    def test_so_does_a_function_that_raises(self, error):
        def fails(messages):
            raise error

        model = predict()
        report = optim.TGD(model.parameters(), lm=lm.FunctionLM(fails)).step()
        assert (
            f"no answer: the function of LM 'fails' raised {type(error).__name__}: {error}" in report.changes[0].reason
        )
        assert model.instruction.data == "Take a word from {text}."

    @pytest.mark.parametrize(
        "error",
        [
            KeyboardInterrupt(),
            pg.errors.BudgetExceeded(kind="calls", limit=1, used=1),
            pg.errors.ReplayError("not on record"),
        ],
    )
    def test_what_ends_a_run_is_no_reason(self, error):
        def fails(messages):
            raise error

        with pytest.raises(type(error)):
            optim.TGD(predict().parameters(), lm=lm.FunctionLM(fails)).step()

    def test_no_lm(self):
        with pytest.raises(NoLMError, match=r"optim\.TGD\(model\.parameters\(\), lm=\.\.\.\)"):
            optim.TGD(predict().parameters()).step()

    def test_without_an_lm_the_one_of_the_blamed_call_writes(self):
        writer = Writer("Take the last word from {text}.")
        model = nn.Predict("text -> word", instruction="Take a word from {text}.")
        model.to(
            lm.FunctionLM(
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

    @pytest.mark.parametrize("options", [{"max_edit": 0}, {"max_edit": 1.5}, {"gate": 1}, {"steps": 0}])
    def test_options_out_of_range(self, options):
        with pytest.raises(ValueError, match="not"):
            optim.TGD(predict().parameters(), **options)

    def test_a_group_may_have_its_own_bound(self):
        model = predict()
        with pytest.raises(ValueError, match="max_edit"):
            optim.TGD([{"params": model.parameters(), "max_edit": 2}])
        writer = Writer("Choose wisely among what {text} says, and mind the spelling!")
        opt = optim.TGD([{"params": model.parameters(), "max_edit": 0.3}], lm=lm.FunctionLM(writer))
        assert opt.step().changes[0].status == "rejected"
        assert "keep at least 70% of the words" in writer.shown[0]

    def test_each_step_draws_anew_and_a_loaded_optimizer_goes_on_counting(self):
        model = predict()
        opt, _, writer = step(model, "Take the last word from {text}.")
        opt.step()
        assert opt.state_dict()["steps"] == 2
        again = optim.TGD(model.parameters(), lm=lm.FunctionLM(writer))
        again.load_state_dict(opt.state_dict())
        again.step()
        assert again.state_dict()["steps"] == 3

    def test_a_gate_draws_anew_in_each_step_also_in_that_of_a_loaded_optimizer(self):
        """The same gains on the same rows: the bounds differ by the draw alone."""
        batch = [pg.Example(text=f"t{i}", word=str(i)).with_inputs("text") for i in range(12)]

        def metric(example, output):
            return 0.4 if output.word == "same" else 0.4 + 0.1 * (int(example.word) % 4 - 1.3)

        def made():
            model = predict()
            said = {True: "[[ ## word ## ]]\nnew", False: "[[ ## word ## ]]\nsame"}
            model.to(lm.FunctionLM(lambda messages: said["NEW" in messages[0].content]))
            opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(Writer("NEW {text} 1", "NEW {text} 2")), proposals=1)
            loss = nn.MetricLoss(metric)
            return opt, lambda: opt.step(lambda: loss(model.map(batch), batch)).gate

        opt, step_of = made()
        first, second = step_of(), step_of()
        assert not first.accepted
        assert first.effect != second.effect
        other, step_of_other = made()
        assert step_of_other() == first
        other.load_state_dict({**other.state_dict(), "steps": 0})
        again, step_of_again = made()
        again.load_state_dict({**again.state_dict(), "steps": 1})
        assert (step_of_again().low, opt.state_dict()["steps"]) == (second.low, 2)


class TestWhatIsShown:
    def test_critiques_are_counted_and_the_most_frequent_come_first(self):
        model = predict(grad=("rare", "often", "seldom", "often", "often", "seldom"))
        _, _, writer = step(model, "New {text}")
        assert re.findall("often|seldom|rare", writer.shown[0]) == ["often", "seldom", "rare"]

    def test_the_whole_text_is_shown(self):
        long = "Take a word from {text}. " + "And so on. " * 300
        _, _, writer = step(predict(long), "x {text}")
        assert long.strip() in writer.shown[0]

    def test_failed_calls_are_shown_with_their_feedback(self, world):
        writer = Writer("Take the last word.")
        model = world.Program().to(lm.FunctionLM(world.answer))
        batch = world.examples(8)
        nn.MetricLoss(world.metric)(model.map(batch), batch).backward(engine="local")
        optim.TGD(model.parameters(), lm=lm.FunctionLM(writer), max_evidence=110).step()
        rows = json.loads(world.sections(writer.shown[0])["rows"])
        assert len(rows) == 2, "as many as fit"
        by_text = {row["inputs"]["text"]: row for row in rows}
        for text in by_text.keys() & {example.text for example in batch}:
            assert by_text[text]["outputs"] == {"word": text.split()[0]}
            assert by_text[text]["feedback"] == f"the word should be {text.split()[-1]}"
        assert rows[0]["critique"] == "Take the last word."
        assert rows[1]["critique"] == "as in row 1"

    def test_what_a_gate_rejected_is_shown_and_not_tried_again(self):
        model = predict()
        model.to(lm.FunctionLM(lambda m: "[[ ## word ## ]]\nx\n\n[[ ## completed ## ]]"))
        batch = [pg.Example(text=f"t{i}", word="y").with_inputs("text") for i in range(4)]
        criterion = nn.MetricLoss(pg.metrics.exact_match)
        writer = Writer("Never {text}")
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(writer), proposals=1)
        first = opt.step(lambda: criterion(model.map(batch), batch))
        assert "not better" in first.changes[0].reason
        saved = json.loads(json.dumps(opt.state_dict()))
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(writer), proposals=1)
        opt.load_state_dict(saved)
        second = opt.step()
        worse = json.loads(re.search(r"## worse ## \]\]\n(.*)", writer.shown[1]).group(1))
        assert worse == [{"text": "Never {text}", "effect": f"{first.gate.effect} on 4 pairs"}]
        assert "tried before" in second.changes[0].reason
        assert "tried before" in opt.step().changes[0].reason, "that it was refused does not undo that it was measured"
        assert model.instruction.data == "Take a word from {text}."

    def test_what_a_rule_refused_is_shown_with_the_rule_and_may_come_again(self):
        model = predict()
        writer = Writer("Choose wisely among what {text} says, and mind the spelling!")
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(writer), max_edit=0.3)
        assert opt.step().changes[0].status == "rejected"
        opt.param_groups[0]["max_edit"] = 1.0
        assert opt.step().changes[0].status == "accepted"
        assert 'mind the spelling!","effect":"refused: it removes or replaces' in writer.shown[1]

    def test_what_was_taken_back_is_not_tried_again(self):
        model = predict()
        opt, _, writer = step(model, "Take the last word from {text}.")
        opt.revert()
        assert model.instruction.data == "Take a word from {text}."
        assert "tried before" in opt.step().changes[0].reason
        assert '{"text":"Take the last word from {text}.","effect":"taken back"}' in writer.shown[1]

    def test_the_memory_is_bounded_and_may_be_none(self):
        model = predict()
        writer = Writer(*(f"Take word {n}." for n in range(5)))
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(writer), memory=2)
        for _ in range(4):
            opt.step()
        assert [entry["text"] for entry in opt.state[model.instruction]["rejected"]] == ["Take word 2.", "Take word 3."]
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(writer), memory=0)
        opt.step()
        assert "rejected" not in opt.state[model.instruction]

    def test_the_rules_are_told(self):
        def no_capitals(text):
            """Write no word in capitals."""

        model = predict()
        _, _, writer = step(model, "New {text}", max_edit=0.5, length_price=0.02, constraints=[no_capitals])
        rules = json.loads(re.search(r"## rules ## \]\]\n(.*)", writer.shown[0]).group(1))
        assert rules == [
            "keep at least 50% of the words as they stand; you may add to them",
            "at most 1000 words and punctuation marks",
            "be short: each 100 words that are added must raise the score by more than 0.02",
            "Write no word in capitals.",
        ]

    @pytest.mark.parametrize("demos", [True, False])
    def test_the_right_rows_nearest_to_the_failed_ones_from_the_traces_of_the_demos(self, world, demos):
        """Demos that are not given to the optimizer leave it no traces."""
        model = predict("Take a word. It works up to 9", grad=())
        batch, writer = on_scale(model), Writer("Take the last word.")
        nn.MetricLoss(pg.metrics.exact_match)(model.map(batch), batch).backward()
        given = model.parameters() if demos else [model.instruction]
        assert optim.TGD(given, lm=lm.FunctionLM(writer)).step().accepted
        rows = json.loads(world.sections(writer.shown[0])["rows"])
        failed = [row for row in rows if "score" not in row]
        assert [row["outputs"]["word"] for row in failed] == ["wrong"] * 3
        right = [row for row in rows if "score" in row]
        assert all((row["outputs"], row["score"]) == ({"word": "right"}, 1.0) for row in right)
        assert rows == failed + right
        assert len(right) == (9 if demos else 0)


class TestSeveralProposals:
    def make(self, *texts, grad=("one", "two", "three"), **options):
        model = predict(grad=grad)
        writer = Writer(*texts)
        return model, optim.TGD(model.parameters(), lm=lm.FunctionLM(writer), **options), writer

    def test_the_best_is_installed_and_all_are_reported(self):
        model, opt, writer = self.make("{text} up to 2", "{text} up to 12", "{text} up to 8")
        report, runs = gated(opt, model)
        assert model.instruction.data == "{text} up to 12"
        assert runs == ["Take a word from {text}.", "{text} up to 2", "{text} up to 12", "{text} up to 8"]
        assert [change.status for change in report.proposals] == ["rejected", "accepted", "rejected"]
        assert [change.variant for change in report.proposals] == [0, 1, 2]
        assert [round(change.verdict.gain, 2) for change in report.proposals] == [0.17, 1.0, 0.67]
        assert [change.usage.calls for change in report.proposals] == [1, 1, 1]
        assert "proposal 1 is better" in report.proposals[2].reason
        assert (report.gate.of, round(report.gate.confidence, 3)) == (3, 0.967)
        assert report.changes == (report.proposals[1],)
        assert (report.calls, report.gate_usage.calls, len(writer.shown)) == (3 + 48, 48, 3)
        shown = repr(report).splitlines()
        assert "best of 3" in shown[0]
        assert "51 calls (48 in the gate)" in shown[0]
        assert "    1: accepted  gain +1.000" in shown[3]
        rejected = opt.state[model.instruction]["rejected"]
        assert [entry["text"] for entry in rejected] == ["{text} up to 2"]  # the third passed: it was only not the best

    def test_each_sees_all_and_has_a_tip_of_its_own(self):
        model, opt, writer = self.make("{text} up to 1", "{text} up to 2", proposals=4)
        gated(opt, model)
        seen = [json.loads(re.search(r"## rows ## \]\]\n(.*)", shown).group(1)) for shown in writer.shown]
        assert [row["critique"] for row in seen[0]] == ["one", "two", "three"]
        assert all(rows == seen[0] for rows in seen)
        tips = [re.search(r"## tip ## \]\]\n(.*)", shown).group(1) for shown in writer.shown]
        assert tips == list(TIPS[:4])

    def test_equal_ones_are_measured_once(self):
        model, opt, writer = self.make("{text} up to 12")
        report, runs = gated(opt, model)
        assert len(writer.shown) == 3
        assert len(runs) == 2
        assert report.gate.of == 1
        assert [change.status for change in report.proposals] == ["accepted", "rejected", "rejected"]
        assert "proposed twice" in report.proposals[2].reason
        assert "rejected" not in opt.state[model.instruction]

    def test_none_is_installed_on_weak_evidence(self):
        model, opt, _ = self.make("{text} up to 1", "{text} up to 2")
        report, _ = gated(opt, model)
        assert model.instruction.data == "Take a word from {text}."
        assert report.accepted == ()
        assert "not beyond doubt" in report.changes[0].reason
        assert report.changes[0].new == "{text} up to 2"

    def test_the_best_of_many_needs_more_than_the_only_one(self):
        model, opt, _ = self.make("{text} up to 3", proposals=1)
        assert gated(opt, model)[0].gate.accepted
        model, opt, _ = self.make("{text} up to 3", *(f"{{text}} in {n}" for n in range(9)), proposals=10)
        report, _ = gated(opt, model)
        assert report.gate.gain == 0.25
        assert report.gate.of == 10
        assert not report.gate.accepted

    def test_a_step_without_a_gate_writes_one(self):
        model, opt, writer = self.make("{text} up to 1", "{text} up to 12", proposals=5)
        report = opt.step()
        assert len(writer.shown) == report.calls == 1
        assert model.instruction.data == "{text} up to 1"

    def test_what_failed_together_may_be_tried_again_alone(self):
        model = nn.Sequential(*(nn.Predict("text -> word", instruction=f"Take {i}.") for i in range(2)))
        batch = on_scale(model[0])
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(Writer("Take it.")), proposals=1)
        for module in model:
            module.instruction.grad = Gradient([critique("no")])
        criterion = nn.MetricLoss(pg.metrics.exact_match)
        report = opt.step(lambda: criterion(model[0].map(batch), batch))
        assert [change.status for change in report.changes] == ["rejected", "rejected"]
        (entry,) = opt.state[model[0].instruction]["rejected"]
        assert entry["effect"].endswith("on 12 pairs, with other changes")
        model[1].instruction.grad = None
        assert opt.step().changes[0].status == "accepted"

    def test_a_part_that_broke_a_rule_was_not_measured_though_its_variant_won(self):
        model = nn.Sequential(
            nn.Predict("text -> word", instruction="Take."), nn.Predict("text -> word", instruction="Take {it}.")
        )
        batch = on_scale(model[0])
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(Writer("Take up to 12.")), proposals=1)
        for module in model:
            module.instruction.grad = Gradient([critique("no")])
        criterion = nn.MetricLoss(pg.metrics.exact_match)
        report = opt.step(lambda: criterion(model[0].map(batch), batch))
        assert [change.status for change in report.changes] == ["accepted", "rejected"]
        assert report.changes[0].verdict == report.gate
        assert report.changes[1].verdict is None
        assert opt.state[model[1].instruction]["rejected"][0]["effect"].startswith("refused: it drops the placeholder")

    def test_one_that_breaks_a_rule_is_not_measured(self):
        model, opt, _ = self.make("up to 12", "{text} up to 12")
        report, runs = gated(opt, model)
        assert "drops the placeholder" in report.proposals[0].reason
        assert report.proposals[0].verdict is None
        assert runs[1:] == ["{text} up to 12"]
        assert report.gate.of == 1
        assert model.instruction.data == "{text} up to 12"

    def test_proposed_by_hand(self):
        model, opt, _ = self.make("{text} a", "{text} b", "{text} c")
        changes = opt.propose(3)
        assert [(change.variant, change.new) for change in changes] == [
            (0, "{text} a"),
            (1, "{text} b"),
            (2, "{text} c"),
        ]
        with pytest.raises(IndexError, match="3 were proposed"):
            opt.accept(3)
        assert opt.accept(2)[0].new == "{text} c"
        assert model.instruction.data == "{text} c"
        with pytest.raises(RuntimeError, match="nothing is pending"):
            opt.accept()
        opt.revert()
        assert model.instruction.data == "Take a word from {text}."

    @pytest.mark.parametrize("asynchronous", [True, False])
    def test_in_a_coroutine(self, asynchronous):
        model, opt, _ = self.make("{text} up to 2", "{text} up to 12", "{text} up to 8")
        batch = on_scale(model)
        criterion = nn.MetricLoss(pg.metrics.exact_match)
        running, most = [0], [0]

        async def aclosure():
            running[0] += 1
            most[0] = max(most[0], running[0])
            await turns()
            loss = await criterion.acall(await model.amap(batch), batch)
            running[0] -= 1
            return loss

        def closure():
            return criterion(model.map(batch), batch)

        async def main():
            return await opt.astep(aclosure if asynchronous else closure)

        report = asyncio.run(main())
        assert [round(change.verdict.gain, 2) for change in report.proposals] == [0.17, 1.0, 0.67]
        assert model.instruction.data == "{text} up to 12"
        assert most == [3 if asynchronous else 0]

    def test_the_same_seed_makes_the_same_draw(self):
        def heard():
            model, opt, writer = self.make("{text} up to 1", "{text} up to 2", grad="abcdefgh", proposals=6)
            gated(opt, model)
            return writer.shown

        assert heard() == heard()

    def test_each_proposal_is_another_sample(self):
        model = predict(grad="abc")
        asked = []

        def write(request):
            asked.append(request.options().get("replicate", 0))
            return "[[ ## new_instruction ## ]]\n{text} up to 0"

        gated(optim.TGD(model.parameters(), lm=lm.FunctionLM(write, name="writer"), proposals=3), model)
        assert sorted(asked) == [0, 1, 2]


class TestThePriceOfLength:
    LONG = "{text} up to 6 " + "and so on " * 40

    def test_a_longer_text_must_earn_its_length(self):
        for price, installed in ((0.0, True), (0.1, True), (0.5, False)):
            model = predict()
            opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(Writer(self.LONG)), length_price=price)
            report, _ = gated(opt, model)
            assert report.gate.price == pytest.approx(price * 1.18)  # 126 tokens instead of 8
            assert bool(report.accepted) == installed
            if not installed:
                assert "its length costs more: +0.590 for a gain of +0.500" in report.changes[0].reason

    @pytest.mark.parametrize(
        ("old", "words"),
        [
            ("{text} up to 12 ", "worse, but shorter: the"),
            ("{text} up to 10 ", "as good, and shorter: the"),
        ],
    )
    def test_a_shorter_text_may_score_less(self, old, words):
        model = predict(old + "and so on " * 200)
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(Writer("{text} up to 10")), length_price=0.1)
        report, _ = gated(opt, model)
        assert report.accepted
        assert report.changes[0].verdict.reason.startswith(words)

    def test_unless_it_scores_too_much_less(self):
        model = predict("{text} up to 12 " + "and so on " * 200)
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(Writer("{text} up to 1")), length_price=0.1)
        report, _ = gated(opt, model)
        assert "shorter, but the score falls by more than that is worth" in report.changes[0].reason

    def test_of_equals_the_shorter_wins(self):
        model = predict(grad=("one", "two"))
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(Writer(self.LONG, "{text} up to 6")), proposals=2)
        gated(opt, model)
        assert model.instruction.data == "{text} up to 6"

    def test_a_group_has_its_own(self):
        model = predict()
        group = {"params": [model.instruction], "length_price": 0.5}
        opt = optim.TGD([group, {"params": [model.demos]}], lm=lm.FunctionLM(Writer(self.LONG)))
        assert not gated(opt, model)[0].accepted
        assert opt.config()["groups"][0]["length_price"] == 0.5
        with pytest.raises(ValueError, match="not negative"):
            optim.TGD(model.parameters(), length_price=-1)


class TestNobodyBlamed:
    def test_failures_without_blame_are_told(self):
        class Absolves:
            async def critique(self, failure):
                return {}

        model = predict(grad=())
        batch = on_scale(model)[:5]
        loss = nn.MetricLoss(pg.metrics.exact_match)(model.map(batch), batch)
        loss.backward(critic=Absolves())
        opt = optim.TGD([model.instruction], lm=lm.FunctionLM(Writer("{text} up to 5")))
        report = opt.step(loss=loss)
        assert report.notes == (
            "5 of 5 samples failed and nobody was blamed: the critic found every instruction right. "
            "Take the gradient at an earlier text, or ask another critic",
        )
        assert report.notes[0] in repr(report)
        report, _ = gated(opt, model)
        assert "12 of 12 samples failed and nobody was blamed (of the closure's batch" in report.notes[0]

    def test_it_is_known_whether_backward_was_called(self):
        class Absolves:
            async def critique(self, failure):
                return {}

        model = predict(grad=())
        batch = on_scale(model)
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(Writer("x")))
        report, _ = gated(opt, model)
        assert "or backward() was not called" in report.changes[0].reason
        assert "was backward() called" in report.notes[0]
        nn.MetricLoss(pg.metrics.exact_match)(model.map(batch), batch).backward(critic=Absolves())
        assert model.demos.grad
        report, _ = gated(opt, model)
        assert report.changes[0].reason == (
            "no gradient: nothing failed, the critic did not blame it, or its call failed "
            "(see the report that backward() returns)"
        )
        assert report.notes[0].endswith("backward() reached other parameters, and the critic blamed no text or failed")

    def test_a_critic_whose_calls_fail_is_among_the_reasons(self):
        class Fails:
            async def critique(self, failure):
                raise LMConnectionError("refused")

        model = predict(grad=())
        batch = on_scale(model)[:5]
        loss = nn.MetricLoss(pg.metrics.exact_match)(model.map(batch), batch)
        with pytest.warns(RuntimeWarning, match="every critic call failed"):
            loss.backward(critic=Fails())
        opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(Writer("x")))
        assert "or its call failed (see the report that backward() returns)" in opt.step().changes[0].reason
        assert (
            "5 calls got no critique, the first as the critic failed: LMConnectionError" in opt.step(loss=loss).notes[0]
        )

    def test_nothing_is_told_where_nothing_failed_or_somebody_is_blamed(self):
        model = predict("{text} up to 12", grad=())
        opt = optim.TGD([model.instruction], lm=lm.FunctionLM(Writer("{text} up to 12 now")))
        assert gated(opt, model)[0].notes == ()
        model.instruction.grad = Gradient([critique("x")])
        assert gated(opt, model)[0].notes == ()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["", "grad", "empty"]), min_size=1, max_size=5),
    st.lists(st.sampled_from(["up to 12", "up to 3", "", "Sure! Here it is", "SAME"]), min_size=1, max_size=4),
    st.booleans(),
    st.integers(1, 3),
)
def test_parameters_without_a_gradient_are_never_touched(kinds, texts, with_gate, proposals):
    model = nn.Sequential(*(nn.Predict("text -> word", instruction=f"Take {i}.") for i in range(len(kinds))))
    before = {name: parameter.data for name, parameter in model.named_parameters()}
    for module, kind in zip(model, kinds, strict=True):
        if kind:
            module.instruction.grad = Gradient([critique("say more")] if kind == "grad" else ())
    writer = Writer(*texts)
    opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(writer), proposals=proposals)
    for _ in range(2):
        if with_gate:
            model[0].to(lm.FunctionLM(lambda m: "[[ ## word ## ]]\nx\n\n[[ ## completed ## ]]"))
            batch = [pg.Example(text="t", word="x").with_inputs("text")]
            criterion = nn.MetricLoss(lambda example, output: "up" in model[0].instruction.data)
            opt.step(lambda batch=batch, criterion=criterion: criterion(model[0].map(batch), batch))
        else:
            opt.step()
    blamed = kinds.count("grad")
    assert len(writer.shown) <= 2 * 2 * blamed * (proposals if with_gate else 1)  # at most one re-ask each
    for name, parameter in model.named_parameters():
        index, kind = name.split(".")
        if kinds[int(index)] != "grad" or kind != "instruction":
            assert parameter.data == before[name]
            assert opt.state.get(parameter, {}) == {}


class TestTheLoop:
    def test_a_program_of_two_steps_learns_its_task(self, world):
        simulated = lm.FunctionLM(world.answer)
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
        assert calls == [16 + 1 + 2, 16]  # forward, backward, step; a success costs nothing
        assert "Take the last word." in model.pick.instruction.data
        assert "Reverse the word." in model.spell.instruction.data

    def test_only_what_is_to_blame_is_touched(self, world):
        simulated = lm.FunctionLM(world.answer)
        model = world.Program().to(simulated)
        model.pick.instruction.data = "Take the last word."
        batch = world.examples(8)
        nn.MetricLoss(world.metric)(model.map(batch), batch).backward()
        report = optim.TGD(model.parameters(), lm=simulated).step()
        assert [change.status for change in report.changes] == ["untouched", "accepted"]
        assert model.pick.instruction.data == "Take the last word."


class TestInTheTrainer:
    def fit(self, world, folder=None, **options):
        model = world.Program().to(lm.FunctionLM(world.answer))
        opt = optim.TGD(model.parameters(), steps=4, batch_size=6, **options)
        scheduler = optim.TrustRegionEdit(opt, min_edit=0.3)
        trainer = pg.Trainer(model, opt, metric=world.metric, seed=5, run_dir=folder)
        return model, opt, scheduler, trainer.fit(world.examples(24), world.examples(60, seed=1))

    def test_a_search_begins_without_what_steps_before_it_left(self, world):
        """Neither with their attempts nor with the bound of their schedulers: a resumed run knows nothing of them."""

        def fitted(tried=()):
            model = world.Program().to(lm.FunctionLM(world.answer))
            opt = optim.TGD(model.parameters(), steps=4, batch_size=6, max_edit=0.9)
            scheduler = optim.StepEdit(opt, step_size=1, gamma=0.5)
            for path, text in tried:
                known = {"text": text, "effect": "it lost", "measured": True}
                opt.state[model.get_parameter(path)].setdefault("rejected", []).append(known)
            for _ in tried:
                scheduler.step()
            result = pg.Trainer(model, opt, metric=world.metric, seed=5).fit(
                world.examples(24), world.examples(60, seed=1)
            )
            return result, scheduler.get_last_edit()

        first, edits = fitted()
        tried = [pair for trial in first.history for pair in trial.candidate.values.items()]
        again, same = fitted(tried)
        assert tried
        assert (again.values, again.calls, same) == (first.values, first.calls, edits)

    def test_schedulers_move_with_its_steps_and_a_resumed_run_knows_them(self, world, tmp_path):
        _, opt, scheduler, result = self.fit(world, tmp_path / "run", max_edit=0.6, length_price=0.01)
        assert result.shipped
        assert scheduler.last_epoch > 0
        assert scheduler.get_last_edit() != [0.6]
        again = world.Program().to(lm.FunctionLM(world.answer))
        other = optim.TGD(again.parameters(), steps=4, batch_size=6, max_edit=0.6, length_price=0.01)
        with pytest.raises(pg.errors.JournalError):
            pg.Trainer.resume(tmp_path / "run", again, other, world.metric)
        optim.TrustRegionEdit(other, min_edit=0.3)
        resumed = pg.Trainer.resume(tmp_path / "run", again, other, world.metric)
        assert resumed.spent.sent == 0
        assert resumed.values == result.values
        assert other.param_groups[0]["max_edit"] == opt.param_groups[0]["max_edit"]
        assert json.loads(json.dumps(opt.state_dict())) == opt.state_dict() == other.state_dict()

    def test_hunks(self, world):
        def answer(messages):
            if "hunks" not in messages[0]["content"]:
                return world.answer(messages)
            asked = world.sections(messages[-1]["content"])
            said = json.loads(asked["rows"])[0]["critique"]
            hunks = json.dumps([{"op": "insert", "anchor": asked["instruction"][-9:], "text": f" {said}"}])
            return f"[[ ## hunks ## ]]\n{hunks}\n\n[[ ## completed ## ]]"

        model = world.Program().to(lm.FunctionLM(answer))
        opt = optim.TGD(model.parameters(), steps=4, batch_size=6, edits="hunks")
        result = pg.Trainer(model, opt, metric=world.metric, seed=5).fit(world.examples(24), world.examples(60, seed=1))
        assert result.shipped
        assert model.pick.instruction.data.endswith(" Take the last word.")
        assert model.spell.instruction.data.endswith(" Reverse the word.")

    def test_the_result_says_why_nothing_came_of_it(self, world):
        model, _, _, result = self.fit(world, max_tokens=2)
        assert not result.shipped
        (note,) = (note for note in result.notes if "refused" in note)
        assert re.match(r"(\d+) proposals refused: \1x it has \d+ tokens, more than max_tokens=2$", note)
        assert model.pick.instruction.data == world.Program().pick.instruction.data
        assert note in repr(result)

    def test_and_that_the_price_of_length_was_too_high(self, world):
        result = self.fit(world, length_price=100.0)[-1]
        assert not result.shipped
        assert any("it gained less than length_price charges for its length" in note for note in result.notes)

    def test_a_run_that_found_something_says_nothing_of_it(self, world):
        result = self.fit(world)[-1]
        assert result.shipped
        assert not any("refused" in note for note in result.notes)

    def test_where_nobody_is_blamed_it_goes_back_to_the_values_before(self):
        """The critic takes any text with a number for right, and the writer's first number is wrong."""
        numbers = iter([4, 12])
        shown = []

        def answer(messages):
            system, asked = messages[0]["content"], messages[-1]["content"]
            if "`rows` are runs" in system:
                shown.append(re.search(r"## instruction ## \]\]\n(.*)", asked).group(1))
                return f"[[ ## new_instruction ## ]]\nCopy up to {next(numbers)}.\n\n[[ ## completed ## ]]"
            if "feedback" in system:
                said, verdict = ("", "false") if "up to" in asked else ("Say up to which number.", "true")
                return f"[[ ## critique ## ]]\n{said}\n\n[[ ## to_blame ## ]]\n{verdict}\n\n[[ ## completed ## ]]"
            bound = re.search(r"up to (\d+)", system)
            number = int(re.search(r"t(\d+)", asked).group(1)) % 12
            word = "right" if bound and number < int(bound.group(1)) else "wrong"
            return f"[[ ## word ## ]]\n{word}\n\n[[ ## completed ## ]]"

        model = nn.Predict("text -> word", instruction="Copy.").to(lm.FunctionLM(answer))
        rows = [pg.Example(text=f"t{i}", word="right").with_inputs("text") for i in range(120)]
        opt = optim.TGD(model.parameters(), steps=4, batch_size=24, proposals=1)
        trainer = pg.Trainer(model, opt, metric=pg.metrics.exact_match, seed=0, critic=model.lm, engine="local")
        result = trainer.fit(rows[:24], rows[24:])
        assert model.instruction.data == "Copy up to 12."
        assert shown == ["Copy.", "Copy."]
        assert any("in 1 of 3 steps samples failed and nobody was blamed" in note for note in result.notes)

    @pytest.mark.parametrize(("budget", "least", "most"), [(None, 1, 8), (pg.Budget(calls=800), 9, 800)])
    def test_a_budget_of_calls_ends_it_and_what_is_more_likely_better_is_built_on(self, budget, least, most):
        shown = []

        def answer(messages):
            system, asked = messages[0].content, messages[-1].content
            if "new_instruction" in system:
                shown.append(re.search(r"Copy\.( Take \d+\.)?", asked)[0])
                return f"[[ ## new_instruction ## ]]\nCopy. Take {len(shown)}.\n\n[[ ## completed ## ]]"
            gained = 1 if "Take" in system else 0  # one validation row of 20: more likely better, and not beyond doubt
            word = "right" if int(re.search(r"t(\d+)", asked)[1]) % 20 < 10 + gained else "wrong"
            return f"[[ ## word ## ]]\n{word}\n\n[[ ## completed ## ]]"

        model = nn.Predict("text -> word", instruction="Copy.").to(lm.FunctionLM(answer))
        rows = [pg.Example(text=f"t{i}", word="right").with_inputs("text") for i in range(60)]
        opt = optim.TGD(model.parameters(), proposals=1)
        pg.Trainer(model, opt, metric=pg.metrics.exact_match, seed=0, budget=budget).fit(rows[:40], rows[40:])
        assert least <= len(shown) <= most
        assert shown[:2] == ["Copy.", "Copy. Take 1."]

    def test_where_nothing_new_comes_it_goes_back_to_the_values_before(self):
        """The writer has nothing to say of its first text, and finds the right number from the start again."""
        shown, numbers = [], iter([4, 12])

        def answer(messages):
            system, asked = messages[0].content, messages[-1].content
            if "new_instruction" in system:
                text = re.search(r"## instruction ## \]\]\n(.*)", asked)[1]
                shown.append(text)
                text = f"Copy up to {next(numbers)}." if text == "Copy." else text
                return f"[[ ## new_instruction ## ]]\n{text}\n\n[[ ## completed ## ]]"
            bound, number = re.search(r"up to (\d+)", system), int(re.search(r"t(\d+)", asked)[1]) % 12
            word = "right" if bound and number < int(bound[1]) else "wrong"
            return f"[[ ## word ## ]]\n{word}\n\n[[ ## completed ## ]]"

        model = nn.Predict("text -> word", instruction="Copy.").to(lm.FunctionLM(answer))
        rows = [pg.Example(text=f"t{i}", word="right").with_inputs("text") for i in range(96)]
        opt = optim.TGD(model.parameters(), proposals=1)
        pg.Trainer(model, opt, metric=pg.metrics.exact_match, seed=0).fit(rows[:48], rows[48:])
        assert shown == ["Copy.", "Copy up to 4.", "Copy."]
        assert model.instruction.data == "Copy up to 12."

    @pytest.mark.parametrize(("calls", "looked"), [(84, 8), (90, 16), (100, 24), (140, 24)])
    def test_the_first_look_is_as_large_as_a_race_of_one_text_leaves_room_for(self, calls, looked):
        shown = []

        def answer(messages):
            if "new_instruction" in messages[0].content:
                shown.append(messages[-1].content.count("expected right"))
                return "[[ ## new_instruction ## ]]\nCopy it.\n\n[[ ## completed ## ]]"
            return "[[ ## word ## ]]\nwrong\n\n[[ ## completed ## ]]"

        def metric(example, output):
            return pg.Score(0.0, feedback=f"expected right, {example.text}")

        model = nn.Predict("text -> word", instruction="Copy.").to(lm.FunctionLM(answer))
        rows = [pg.Example(text=f"t{i}", word="right").with_inputs("text") for i in range(80)]
        opt = optim.TGD(model.parameters(), proposals=1)
        pg.Trainer(model, opt, metric=metric, seed=0, budget=pg.Budget(calls=calls)).fit(rows[:40], rows[40:])
        assert shown[:1] == [looked]

    def test_steps_without_a_new_text_end_it_though_calls_are_left(self):
        written = []

        def answer(messages):
            if "new_instruction" in messages[0].content:
                written.append(messages)
                return "[[ ## new_instruction ## ]]\nCopy.\n\n[[ ## completed ## ]]"
            return "[[ ## word ## ]]\nwrong\n\n[[ ## completed ## ]]"

        model = nn.Predict("text -> word", instruction="Copy.").to(lm.FunctionLM(answer))
        rows = [pg.Example(text=f"t{i}", word="right").with_inputs("text") for i in range(60)]
        opt = optim.TGD(model.parameters(), proposals=1)
        trainer = pg.Trainer(model, opt, metric=pg.metrics.exact_match, seed=0, budget=pg.Budget(calls=2000))
        result = trainer.fit(rows[:40], rows[40:])
        assert len(written) == 4
        assert any("4 steps brought nothing new on 20 validation examples" in note for note in result.notes)


def test_gated_proposals_improve_a_vague_instruction_of_the_embedded_model():
    pytest.importorskip("torch")
    from promptgrad.data import pocket

    task = pocket.task("count-fruit")
    train, gate, test = task.split(train=8, val=24, test=40)
    model = nn.Predict("text -> answer", instruction=task.instruction("vague")).to("pocket")
    criterion = nn.MetricLoss(task.metric)
    opt = optim.TGD([model.instruction], lm="pocket", proposals=4)
    before = pg.evaluate(model, test, task.metric).score
    criterion(model.map(train), train).backward()
    report = opt.step(lambda: criterion(model.map(gate), gate))
    assert report.gate.of > 1
    assert report.gate.low > 0
    assert len(report.proposals) == 4
    assert pg.evaluate(model, test, task.metric).score > before + 0.3
