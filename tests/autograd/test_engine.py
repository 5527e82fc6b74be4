import asyncio
import random
import threading
from pathlib import Path

import pytest

from promptgrad import aio
from promptgrad.autograd import (
    CriticLike,
    Loss,
    LossRow,
    Parameter,
    Text,
    WeightTrace,
    attach,
    current_tape,
    no_grad,
)
from promptgrad.data import Example
from promptgrad.errors import (
    AsyncUsageError,
    BudgetExceeded,
    ContextWindowError,
    GraphError,
    LMConnectionError,
    MetricError,
)
from tests.aio.test_drive import interrupt_when
from tests.autograd.programs import Call, ScriptedCritic, row, run, texts
from tests.counting import growth


class Chain:
    """query -> search -> answer, with plain strings in between."""

    def __init__(self, depth=3):
        self.calls = [Call(f"c{i}", lambda x, i=i: f"text number {i} says {len(x)} things") for i in range(depth)]

    def __call__(self, x):
        for call in self.calls:
            x = call(x=f"given {x}").out
        return x


def example(i, **fields):
    return Example(q=f"question {i}", a=f"answer {i}", **fields).with_inputs("q")


def batch(program, scores):
    return [row(program, example(i), score, f"wrong {i}", x=f"question {i}") for i, score in enumerate(scores)]


class TestCalls:
    def test_a_success_costs_nothing_and_says_so(self):
        chain, critic = Chain(), ScriptedCritic()
        loss = Loss(batch(chain, [1] * 8), critic)
        report = loss.backward()
        assert critic.asked == []
        assert (report.calls, report.failed) == (0, 0)
        assert repr(report).startswith("BackwardReport(0 of 8 failed, nothing to do")
        assert all(call.instruction.grad is None for call in chain.calls)
        assert [trace.score for trace in chain.calls[0].demos.grad.traces] == [1] * 8

    @pytest.mark.parametrize("failures", [0, 3, 8])
    def test_one_call_for_each_failed_sample_and_call(self, failures):
        chain, critic = Chain(3), ScriptedCritic()
        report = Loss(batch(chain, [0] * failures + [1] * (8 - failures)), critic).backward()
        assert report.calls == len(critic.asked) == 3 * failures
        assert [len(texts(call.instruction)) for call in chain.calls] == [failures] * 3

    def test_what_the_critic_is_told(self):
        chain, critic = Chain(2), ScriptedCritic()
        Loss(batch(chain, [0]), critic).backward()
        last, first = critic.asked
        assert (last.node.path, first.node.path) == ("c1", "c0")
        assert last.example.a == "answer 0"
        assert last.feedback == ("wrong 0",)
        assert [(target.name, target.kind) for target in last.targets] == [
            ("instruction", "instruction"),
            ("x", "input"),
        ]
        assert last.targets[0].value == "do c1"
        assert last.targets[0].parameter is chain.calls[1].instruction
        assert last.targets[1].value.startswith("given text number 0")
        assert last.targets[1].parameter is None
        assert first.feedback == ("c1.x: wrong 0",)
        assert [target.name for target in first.targets] == ["instruction"]

    def test_gradients_say_who_what_where(self):
        chain, critic = Chain(2), ScriptedCritic()
        Loss(batch(chain, [1, 0]), critic).backward()
        (critique,) = chain.calls[0].instruction.grad.critiques
        assert critique.example_id == example(1).id
        assert (critique.path, critique.index, critique.target, critique.support) == ("c0", 0, "instruction", 1)
        assert critique.text == "c0.instruction: c1.x: wrong 1"
        assert critique.verdict == "wrong"
        assert critique.evidence["inputs"] == {"x": "given question 1"}
        assert critique.evidence["feedback"] == ("c1.x: wrong 1",)
        assert critique.evidence["outputs"]["out"].startswith("text number 0")

    @pytest.mark.parametrize("answer", ["", None, "  "])
    def test_who_is_not_to_blame_gets_nothing_and_upstream_is_not_asked(self, answer):
        chain = Chain(3)
        critic = ScriptedCritic(lambda path, target, feedback: answer if target == "x" else "bad")
        report = Loss(batch(chain, [0]), critic).backward()
        assert critic.calls == [("c2", 0)]
        assert report.calls == 1
        assert [len(texts(call.instruction)) for call in chain.calls] == [0, 0, 1]
        assert set(report.unreached) == {"c0.instruction", "c1.instruction"}

    def test_answers_for_unknown_targets_are_ignored_and_missing_ones_mean_no_blame(self):
        class Odd:
            async def critique(self, failure):
                return {"nonsense": "x"}

        chain = Chain(2)
        assert Loss(batch(chain, [0]), Odd()).backward().calls == 1
        assert chain.calls[1].instruction.grad is None


