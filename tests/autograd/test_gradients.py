"""Gradients as values: what a backward pass finds, without a `.grad` that changes."""

import asyncio
import threading

import pytest

from promptgrad import aio
from promptgrad.autograd import Function, Gradient, Gradients, Loss, Parameter
from promptgrad.errors import AsyncUsageError, GraphError
from tests.autograd.programs import Call, ScriptedCritic, row, run, texts


def make(critic=None, n=2, score=0.0):
    first, last = Call("first", lambda q: "a text of the first call"), Call("last", lambda x: f"an answer to {x}")
    forward = lambda q: last(x=first(q=q).out).out  # noqa: E731
    rows = [row(forward, None, score, f"wrong {i}", q=f"question {i}") for i in range(n)]
    return first, last, Loss(rows, critic or ScriptedCritic())


def test_they_are_what_backward_adds_and_nothing_changes():
    first, last, loss = make()
    gradients = loss.gradients(retain_graph=True)
    assert isinstance(gradients, Gradients)
    assert loss.report is None
    assert all(p.grad is None for call in (first, last) for p in (call.instruction, call.demos))
    report = loss.backward()
    added = {p: p.grad for call in (first, last) for p in (call.instruction, call.demos) if p.grad is not None}
    assert dict(gradients) == added
    assert gradients.report.reached == report.reached
    assert gradients.report.calls == report.calls == 4
    assert repr(gradients).startswith("Gradients of 4 parameters\n  ")


def test_a_parameter_without_a_gradient_is_no_key():
    first, last, loss = make()
    gradients = loss.gradients(last.instruction)
    assert list(gradients) == [last.instruction]
    assert gradients.get(first.instruction) is None
    assert isinstance(gradients[last.instruction], Gradient)


def test_the_graph_is_freed_unless_it_is_kept():
    _, _, loss = make()
    loss.gradients()
    with pytest.raises(GraphError, match="retain_graph=True"):
        loss.gradients()


def test_hooks_of_parameters_run_and_those_that_wait_for_grad_do_not():
    _, last, loss = make()
    grown = []
    last.instruction.register_hook(lambda grad: grad[:1])
    last.instruction.register_post_accumulate_grad_hook(grown.append)
    assert len(loss.gradients()[last.instruction]) == 1
    assert grown == []


def test_weights_of_local_models_get_nothing():
    _, _, loss = make(score=0.5)
    got = []

    class Weights:
        requires_grad = True

        @staticmethod
        def backward_all(pairs):
            got.extend(pairs)

    loss.rows[0].tape.nodes[0].weight_traces.append(Weights())
    loss.gradients()
    assert got == []


def test_a_blocking_call_on_the_program_loop_is_refused():
    _, _, loss = make()

    async def cell():
        return loss.gradients()

    with pytest.raises(AsyncUsageError, match=r"await Loss\.agradients\(\.\.\.\)"):
        aio.run(cell())
    assert len(asyncio.run(loss.agradients())) == 4


class Meeting(ScriptedCritic):
    """Answers only once `parties` passes have asked, so that the passes are under way at the same time."""

    def __init__(self, word, barrier):
        super().__init__(lambda path, target, feedback: f"{word} {path}.{target}: {' & '.join(feedback)}")
        self.barrier = barrier
        self.met = False

    async def critique(self, failure):
        if not self.met:
            self.met = True
            await aio.in_thread(self.barrier.wait, 20)
        return await super().critique(failure)


def test_two_passes_at_once_over_one_loss_do_not_see_each_other():
    first, last, loss = make(n=2)
    barrier = threading.Barrier(2)

    async def both():
        return await asyncio.gather(
            loss.agradients(critic=Meeting("one", barrier), retain_graph=True),
            loss.agradients(last.instruction, critic=Meeting("two", barrier), retain_graph=True),
        )

    one, two = asyncio.run(both())
    assert [c.text for c in one[last.instruction].critiques] == [f"one last.instruction: wrong {i}" for i in range(2)]
    assert [c.text for c in two[last.instruction].critiques] == [f"two last.instruction: wrong {i}" for i in range(2)]
    assert list(two) == [last.instruction]
    assert first.instruction.grad is None
    assert loss.backward().calls == 4
    assert len(texts(first.instruction)) == 2


@pytest.mark.parametrize("frees", [0, 1])
def test_a_pass_that_frees_the_graph_is_alone_on_it(frees):
    _, _, loss = make(n=1)
    asked, answer = threading.Event(), aio.Signal()

    class Stuck(ScriptedCritic):
        async def critique(self, failure):
            asked.set()
            await answer
            return await super().critique(failure)

    async def both():
        early = asyncio.ensure_future(loss.agradients(critic=Stuck(), retain_graph=frees != 0))
        while not asked.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(GraphError, match="at this moment"):
            await loss.agradients(retain_graph=frees == 0)
        answer.set(None)
        return await early

    assert len(asyncio.run(both())) == 4


def test_what_a_function_is_told_of_who_wants_to_hear_is_that_of_its_own_pass():
    seen, asked = [], threading.Barrier(2)

    class Both(Function):
        @staticmethod
        def forward(ctx, left, right):
            return f"{left} and {right}"

        @staticmethod
        def backward(ctx, grad):
            asked.wait(60)
            seen.append((len(seen), ctx.needs_input_grad))
            asked.wait(60)
            return grad, grad

    left, right = Parameter("the left text"), Parameter("the right text")
    left.name, right.name = "left", "right"
    output, tape = run(lambda: Both.apply(left, right))
    loss = Loss([row(lambda: output, None)])
    assert tape.nodes[0].kind == "function"

    async def both():
        ways = [loss.agradients(p, ScriptedCritic(), retain_graph=True) for p in (left, right)]
        return await asyncio.gather(*ways)

    found = asyncio.run(both())
    assert [list(gradients) for gradients in found] == [[left], [right]]
    assert sorted(needs for _, needs in seen) == [(False, True), (True, False)]
