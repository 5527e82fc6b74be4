"""What would be lost in silence: misspelt names, feedback about no call, parameters in a text, caught failures."""

import asyncio
import json

import pytest

import promptgrad as pg
from promptgrad import autograd, nn
from promptgrad.autograd import Gradient, Loss, LossRow
from promptgrad.autograd._backward import Backward
from promptgrad.autograd._manner import Manner
from promptgrad.data import Example
from promptgrad.errors import GraphError
from promptgrad.testing import Fields
from tests.autograd.programs import Call, ScriptedCritic, row, run, texts
from tests.waiting import turns

ANSWERS = Fields(word="cat", color="red", critique="bad", critique_of_word="bad word", critique_of_text="bad text")


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.pick = nn.Predict("text -> word")
        self.paint = nn.Predict("word -> color")

    def forward(self, text):
        return self.paint(word=self.pick(text=text).word).color


def make(program=None):
    model = (program or Two()).to(pg.lm.FunctionLM(ANSWERS))
    return model, Example(text="wolf", answer="grey").with_inputs("text")


def wrong(model, example, critic=None, n=1, **facts):
    metric = lambda example, output: pg.Score(0, feedback="bad output", **facts)  # noqa: E731
    examples = [example] * n
    return nn.MetricLoss(metric, critic=critic)(model.map(examples), examples)


class TestNames:
    def test_an_answer_about_what_nobody_asked_is_in_the_report(self):
        model, example = make()

        class Typo:
            async def critique(self, failure):
                return {"instrution": "say more", "word": ""}

        report = wrong(model, example, Typo()).backward()
        expected = "the critic blamed 'instrution', which is not a target here; the targets are instruction, word"
        assert report.skipped[0].reason == expected
        assert "paint.instruction" in report.unreached

    def test_several_names_are_all_told_but_for_the_program_which_is_a_remark(self):
        model, example = make()

        class Strange:
            async def critique(self, failure):
                return {"zebra": "x", "program": "it asks twice", "ant": "y"}

        report = wrong(model, example, Strange()).backward()
        assert report.skipped[0].reason.startswith("the critic blamed 'zebra', 'ant', which are not targets here")
        assert {str(remark) for remark in report.remarks} == {"zebra: x", "program: it asks twice", "ant: y"}

    def test_so_is_a_finding_of_a_joint_critic(self):
        model, example = make()
        findings = json.dumps(
            [
                {"runs": [9], "parameter": "pick.instruction", "critique": "x", "to_blame": True},
                {"runs": [1], "parameter": "nope", "critique": "y", "to_blame": True},
            ]
        )
        critic = nn.Critic(pg.lm.FunctionLM(Fields(findings=findings)))
        report = wrong(model, example, critic).backward(engine="joint")
        assert "pick.instruction of run 9" in report.skipped[0].reason
        assert "'nope'" in report.skipped[0].reason
        assert [str(remark) for remark in report.remarks] == ["pick.instruction of run 9: x", "nope: y"]
        assert report.joint == 1
        assert "1 judged in joint calls" in repr(report)

    def test_feedback_for_a_module_that_was_not_called_is_in_the_report(self):
        first, last = Call("first", lambda q: "a first text"), Call("last", lambda x: "y")
        output, tape = run(lambda q: last(x=first(q=q).out).out, q="x")
        said = {"first": ["one", "two"], "other": "never"}
        loss = Loss([LossRow(None, output, 0.0, 1.0, "bad", tape, module_feedback=said)], ScriptedCritic())
        reasons = [skip.reason for skip in loss.backward().skipped]
        assert reasons == [
            "module_feedback has 2 texts for 'first', which was called once: only the first is used",
            "module_feedback has 1 text for 'other', which was never called: it is ignored",
        ]

    @pytest.mark.parametrize(
        ("inputs", "error"), [(["pick.instruction"], TypeError), ([], ValueError), ([3], TypeError)]
    )
    def test_inputs_are_parameters(self, inputs, error):
        model, example = make()
        with pytest.raises(error, match="inputs"):
            wrong(model, example).backward(inputs=inputs)

    def test_one_parameter_is_enough_and_one_of_another_program_is_unreached(self):
        model, example = make()
        assert wrong(model, example).backward(inputs=model.pick.instruction).reached == ("pick.instruction",)
        other = make()[0].pick.instruction
        other.name = "other"
        assert wrong(model, example).backward(inputs=other).unreached == ("other",)