class TestShapes:
    def test_a_tree_gives_each_branch_its_share_and_the_trunk_both(self):
        trunk = Call("trunk", lambda q: f"plan for {q}")
        left, right = Call("left", lambda p: "left answer text"), Call("right", lambda p: "right answer text")
        merge = Call("merge", lambda a, b: "merged")

        def forward(q):
            plan = trunk(q=q).out
            return merge(a=left(p=plan).out, b=right(p=plan).out).out

        critic = ScriptedCritic()
        Loss([row(forward, None, feedback="bad", q="x")], critic).backward()
        assert critic.calls[0] == ("merge", 0)
        assert critic.calls[-1] == ("trunk", 0)
        assert len(critic.calls) == 4
        assert texts(left.instruction) == ["left.instruction: merge.a: bad"]
        assert texts(right.instruction) == ["right.instruction: merge.b: bad"]
        assert critic.asked[-1].feedback == ("left.p: merge.a: bad", "right.p: merge.b: bad")

    def test_a_loop_keeps_the_order_of_its_calls(self):
        step = Call("step", lambda notes: f"note {len(notes)} for the list")

        def forward():
            notes = []
            for _ in range(4):
                notes += [step(notes=notes).out]
            return notes[-1]

        critic = ScriptedCritic(lambda path, target, feedback: f"{target}{len(feedback)}")
        Loss([row(forward, None)], critic).backward()
        assert critic.calls == [("step", 3), ("step", 2), ("step", 1), ("step", 0)]
        assert [critique.index for critique in step.instruction.grad] == [0, 1, 2, 3]
        assert [len(failure.feedback) for failure in critic.asked] == [1, 1, 1, 1]

    def test_feedback_of_several_consumers_comes_in_their_order(self):
        first, use = Call("first", lambda: "a first text here"), Call("use", lambda x, i: "t")

        def forward():
            text = first().out
            return [use(x=text, i=i).out for i in range(3)]

        critic = ScriptedCritic(lambda path, target, feedback: f"{path} {target}", delays=random.Random(0))
        original = critic.critique

        async def numbered(failure):
            answer = await original(failure)
            return {name: f"{text} {failure.node.index}" for name, text in answer.items()}

        critic.critique = numbered
        Loss([row(forward, None)], critic).backward()
        assert critic.asked[-1].feedback == ("use x 0", "use x 1", "use x 2")

    def test_a_router_is_blamed(self):
        route, solve = Call("route", lambda q: "math"), Call("solve", lambda q: "4")

        def forward(q):
            return solve(q=q).out if route(q=q).out == "math" else "none"

        critic = ScriptedCritic()
        Loss([row(forward, None, feedback="bad", q="what is it")], critic).backward()
        assert texts(route.instruction) == ["route.instruction: bad"]
        assert texts(solve.instruction) == ["solve.instruction: bad"]

    def test_functions_and_joins_pass_blame_on_without_a_call(self):
        a, b = Call("a", lambda: "alpha beta gamma"), Call("b", lambda: "delta epsilon zeta")
        tool = Call("tool", lambda x: "tool result", kind="function")
        critic = ScriptedCritic()
        Loss([row(lambda: tool(x=a().out + b().out).out, None, feedback="bad")], critic).backward()
        assert texts(a.instruction) == ["a.instruction: bad"]
        assert texts(b.instruction) == ["b.instruction: bad"]
        assert sorted(critic.calls) == [("a", 0), ("b", 0)]

    def test_a_function_that_reads_a_parameter_passes_blame_to_it(self):
        first, wording = Call("first", lambda: "some first text"), Parameter("Say: {}")
        wording.name = "tool.wording"

        def forward():
            text = first().out
            node = current_tape().node("tool", kind="function", inputs={"x": text})
            said = {"out": node.read(wording, "wording").format("it")}
            node.finish(attach(said, node))
            return Text(said["out"], node)

        critic = ScriptedCritic()
        Loss([row(forward, None, feedback="bad")], critic).backward()
        (critique,) = wording.grad.critiques
        assert (critique.path, critique.target, critique.text) == ("tool", "wording", "bad")
        assert texts(first.instruction) == ["first.instruction: bad"]
        assert critic.calls == [("first", 0)]

    def test_branches_without_trainable_parameters_get_nothing(self):
        frozen, last = Call("frozen", lambda q: "some frozen text"), Call("last", lambda x: "y")
        frozen.instruction.requires_grad = False
        critic = ScriptedCritic()
        Loss([row(lambda q: last(x=frozen(q=q).out).out, None, q="x")], critic).backward()
        assert critic.calls == [("last", 0)]
        assert [target.name for target in critic.asked[0].targets] == ["instruction"]

    def test_a_frozen_call_between_passes_blame_through_its_critic(self):
        first, frozen = Call("first", lambda q: "a first text"), Call("frozen", lambda x: "y")
        frozen.instruction.requires_grad = False
        critic = ScriptedCritic()
        Loss([row(lambda q: frozen(x=first(q=q).out).out, None, feedback="bad", q="x")], critic).backward()
        assert critic.calls == [("frozen", 0), ("first", 0)]
        assert [target.kind for target in critic.asked[0].targets] == ["input"]
        assert texts(first.instruction) == ["first.instruction: frozen.x: bad"]

    def test_a_parameter_in_an_input_is_blamed_through_the_call(self):
        persona, solve = (
            Parameter("You are a patient teacher.", "description", requires_grad=True),
            Call("solve", lambda s: "4"),
        )
        persona.name = "persona"
        critic = ScriptedCritic()
        Loss([row(lambda: solve(s=str(persona)).out, None, feedback="bad")], critic).backward()
        (critique,) = persona.grad.critiques
        assert (critique.text, critique.path, critique.target) == ("solve.s: bad", "solve", "persona")
        assert critique.evidence["inputs"] == {"s": "You are a patient teacher."}

    def test_an_input_named_like_a_parameter_stays_apart(self):
        first, solve = Call("first", lambda: "some first text"), Call("solve", lambda instruction: "4")
        critic = ScriptedCritic()
        Loss([row(lambda: solve(instruction=first().out).out, None, feedback="bad")], critic).backward()
        assert [target.name for target in critic.asked[0].targets] == ["instruction", "input.instruction"]
        assert texts(first.instruction) == ["first.instruction: solve.input.instruction: bad"]

    def test_outputs_of_every_kind(self):
        def number(q):
            return int(solve(q=q).out)

        def listed(q):
            return [solve(q=q), {"k": solve(q=q).out}]

        for forward, count in ((number, 1), (listed, 2)):
            solve = Call("solve", lambda q: "41")
            Loss([row(forward, None, q="what is it")], ScriptedCritic()).backward()
            assert len(texts(solve.instruction)) == count

    def test_blame_crosses_to_an_earlier_forward(self):
        write, read = Call("write", lambda: "a memory of old"), Call("read", lambda m: "x")
        memory, _ = run(lambda: write().out)
        Loss([row(lambda: read(m=memory).out, None, feedback="bad")], ScriptedCritic()).backward()
        assert texts(write.instruction) == ["write.instruction: read.m: bad"]

    def test_what_an_earlier_backward_freed_is_a_constant(self):
        write, read = Call("write", lambda: "a memory of old"), Call("read", lambda m: "x")
        memory, tape = run(lambda: write().out)
        tape.free()
        Loss([row(lambda: read(m=memory).out, None)], ScriptedCritic()).backward()
        assert write.instruction.grad is None
        assert len(texts(read.instruction)) == 1


