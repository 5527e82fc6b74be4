import asyncio
import threading
import warnings

import pytest

from promptgrad import aio
from promptgrad.autograd import (
    AnomalyWarning,
    Function,
    Loss,
    LossRow,
    Parameter,
    Tape,
    current_detector,
    detect_anomaly,
    no_grad,
)
from promptgrad.data import Example
from promptgrad.errors import GraphError
from tests.autograd.programs import Call, ScriptedCritic, row


class Chain:
    """Two calls, and a third that is never made."""

    def __init__(self):
        self.first, self.last = Call("first", lambda q: f"note on {q}"), Call("last", lambda x: "answer")
        self.idle = Parameter("never used")
        self.idle.name = "idle.instruction"

    def modules(self):
        return []

    def parameters(self):
        return [self.first.instruction, self.last.instruction, self.idle]

    def __call__(self, q):
        return self.last(x=self.first(q=q).out).out

    def row(self, number):
        paths = {parameter: parameter.name for parameter in self.parameters()}
        tape = Tape({"q": f"question {number}"}, self, paths=paths)
        with tape.active():
            output = self(f"question {number}")
            tape.finish(output)
        return LossRow(Example(q=f"question {number}").with_inputs("q"), output, 0.0, feedback="wrong", tape=tape)


def said(program, blame, rows=1):
    critic = ScriptedCritic(blame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnomalyWarning)
        with detect_anomaly() as found:
            Loss([program.row(number) for number in range(rows)], critic).backward()
    return found.anomalies


def different(path, target, feedback):
    return f"{path} {target} {next(numbers)}"


numbers = iter(range(10**6))


def test_a_parameter_that_no_forward_read_is_named():
    (message,) = said(Chain(), different)
    assert message.startswith("idle.instruction requires a gradient, and none of the 1 failed forwards read it")
    assert "requires_grad_(False)" in message


def test_the_place_where_the_path_broke_is_named():
    messages = said(Chain(), lambda path, target, feedback: "" if target == "x" else different(path, target, feedback))
    (message,) = [text for text in messages if text.startswith("first.instruction")]
    assert "the path to it breaks at last: the critic blames nothing upstream of there" in message


def test_a_critic_that_fails_and_one_that_blames_nobody():
    def fail(path, target, feedback):
        if path == "last":
            raise OSError("gone")
        return "x"

    with pytest.warns(RuntimeWarning, match="every critic call failed"):
        messages = said(Chain(), fail)
    assert any("the path to it may break at last[0]" in m or "got no critique" in m for m in messages)
    messages = said(Chain(), lambda *_: "")
    blames_nothing = "the critic blames nothing. Let"
    assert any(blames_nothing in text for text in messages)


def test_a_path_that_the_program_cut_is_not_the_critics_fault():
    class Cut(Chain):
        def __init__(self):
            super().__init__()
            self.early = Call("early", lambda q: f"early {q}")

        def __call__(self, q):
            return self.last(x=self.first(q=self.early(q=q).out).out.detach()).out

    messages = said(Cut(), different)
    (first,) = [text for text in messages if text.startswith("first.instruction")]
    assert "the text of first[0] was detached, and no other edge leaves it" in first
    (early,) = [text for text in messages if text.startswith("early.instruction")]
    assert "the path from it ends at first[0], whose text was detached" in early
    assert "critic" not in first + early


def test_a_named_parameter_that_no_forward_read_is_not_said_to_be_read():
    program = Chain()
    stranger = Parameter("of another program")
    stranger.name = "stranger"
    for parameter in (program.idle, stranger):
        with detect_anomaly() as found, pytest.warns(AnomalyWarning):
            Loss([program.row(0)], ScriptedCritic(different)).backward(inputs=parameter)
        (message,) = found.anomalies
        assert message.startswith(f"{parameter.name} requires a gradient, and none of the 1 failed forwards read it")


def test_gradients_that_are_the_same_for_all_examples_or_parameters():
    messages = said(Chain(), lambda path, target, feedback: "be better", rows=3)
    assert any("all 3 critiques of last.instruction are the same, 'be better'" in message for message in messages)
    assert any("have identical gradients" in message for message in messages)
    messages = said(Chain(), different, rows=3)
    assert len(messages) == 1


def test_a_placeholder_that_nothing_fills():
    program = Chain()
    program.first.instruction.data = "Answer {question} in JSON such as {{x}} or {}"
    messages = said(program, different)
    assert any(text.startswith("first.instruction holds {question}, which nothing filled") for text in messages)
    program = Chain()
    program.first.say = lambda q: "see {topic}"
    messages = said(program, different)
    assert any(text.startswith("the input 'x' of last holds {topic}") for text in messages)