class TestValues:
    def test_a_parameter_in_a_longer_text_is_found_by_its_words(self):
        class Told(Two):
            def __init__(self):
                super().__init__()
                self.persona = pg.Parameter("you are a careful expert who answers briefly")

            def forward(self, text):
                return self.paint(word=self.wrap(text)).color

        ways = [
            lambda self, text: f"{self.persona}: {text}",
            lambda self, text: "{} {}".format(self.persona, text),  # noqa: UP032
            lambda self, text: "\n".join([str(self.persona), text]),
        ]
        for way in ways:
            model, example = make(Told())
            type(model).wrap = way
            report = wrong(model, example).backward()
            assert "persona" in report.reached
            assert len(model.persona.grad.critiques) == 1

    def test_a_failure_that_the_program_catches_is_blamed(self):
        class Careful(nn.Module):
            def __init__(self):
                super().__init__()
                self.count = nn.Predict("text -> n: int")

            def forward(self, text):
                try:
                    return str(self.count(text=text).n)
                except pg.errors.ParseError:
                    return "0"

        seen = []

        def respond(request: pg.lm.Request):
            seen.append(request.messages[-1]["content"])
            return ANSWERS(request.messages) if "critique" in request.messages[0]["content"] else "many"

        lm = pg.lm.FunctionLM(respond)
        model = Careful().to(lm)
        example = Example(text="wolf", answer="1").with_inputs("text")
        report = wrong(model, example).backward(lm)
        assert report.calls == 1
        assert texts(model.count.instruction) == ["bad"]
        assert "ParseError" in seen[-1]

    @pytest.mark.parametrize("returned", [Gradient(), 3, {"x": "y"}])
    def test_a_value_hook_returns_texts(self, returned):
        first, last = Call("first", lambda q: "a first text"), Call("last", lambda x: "y")

        def forward(q):
            text = first(q=q).out
            text.register_hook(lambda said: returned)
            return last(x=text).out

        loss = Loss([row(forward, None, q="x")], ScriptedCritic())
        with pytest.raises(TypeError, match="is a text, several texts or None"):
            loss.backward()
        assert last.instruction.grad is None, "nothing grows in a pass that is given up"


class TestGraphs:
    def test_two_backward_passes_at_once_are_refused(self):
        model, example = make()
        loss = wrong(model, example)

        async def both():
            return await asyncio.gather(loss.abackward(), loss.abackward(), return_exceptions=True)

        outcomes = asyncio.run(both())
        assert [type(outcome) for outcome in outcomes].count(GraphError) == 1
        assert len(model.paint.instruction.grad.critiques) == 1

    def test_a_pass_that_was_made_before_another_freed_the_graph_is_refused(self):
        model, example = make()
        loss = wrong(model, example)
        early, late = (Backward(loss._terms, None, None, Manner()) for _ in range(2))
        asyncio.run(late.run())
        with pytest.raises(GraphError, match="called a second time"):
            asyncio.run(early.run())
        assert len(model.paint.instruction.grad.critiques) == 1

    def test_a_row_of_which_nothing_was_recorded_is_in_the_report(self):
        model, example = make()
        other = Example(text="fox", answer="grey").with_inputs("text")
        outputs = [model("wolf")]
        with pg.no_grad():
            outputs.append(model("fox"))
        report = nn.MetricLoss(pg.metrics.exact_match)(outputs, [example, other]).backward()
        (skip,) = report.skipped
        assert skip.example_id == other.id
        assert skip.reason.startswith("nothing was recorded: the forward")
        assert len(model.paint.instruction.grad.critiques) == 1

    def test_a_freed_graph_cannot_be_looked_at(self):
        model, example = make()
        loss = wrong(model, example)
        assert len(autograd.graph(loss).nodes) == 2
        loss.backward()
        with pytest.raises(GraphError, match="has freed"):
            autograd.graph(loss)

    def test_a_backward_inside_a_forward_leaves_the_forward_what_it_recorded(self):
        class Refining(Two):
            def forward(self, text):
                word = self.pick(text=text)
                metric = lambda example, output: pg.Score(0, feedback="inner")  # noqa: E731
                nn.MetricLoss(metric)([word], [Example(text=text).with_inputs("text")]).backward()
                return self.paint(word=word.word).color

        model, example = make(Refining())
        wrong(model, example).backward()
        assert len(model.pick.instruction.grad.critiques) == 2
        assert len(model.paint.instruction.grad.critiques) == 1