class TestErrors:
    def test_a_call_that_failed_gets_the_traceback_and_what_fed_it_too(self):
        def fail(x):
            raise ValueError("no field 'answer'")

        first, broken = Call("first", lambda q: "a first text"), Call("broken", fail)
        one = row(lambda q: broken(x=first(q=q).out).out, example(0), feedback="", raises=ValueError, q="x")
        critic = ScriptedCritic()
        loss = Loss([one], critic)
        report = loss.backward()
        assert critic.calls == [("broken", 0), ("first", 0)]
        assert "ValueError: no field 'answer'" in critic.asked[0].feedback[0]
        assert broken.instruction.grad.critiques[0].verdict == "error"
        assert (report.failed, report.errors) == (0, 1)
        assert len(loss.errors) == 1
        assert first.demos.grad is None, "a failed forward is no demo"

    @pytest.mark.parametrize("answer", [["text"], {"instruction": 7}, {"instruction": {"why": "x"}}, "text"])
    def test_a_malformed_answer_of_the_critic_is_one_skipped_call(self, answer):
        class Odd(ScriptedCritic):
            async def critique(self, failure):
                await super().critique(failure)
                return answer if failure.example.id == example(0).id else {"instruction": "say more"}

        call = Call("call", lambda q: "text")
        rows = [row(lambda q: call(q=q).out, example(i), q=f"q{i}") for i in range(2)]
        report = Loss(rows, Odd()).backward()
        assert "the critic failed: TypeError" in report.skipped[0].reason
        assert [critique.text for critique in call.instruction.grad.critiques] == ["say more"]

    def test_a_metric_that_failed_blames_nobody(self):
        call, critic = Call("call", lambda q: "text"), ScriptedCritic()
        output, tape = run(lambda q: call(q=q).out, q="x")
        broken = LossRow(example(0), output, 0.0, 1.0, "", tape, MetricError("the metric raised KeyError('gold')"))
        report = Loss([broken], critic).backward()
        assert critic.calls == []
        assert (report.failed, report.errors) == (0, 1)
        assert "KeyError" in report.skipped[0].reason
        assert repr(report).startswith("BackwardReport(0 of 1 failed, 1 error;")

    def test_an_error_in_the_programs_own_code_blames_what_led_there(self):
        solve = Call("solve", lambda q: "forty-two")
        critic = ScriptedCritic()
        Loss([row(lambda q: int(solve(q=q).out), None, feedback="", raises=ValueError, q="x")], critic).backward()
        assert critic.calls == [("solve", 0)]
        assert "ValueError: invalid literal for int()" in critic.asked[0].feedback[0]

    def test_an_error_that_was_wrapped_is_recognised(self):
        def fail(x):
            raise ValueError("inner")

        broken = Call("broken", fail)

        def forward():
            try:
                broken(x="x")
            except ValueError as error:
                raise RuntimeError("outer") from error

        critic = ScriptedCritic()
        Loss([row(forward, None, feedback="", raises=RuntimeError)], critic).backward()
        assert critic.calls == [("broken", 0)]

    @pytest.mark.parametrize("error", [LMConnectionError("down"), BudgetExceeded(kind="calls")])
    def test_no_prompt_is_blamed_for_an_outage(self, error):
        def fail(x):
            raise error

        broken, critic = Call("broken", fail), ScriptedCritic()
        report = Loss([row(lambda: broken(x="x"), None, raises=type(error))], critic).backward()
        assert (report.calls, critic.asked) == (0, [])
        assert "no answer" in report.skipped[0].reason
        assert broken.instruction.grad is None

    def test_a_prompt_that_is_too_long_is_to_blame(self):
        def fail(x):
            raise ContextWindowError("too long", status=400)

        broken = Call("broken", fail)
        assert (
            Loss([row(lambda: broken(x="x"), None, raises=ContextWindowError)], ScriptedCritic()).backward().calls == 1
        )

    def test_a_critic_that_raises_is_noted_and_the_rest_goes_on(self):
        chain = Chain(2)
        critic = ScriptedCritic()
        original = critic.critique

        async def sometimes(failure):
            if failure.example.q == "question 1":
                raise LMConnectionError("the critic is down")
            return await original(failure)

        critic.critique = sometimes
        report = Loss(batch(chain, [0, 0, 0]), critic).backward()
        assert [(skip.path, skip.example_id) for skip in report.skipped] == [("c1", example(1).id)]
        assert "the critic is down" in report.skipped[0].reason
        assert "1 skipped (first: c1[0]" in repr(report)
        assert [critique.example_id for critique in chain.calls[1].instruction.grad] == [example(0).id, example(2).id]

    def test_where_every_critic_call_fails_there_is_a_warning(self):
        class Broken:
            async def critique(self, failure):
                return "not a mapping"

        with pytest.warns(RuntimeWarning, match="every critic call failed"):
            report = Loss(batch(Chain(1), [0, 0]), Broken()).backward()
        assert "a critic returns a mapping" in report.skipped[0].reason


