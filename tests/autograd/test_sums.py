"""Several losses over the same forwards, losses about single calls, and going back a part of the way."""

import pytest

from promptgrad.autograd import Loss, LossRow
from promptgrad.data import Example
from tests.autograd.programs import Call, ScriptedCritic, row, run, texts


def example(i=0):
    return Example(q=f"question {i}", a="a").with_inputs("q")


def chain():
    first, last = Call("first", lambda q: f"a first text on {q}"), Call("last", lambda x: "y")
    return first, last, lambda q: last(x=first(q=q).out).out


def judged(tape, output, example, score=0.0, feedback="", **facts):
    return LossRow(example, output, score, 1.0, feedback, tape, **facts)


class TestSums:
    def test_a_forward_that_two_losses_judge_is_criticised_once_with_both_feedbacks(self):
        first, last, forward = chain()
        output, tape = run(forward, q="x")
        one = Loss([judged(tape, output, example(), feedback="too short")], ScriptedCritic())
        two = Loss([judged(tape, output, example(), feedback="not polite")])
        loss = one + 0.5 * two
        report = loss.backward()
        assert report.calls == 2
        assert texts(last.instruction) == ["last.instruction: too short & not polite"]
        assert len(texts(first.instruction)) == 1
        assert report.together == {1: 0}
        assert "the same forward as row 0" in str(loss.explain())

    def test_a_loss_that_is_content_says_nothing_and_one_without_weight_neither(self):
        for scale, score, feedback in ((1.0, 1.0, ""), (0.0, 0.0, "ignored"), (-1.0, 0.0, "ignored")):
            _, last, forward = chain()
            output, tape = run(forward, q="x")
            main = Loss([judged(tape, output, example(), feedback="too short")], ScriptedCritic())
            side = Loss([judged(tape, output, example(), score, feedback)])
            (main + scale * side).backward()
            assert texts(last.instruction) == ["last.instruction: too short"]

    def test_different_examples_are_different_samples_even_on_one_tape(self):
        _, last, forward = chain()
        output, tape = run(forward, q="x")
        rows = [judged(tape, output, example(i), feedback=f"wrong {i}") for i in range(2)]
        assert Loss(rows, ScriptedCritic()).backward().calls == 4
        assert texts(last.instruction) == ["last.instruction: wrong 0", "last.instruction: wrong 1"]

    def test_a_trace_is_left_once_with_the_weighted_score(self):
        first, _, forward = chain()
        output, tape = run(forward, q="x")
        one = Loss([judged(tape, output, example(), 1.0)])
        two = Loss([judged(tape, output, example(), 0.0, "bad")], ScriptedCritic())
        (3 * one + two).backward()
        assert [trace.score for trace in first.demos.grad.traces] == [0.75]

    def test_an_error_of_the_program_is_told_once(self):
        def fail(x):
            raise ValueError("no")

        broken = Call("broken", fail)
        one = row(lambda: broken(x="x"), example(), feedback="", raises=ValueError)
        report = (Loss([one], ScriptedCritic()) + Loss([one])).backward()
        assert (report.calls, report.errors) == (1, 2)
        assert len(texts(broken.instruction)) == 1


class TestDepth:
    def test_a_row_about_a_call_starts_there(self):
        first, last, forward = chain()
        _, tape = run(forward, q="x")
        node = tape.nodes[0]
        critic = ScriptedCritic()
        Loss([judged(tape, "a first text", example(), feedback="bad query", node=node)], critic).backward()
        assert critic.calls == [("first", 0)]
        assert texts(first.instruction) == ["first.instruction: bad query"]
        assert last.instruction.grad is None
        assert first.demos.grad is None, "its score is not the forward's"

    def test_together_with_the_main_loss_it_is_one_pass(self):
        _, _, forward = chain()
        output, tape = run(forward, q="x")
        critic = ScriptedCritic()
        main = Loss([judged(tape, output, example(), feedback="wrong")], critic)
        aux = Loss([judged(tape, "", example(), feedback="bad query", node=tape.nodes[0])])
        assert (main + aux).backward().calls == 2
        assert critic.asked[-1].feedback == ("last.x: wrong", "bad query")

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            ("be brief", {0: "F & be brief", 1: "F & be brief"}),
            (["", "two"], {0: "F & two", 1: "F & two"}),
            (["one", "two"], {0: "F & two & one", 1: "F & two"}),
        ],
    )
    def test_feedback_by_module_reaches_its_calls(self, said, expected):
        step = Call("agent.step", lambda x: f"the next text of {len(x)}")
        end = Call("end", lambda x: "z")

        def forward():
            return end(x=step(x=step(x="s").out).out).out

        output, tape = run(forward)
        critic = ScriptedCritic(lambda path, target, feedback: " & ".join(feedback))
        Loss([judged(tape, output, example(), feedback="F", module_feedback={"agent": said})], critic).backward()
        heard = {f.node.index: " & ".join(f.feedback) for f in critic.asked if f.node.path == "agent.step"}
        assert heard == expected


class TestTruncate:
    def looped(self, n):
        step, end = Call("step", lambda x: f"text of length {len(x)} and more"), Call("end", lambda x: "z")

        def forward():
            text = "start"
            for _ in range(n):
                text = step(x=text).out
            return end(x=text).out

        output, tape = run(forward)
        critic = ScriptedCritic()
        return Loss([judged(tape, output, example(), feedback="F")], critic), critic, step

    @pytest.mark.parametrize(
        ("truncate", "indices"), [(1, [5]), (3, [5, 4, 3]), (6, [5, 4, 3, 2, 1, 0]), (99, [5, 4, 3, 2, 1, 0])]
    )
    def test_only_the_last_calls_of_each_module_are_criticised(self, truncate, indices):
        loss, critic, _ = self.looped(6)
        report = loss.backward(truncate=truncate)
        assert critic.calls == [("end", 0), *(("step", index) for index in indices)]
        assert report.truncated == 6 - len(indices)
        assert ("left out" in repr(report)) == (truncate < 6)

    def test_it_is_at_least_one(self):
        loss, _, _ = self.looped(2)
        with pytest.raises(ValueError, match="at least 1"):
            loss.backward(truncate=0)