class Own(autograd.Function):
    @staticmethod
    def forward(ctx, text):
        return f"{text} again"

    @staticmethod
    def backward(ctx, grad):
        return f"own: {grad}"


def test_auto_leaves_forwards_with_a_backward_of_their_own_to_the_local_engine():
    class Loop(nn.Module):
        def __init__(self, own):
            super().__init__()
            self.step = nn.Predict("text -> word")
            self.own = own

        def forward(self, text):
            for _ in range(14):
                text = self.step(text=text).word
                text = Own.apply(text) if self.own else f"{text} again"
            return text

    for own, joint in ((False, 1), (True, 0)):
        model, example = make(Loop(own))
        critic = nn.Critic(pg.lm.FunctionLM(Fields(findings="[]", critique="bad", critique_of_text="bad text")))
        report = wrong(model, example, critic).backward()
        assert report.joint == joint
        assert report.calls == (1 if joint else 14)


def test_the_context_bounds_the_critic_calls_in_flight():
    now, most = [0], [0]

    class Slow:
        async def critique(self, failure):
            now[0] += 1
            most[0] = max(most[0], now[0])
            await turns()
            now[0] -= 1
            return {"instruction": "bad"}

    model, example = make()
    with pg.context(concurrency=3):
        loss = wrong(model, example, Slow(), n=12)
    loss.backward()
    assert most[0] == 3
    most[0] = 0
    wrong(model, example, Slow(), n=12).backward()
    assert most[0] == 12


def test_a_loss_formats_as_a_number():
    model, example = make()
    loss = wrong(model, example)
    assert f"{loss:.3f}" == "1.000"
    assert f"{loss}".startswith("Loss(1")


def test_a_call_that_was_cancelled_is_blamed_by_nobody_and_no_demo():
    class Patient(nn.Module):
        def __init__(self):
            super().__init__()
            self.slow = nn.Predict("text -> word")
            self.quick = nn.Predict("text -> word")

        async def forward(self, text):
            try:
                return (await asyncio.wait_for(self.slow.acall(text="SLOW"), 0.01)).word
            except asyncio.TimeoutError:
                return (await self.quick.acall(text=text)).word

    async def respond(messages):
        if "SLOW" in messages[-1]["content"]:
            await asyncio.sleep(60)
        return ANSWERS(messages)

    model = Patient().to(pg.lm.FunctionLM(respond))
    example = Example(text="wolf", answer="grey").with_inputs("text")
    report = wrong(model, example).backward()
    assert report.calls == 0, "only one call is left that can be to blame"
    assert model.slow.instruction.grad is None
    assert model.slow.demos.grad is None
    assert len(model.quick.instruction.grad.critiques) == 1


def test_a_frozen_call_is_no_stranger():
    model, example = make()
    model.paint.requires_grad_(requires_grad=False)
    report = wrong(model, example).backward()
    assert report.skipped == ()
    assert model.pick.instruction.grad