class TestGuards:
    def test_a_second_backward_is_refused_unless_the_graph_is_kept(self):
        chain = Chain(1)
        loss = Loss(batch(chain, [0]), ScriptedCritic())
        loss.backward(retain_graph=True)
        loss.backward()
        assert len(texts(chain.calls[0].instruction)) == 2
        with pytest.raises(GraphError, match="retain_graph=True"):
            loss.backward()
        assert len(texts(chain.calls[0].instruction)) == 2

    def test_a_failure_without_a_critic_is_an_error_before_anything_happens(self):
        chain = Chain(2)
        loss = Loss(batch(chain, [1, 0]))
        with pytest.raises(GraphError, match=r"critic="):
            loss.backward()
        assert chain.calls[0].demos.grad is None
        assert loss.backward(ScriptedCritic()).calls == 2

    def test_without_a_record_there_is_nothing_to_go_back_through(self):
        solve = Call("solve", lambda: "x")
        with no_grad():
            output = solve().out
        with pytest.raises(GraphError, match="nothing was recorded"):
            Loss([LossRow(None, output, 0.0)], ScriptedCritic()).backward()

    def test_an_empty_loss_does_nothing(self):
        assert Loss([]).backward().calls == 0

    def test_a_row_without_a_tape_is_found_by_its_output(self):
        chain = Chain(2)
        output, tape = run(chain, x="q")
        Loss([LossRow(None, output, 0.0, feedback="bad")], ScriptedCritic()).backward()
        assert len(texts(chain.calls[0].instruction)) == 1
        assert tape.freed

    def test_default_feedback_names_the_labels(self):
        solve = Call("solve", lambda q: "x")
        for made, expected in (
            (Example(q="1", a="42").with_inputs("q"), "the a should be 42"),
            (Example(q="1", a="42", b=3).with_inputs("q"), "the a should be 42; the b should be 3"),
            (Example(q="1", a="42"), "the a should be 42"),
            (None, "the output scores 0.25 of 1"),
        ):
            critic = ScriptedCritic()
            Loss([row(lambda q: solve(q=q).out, made, 0.25, "", q="1")], critic).backward()
            assert critic.asked[0].feedback == (expected,)


