import copy
import pickle

import pytest

from promptgrad.autograd import Gradient, Loss, Parameter, Text, no_grad
from promptgrad.errors import GraphError
from tests.autograd.programs import Call, ScriptedCritic, row, run, texts


def chain(*hooks):
    a, b = Call("a", lambda: "one text"), Call("b", lambda x: "two")

    def program():
        text = a().out
        for hook in hooks:
            text.register_hook(hook)
        return b(x=text).out

    return a, b, program


def test_a_hook_sees_what_is_said_of_a_value_and_may_replace_it():
    seen = []
    a, b, program = chain(seen.append, lambda feedback: [text.upper() for text in feedback], seen.append)
    Loss([row(program, None)], ScriptedCritic()).backward()
    assert seen == [("b.x: wrong",), ("B.X: WRONG",)]
    assert texts(a.instruction) == ["a.instruction: B.X: WRONG"]
    assert texts(b.instruction) == ["b.instruction: wrong"]


def test_an_empty_answer_ends_the_blame():
    a, _, program = chain(lambda feedback: "")
    report = Loss([row(program, None)], ScriptedCritic()).backward()
    assert report.calls == 1
    assert a.instruction.grad is None


def test_a_critic_of_whole_forwards_consults_none():
    class Joint:
        def groups(self, failures):
            return [[failure] for failure in failures]

        async def critique(self, failure):
            return {}

        async def critique_traces(self, group):
            return [{target.name: "of the whole" for target in failure.targets} for failure in group]

    seen = []
    a = Call("a", lambda: "one text")

    def program():
        text = a().out
        text.register_hook(lambda feedback: seen.append(feedback) or "")
        return text

    Loss([row(program, None)], Joint()).backward(engine="joint")
    assert seen == []
    assert texts(a.instruction) == ["of the whole"]


def test_a_hook_that_is_removed_is_not_called():
    handles, seen = [], []
    a, b = Call("a", lambda: "one text"), Call("b", lambda x: "two")

    def program():
        text = a().out
        handles.append(text.register_hook(seen.append))
        with text.register_hook(lambda feedback: 1 / 0):
            pass
        return b(x=text).out

    loss = Loss([row(program, None)], ScriptedCritic())
    loss.backward(retain_graph=True)
    handles[0].remove()
    loss.backward()
    assert len(seen) == 1


def test_a_joined_text_and_the_hooks_of_modules_come_in_order():
    order = []
    a, b = Call("a", lambda: "one text"), Call("b", lambda x: "two")

    def program():
        text = a().out
        text.register_hook(lambda feedback: order.append("value"))
        text.grad_fn.hooks = (lambda node, feedback, blame: order.append("module"),)
        both = text + b(x="y").out
        both.register_hook(lambda feedback: order.append("joined"))
        return both

    a.instruction.register_hook(lambda grad: order.append("parameter"))
    a.instruction.register_post_accumulate_grad_hook(lambda p: order.append(f"grad of {len(p.grad)}"))
    Loss([row(program, None)], ScriptedCritic()).backward()
    assert order == ["joined", "value", "module", "parameter", "grad of 1"]


def test_what_a_hook_raises_is_raised_by_backward_and_nothing_changes():
    a, b, program = chain(lambda feedback: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Loss([row(program, None)], ScriptedCritic()).backward()
    assert a.instruction.grad is None
    assert b.instruction.grad is None


def test_a_text_without_graph_takes_no_hook():
    with pytest.raises(GraphError, match="without grad_fn"):
        Text("x").register_hook(print)
    with no_grad(), pytest.raises(GraphError):
        Call("a", lambda: "x")().out.register_hook(print)
    assert not Text("x").requires_grad
    output, _ = run(lambda: Call("a", lambda: "x")().out)
    assert output.requires_grad
    assert not output.detach().requires_grad


class TestParameters:
    def test_a_hook_may_replace_the_gradient(self):
        a, _, program = chain()
        a.instruction.register_hook(lambda grad: Gradient([*grad, *grad]))
        Loss([row(program, None)], ScriptedCritic()).backward()
        assert len(a.instruction.grad) == 2

    def test_it_sees_what_is_added_and_not_the_sum(self):
        a, _, program = chain()
        seen = []
        handle = a.instruction.register_hook(lambda grad: seen.append(len(grad)))
        for _ in range(2):
            Loss([row(program, None)], ScriptedCritic()).backward()
        handle.remove()
        Loss([row(program, None)], ScriptedCritic()).backward()
        assert seen == [1, 1]
        assert len(a.instruction.grad) == 3

    def test_an_empty_gradient_adds_nothing(self):
        a, _, program = chain()
        a.instruction.register_hook(lambda grad: Gradient())
        Loss([row(program, None)], ScriptedCritic()).backward()
        assert a.instruction.grad is None

    def test_another_answer_is_refused_before_any_gradient_grows(self):
        a, b, program = chain()
        b.instruction.register_hook(lambda grad: "shorter")
        with pytest.raises(TypeError, match=r"a hook of b\.instruction returned 'shorter'"):
            Loss([row(program, None)], ScriptedCritic()).backward()
        assert a.instruction.grad is None

    def test_copies_have_no_hooks(self):
        p = Parameter("x")
        p.register_hook(lambda grad: 1 / 0)
        assert copy.deepcopy(p)._hooks == {} == pickle.loads(pickle.dumps(p))._hooks