@pytest.mark.parametrize(("given", "braces"), [("see {topic}", False), ("{topic}", False), ("see", False), ("", True)])
def test_braces_in_what_the_user_gave_are_the_users(given, braces):
    """Also where they come as a part of a longer text; an input without a word is a part of every text."""
    program = Chain()
    program.first.say = lambda q: "see {topic}"
    tape = Tape({"q": given}, program)
    with tape.active():
        output = program(given)
        tape.finish(output)
    line = LossRow(Example(q=given).with_inputs("q"), output, 0.0, feedback="wrong", tape=tape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnomalyWarning)
        with detect_anomaly() as found:
            Loss([line], ScriptedCritic(different)).backward()
    assert any("the input 'x' of last holds {topic}" in text for text in found.anomalies) is braces


def test_of_many_names_the_first_are_shown_and_the_others_counted():
    program = Chain()
    program.first.instruction.data = "Fill {a} {b} {c} {d} {e} {f} {g}"
    (message,) = [text for text in said(program, different) if "which nothing filled" in text]
    assert message.startswith("first.instruction holds {a}, {b}, {c}, {d}, {e} and 2 more, which nothing filled")
    program.first.instruction.data = "Fill {a} {b} {c} {d} {e}"
    (message,) = [text for text in said(program, different) if "which nothing filled" in text]
    assert message.startswith("first.instruction holds {a}, {b}, {c}, {d}, {e}, which nothing filled")


def test_examples_that_are_trained_on_and_measured():
    program = Chain()
    program.idle.requires_grad = False
    with detect_anomaly() as found:
        Loss([program.row(0), program.row(1)], ScriptedCritic(different)).backward()
        rows = [program.row(1), program.row(2)]
        assert found.anomalies == []
        with no_grad(), pytest.warns(AnomalyWarning, match="1 examples are both trained on and measured"):
            Loss(rows)


def test_a_step_that_changes_nothing():
    with detect_anomaly(error=True) as found:
        found.after_step([("a", True, ""), ("b", False, "no gradient")])
        found.after_step([])
        with pytest.raises(GraphError, match=r"changed nothing \(a: no gradient\)"):
            found.after_step([("a", False, "no gradient")])


def test_errors_instead_of_warnings_and_each_thing_once():
    program = Chain()
    with detect_anomaly(error=True), pytest.raises(GraphError, match=r"detect_anomaly: idle\.instruction"):
        Loss([program.row(0)], ScriptedCritic(different)).backward()
    with detect_anomaly():
        with pytest.warns(AnomalyWarning, match="idle"):
            Loss([program.row(0)], ScriptedCritic(different)).backward()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Loss([program.row(0)], ScriptedCritic(different)).backward()


def test_warnings_point_at_the_line_that_called_backward():
    class Fails:
        async def critique(self, failure):
            await aio.sleep(0.001)
            raise OSError("gone")

    class Rule(Function):
        @staticmethod
        def forward(ctx, text):
            return f"{text}!"

        @staticmethod
        def backward(ctx, grad):
            raise OSError("gone")

    def loss(critic):
        return Loss([row(lambda q: Rule.apply(program(q)), None, q="x")], critic)

    async def awaited(loss):
        await loss.abackward()

    program = Chain()
    program.idle.requires_grad_(requires_grad=False)
    for call in (
        lambda: loss(ScriptedCritic()).backward(),
        lambda: Loss([program.row(0)], Fails()).backward(),
        lambda: asyncio.run(awaited(Loss([program.row(0)], Fails()))),
        lambda: aio.run(awaited(Loss([program.row(0)], Fails()))),
    ):
        with pytest.warns() as told, detect_anomaly():
            call()
        assert {warning.category for warning in told} & {RuntimeWarning, UserWarning}
        assert {warning.category for warning in told} > {AnomalyWarning}
        assert {warning.filename for warning in told} == {__file__}


def test_outside_of_the_block_and_in_other_threads_nothing_is_looked_for():
    seen = []
    with detect_anomaly() as found:
        assert current_detector() is found
        thread = threading.Thread(target=lambda: seen.append(current_detector()))
        thread.start()
        thread.join()
    assert seen == [None]
    assert current_detector() is None
    a = Call("a", lambda q: "x {y}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Loss([row(lambda q: a(q=q).out, None, q="x")], ScriptedCritic()).backward()


def test_a_call_without_a_path_is_named_by_what_is_blamed():
    import promptgrad as pg
    from promptgrad import nn
    from promptgrad.testing import Fields

    program = nn.Predict("question -> answer").to(pg.lm.FunctionLM(Fields(answer="x", critique="say more")))
    examples = [pg.Example(question=f"q{i}", answer="y").with_inputs("question") for i in range(3)]
    with (
        pg.detect_anomaly() as found,
        pytest.warns(AnomalyWarning, match="all 3 critiques of instruction are the same"),
    ):
        nn.MetricLoss(pg.metrics.exact_match)(program.map(examples), examples).backward()
    assert found.anomalies