class TestAccumulation:
    def test_gradients_add_until_they_are_cleared(self):
        chain = Chain(1)
        for _ in range(2):
            Loss(batch(chain, [0, 1]), ScriptedCritic()).backward()
        assert len(chain.calls[0].instruction.grad.critiques) == 2
        assert len(chain.calls[0].demos.grad.traces) == 4

    def test_only_the_wanted_parameters_accumulate(self):
        chain, critic = Chain(3), ScriptedCritic()
        demos = [call.demos for call in chain.calls]
        report = Loss(batch(chain, [0, 1]), critic).backward(inputs=demos)
        assert critic.asked == []
        assert report.calls == 0
        assert all(call.instruction.grad is None for call in chain.calls)
        assert [len(parameter.grad.traces) for parameter in demos] == [2, 2, 2]
        critic = ScriptedCritic()
        Loss(batch(chain, [0]), critic).backward(inputs=[chain.calls[1].instruction])
        assert critic.calls == [("c2", 0), ("c1", 0)]
        assert [call.instruction.grad is None for call in chain.calls] == [True, False, True]
        assert [len(parameter.grad.traces) for parameter in demos] == [2, 2, 2]

    def test_traces_hold_the_call_and_its_score(self):
        chain = Chain(2)
        Loss(batch(chain, [0.5]), ScriptedCritic()).backward()
        (trace,) = chain.calls[0].demos.grad.traces
        assert (trace.example_id, trace.path, trace.index, trace.score) == (example(0).id, "c0", 0, 0.5)
        assert trace.inputs == {"x": "given question 0"}
        assert trace.outputs == {"out": "text number 0 says 16 things"}

    @pytest.mark.parametrize("seed", range(3))
    def test_the_order_does_not_depend_on_who_answers_first(self, seed):
        def gradients(delays):
            chain = Chain(3)
            Loss(batch(chain, [0, 1, 0.5, 0, 0]), ScriptedCritic(delays=delays)).backward()
            return [call.instruction.grad.to_dict() for call in chain.calls]

        assert gradients(random.Random(seed)) == gradients(None)

    @pytest.mark.parametrize("slow", ["a", "b"])
    def test_who_is_slow_changes_neither_what_is_told_nor_what_a_parameter_hears(self, slow):
        quick_one_is_done = aio.Signal()

        class Slow(ScriptedCritic):
            async def critique(self, failure):
                if failure.node.path == slow:
                    await quick_one_is_done
                answer = await super().critique(failure)
                if failure.node.path in {"a", "b"} - {slow}:
                    quick_one_is_done.set(None)
                return {name: f"{failure.node.path} blames {name}" for name in answer}

        hint = Parameter("think of the unit first", "description", requires_grad=True)
        n, m = Call("n", lambda: "alpha beta gamma"), Call("m", lambda: "delta epsilon zeta")
        a, b = Call("a", lambda t, hint: "yes one"), Call("b", lambda t, hint: "yes two")

        def program():
            left, right = n().out, m().out
            both = a(t=left + right, hint=str(hint)).out  # `left` is heard of through a join here, directly below
            return both + b(t=left + f" {right}", hint=str(hint)).out

        critic = Slow()
        report = Loss([row(program, None)], critic).backward()
        told = {failure.node.path: failure.feedback for failure in critic.asked}
        assert told["n"] == ("a blames t", "b blames t")
        assert texts(hint) == ["a blames hint", "b blames hint"]
        of_hint = [one.text for one in report.critiques[0] if one.target_kind == "description"]
        assert of_hint == ["a blames hint", "b blames hint"]


class TestConcurrency:
    def test_samples_and_branches_run_side_by_side(self):
        """Every critic call of a level waits until all of its level have begun: 4 samples x (1 + 3) calls, 2 levels."""
        branches = [Call(f"b{i}", lambda q, i=i: f"branch text number {i}") for i in range(3)]
        merge = Call("merge", lambda **parts: "merged")

        def forward(q):
            return merge(**{call.path: call(q=q).out for call in branches}).out

        begun, gates, lock = {1: 0, 2: 0}, {1: aio.Signal(), 2: aio.Signal()}, threading.Lock()

        class Gate:
            async def critique(self, failure):
                level = 1 if failure.node.path == "merge" else 2
                with lock:
                    begun[level] += 1
                    full = begun[level] == {1: 4, 2: 12}[level]
                if full:
                    gates[level].set(None)
                await gates[level]
                return {target.name: "bad" for target in failure.targets}

        report = Loss([row(forward, example(i), q=f"question {i}") for i in range(4)], Gate()).backward()
        assert report.calls == 16

    @pytest.mark.parametrize("how", ["sync", "own loop", "in a running loop", "program loop"])
    def test_it_works_from_everywhere_with_critics_that_need_a_loop(self, how):
        class Slow:
            async def critique(self, failure):
                await asyncio.sleep(0)
                return {target.name: "bad" for target in failure.targets}

        chain = Chain(2)
        loss = Loss(batch(chain, [0]), Slow())

        async def awaits():
            return await loss.abackward()

        async def cell():
            return loss.backward()

        report = {
            "sync": loss.backward,
            "own loop": lambda: asyncio.run(awaits()),
            "in a running loop": lambda: asyncio.run(cell()),
            "program loop": lambda: aio.run(awaits()),
        }[how]()
        assert report.calls == 2

    def test_a_blocking_backward_on_the_program_loop_is_refused(self):
        loss = Loss(batch(Chain(1), [0]), ScriptedCritic())

        async def cell():
            return loss.backward()

        with pytest.raises(AsyncUsageError, match=r"await Loss\.abackward\(\.\.\.\)"):
            aio.run(cell())

    def test_ctrl_c_leaves_gradients_and_graph_as_they_were(self):
        chain = Chain(2)
        asked = threading.Event()

        class Stuck:
            async def critique(self, failure):
                if failure.example.q == "question 1":
                    asked.set()
                    await aio.Signal()
                return {target.name: "bad" for target in failure.targets}

        loss = Loss(batch(chain, [0, 0]), Stuck())
        thread = interrupt_when(asked)
        with pytest.raises(KeyboardInterrupt):
            loss.backward()
        thread.join()
        assert all(call.instruction.grad is None and call.demos.grad is None for call in chain.calls)
        assert loss.backward(ScriptedCritic()).calls == 4

    def test_nothing_to_ask_needs_no_loop(self):
        here = []

        class Weights:
            requires_grad = False

            def backward(self, advantage):
                here.append(advantage)

            @staticmethod
            def backward_all(pairs):
                here.extend(pairs)

        assert isinstance(Weights(), WeightTrace)
        assert isinstance(ScriptedCritic(), CriticLike)
        chain = Chain(1)
        rows = batch(chain, [1, 1])
        rows[0].tape.nodes[0].weight_traces.append(Weights())
        Loss(rows).backward()
        assert here == []


class TestWeights:
    def rollouts(self, scores, *, requires_grad=True):
        got = {}

        class Trace:
            def __init__(self, name):
                self.name, self.requires_grad = name, requires_grad

            @staticmethod
            def backward_all(pairs):
                got.update({trace.name: advantage for trace, advantage in pairs})

        chain, rows = Chain(1), []
        for group, group_scores in enumerate(scores):
            for replicate, score in enumerate(group_scores):
                one = row(chain, example(group), score or 0, x="q")
                error = ValueError("x") if score is None else None
                one = LossRow(one.example, one.output, score or 0, tape=one.tape, error=error, replicate=replicate)
                one.tape.nodes[0].weight_traces.append(Trace((group, replicate)))
                rows.append(one)
        return Loss(rows, ScriptedCritic()), got

    def test_the_advantage_is_the_score_minus_the_mean_of_the_rollouts(self):
        loss, got = self.rollouts([[1, 0, 0.5, None], [1, 1]])
        loss.backward()
        assert got == {(0, 0): 0.5, (0, 1): -0.5}

    def test_a_factor_scales_it(self):
        loss, got = self.rollouts([[1, 0]])
        (loss * 2).backward()
        assert got == {(0, 0): 1.0, (0, 1): -1.0}

    def test_weights_that_are_frozen_or_not_wanted_get_nothing(self):
        for wanted, requires_grad, count in ((None, False, 0), (True, False, 2), (False, True, 0), (None, True, 2)):
            loss, got = self.rollouts([[1, 0]], requires_grad=requires_grad)
            loss.backward(weights=wanted)
            assert len(got) == count


class TestScale:
    def chain(self, depth):
        call = Call("c", lambda x: f"text number {len(x)} here")

        def forward(x):
            for _ in range(depth):
                x = call(x=x).out
            return x

        return call, row(forward, None, x="q")

    def test_ten_thousand_calls_in_a_row_neither_recurse_nor_explode(self):
        call, one = self.chain(10_000)
        critic = ScriptedCritic(lambda path, target, feedback: "bad")
        report = Loss([one], critic).backward()
        assert report.calls == 10_000
        assert [critique.index for critique in call.instruction.grad.critiques] == list(range(10_000))

    def test_the_cost_of_a_call_does_not_grow_with_their_number(self):
        def backward(depth):
            _, one = self.chain(depth)
            return Loss([one], ScriptedCritic(lambda path, target, feedback: "bad" if target == "x" else "")).backward

        assert growth(backward, 100, times=8) < 10  # 8 if linear, 64 if quadratic

    def test_a_join_of_ten_thousand_and_a_fan_of_a_thousand(self):
        part, use = Call("part", lambda i: f"part {i}"), Call("use", lambda x: "done")

        def forward():
            text = part(i=0).out
            for i in range(1, 1000):
                text = text + part(i=i).out
            for _ in range(9000):
                text = text + "x"
            return use(x=text).out

        critic = ScriptedCritic(lambda path, target, feedback: "bad")
        assert Loss([row(forward, None)], critic).backward().calls == 1001
        assert len(texts(part.instruction)) == 1000


class TestTracebacks:
    def test_the_critic_is_shown_the_users_lines_and_none_of_ours(self):
        import promptgrad as pg
        from promptgrad import nn

        class Fragile(nn.Module):
            def __init__(self):
                super().__init__()
                self.step = nn.Predict("text -> word")

            def forward(self, text):
                return int(self.step(text=text).word)

        model = Fragile().to(pg.lm.FunctionLM(lambda prompt: "[[ ## word ## ]]\ncat"))
        examples = [Example(text="x", answer="1").with_inputs("text")]
        critic = ScriptedCritic()
        nn.MetricLoss(pg.metrics.exact_match, critic=critic)(model.map(examples), examples).backward()
        (text,) = critic.asked[0].feedback
        assert "return int(self.step(text=text).word)" in text
        assert "ValueError: invalid literal for int()" in text
        assert "promptgrad/" not in text
        assert f'File "{Path(__file__).name}", line' in text  # not where on this machine

    @pytest.mark.parametrize("mode", ["one at a time", "side by side"])
    def test_an_error_of_ours_is_shown_alike_in_every_mode(self, mode):
        """A call that had to wait has another stack than one that had not; a resumed run asks alike."""
        import promptgrad as pg
        from promptgrad import nn

        async def answer(messages):
            await asyncio.sleep(0)
            return ""

        class Silent(nn.Module):
            def __init__(self):
                super().__init__()
                self.step = nn.Predict("text -> word")

            def forward(self, text):
                return self.step(text=text).word

        model = Silent().to(pg.lm.FunctionLM(answer, name="silent"))
        examples = [Example(text=text, answer="1").with_inputs("text") for text in "xy"]
        critic = ScriptedCritic()
        outputs = model.map(examples, concurrency=1 if mode == "one at a time" else 2)
        nn.MetricLoss(pg.metrics.exact_match, critic=critic)(outputs, examples).backward()
        for failure in critic.asked:
            heading, what, where, line, *rest = failure.feedback[0].splitlines()
            assert (heading, what) == ("the call failed:", "Traceback (most recent call last):")
            assert where.startswith('  File "test_engine.py", line ')
            assert where.endswith(", in forward")
            assert line == "    return self.step(text=text).word"
            assert rest == [
                "promptgrad.errors.ParseError: the reply of silent to step (text -> word) does not parse "
                "(asked 2 times): the field `word` is missing",
                "The reply was:",
            ]
