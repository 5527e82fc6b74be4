import pytest

from promptgrad import aio, nn
from promptgrad.metrics import exact_match


class Echo(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Predict("question -> answer")

    def forward(self, question):
        return self.step(question=question).answer


@pytest.fixture
def program(scripted):
    return Echo().to(scripted(lambda question: {"answer": question.upper()}))


def test_forward_hooks_run_in_order_and_may_replace(program):
    seen = []
    first = program.register_forward_pre_hook(lambda module, args: seen.append(("pre", module, args)))
    program.register_forward_pre_hook(lambda module, args: args[0] + "!")
    program.register_forward_hook(lambda module, args, output: seen.append(("post", args, output)))
    program.register_forward_hook(lambda module, args, output: output + "?")
    assert program("a") == "A!?"
    assert seen == [("pre", program, ("a",)), ("post", ("a!",), "A!")]
    first.remove()
    first.remove()
    seen.clear()
    assert program("b") == "B!?"
    assert [what for what, *_ in seen] == ["post"]


def test_hooks_may_see_keywords(program):
    program.step.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "question": "changed"}), with_kwargs=True
    )
    seen = []
    program.step.register_forward_hook(
        lambda module, args, kwargs, output: seen.append((kwargs, output.answer)), with_kwargs=True
    )
    assert program(question="a") == "CHANGED"
    assert seen == [({"question": "changed"}, "CHANGED")]
    program.step.register_forward_pre_hook(lambda module, args, kwargs: kwargs, with_kwargs=True)
    with pytest.raises(TypeError, match="None or a pair"):
        program(question="a")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", ["forward_pre_hook", "forward_hook"])
@pytest.mark.parametrize("with_kwargs", [False, True])
def test_a_hook_that_would_have_to_be_awaited_is_refused(program, kind, with_kwargs, asynchronous):
    async def late(*args):
        return None

    getattr(program.step, f"register_{kind}")(late, with_kwargs=with_kwargs)
    with pytest.raises(TypeError, match=r"the forward hook .*late returned a coroutine: .* write it as `def`"):
        aio.run(program.acall("a")) if asynchronous else program("a")


def test_a_handle_is_a_context_manager(program):
    with program.register_forward_hook(lambda module, args, output: "hooked"):
        assert program("a") == "hooked"
    assert program("a") == "A"
    assert program._hooks is None


def test_hooks_run_in_every_mode(scripted):
    class Later(nn.Module):
        async def forward(self, question):
            return question

    for module in (Later(), nn.Sequential(Later())):
        module.register_forward_hook(lambda module, args, output: output + "?")
        assert module("a") == "a?"
        assert module.map(["b"]) == ["b?"]


def test_exceptions_of_hooks_propagate(program):
    def broken(module, args):
        raise RuntimeError("broken hook")

    program.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="broken hook"):
        program("a")


def test_a_copy_has_hooks_of_its_own(program):
    import copy

    program.register_forward_hook(lambda module, args, output: output + "?")
    twin = copy.deepcopy(program)
    twin.register_forward_hook(lambda module, args, output: output + "!")
    assert program("a") == "A?"
    assert twin("a") == "A?!"


class Blames:
    async def critique(self, failure):
        return {target.name: f"{target.name} is wrong" for target in failure.targets}


def test_backward_hooks_see_and_replace_what_is_said(program):
    seen = []

    def watch(module, grad_input, grad_output):
        seen.append((module, grad_input, grad_output))
        return {"instruction": "replaced"}

    program.step.register_full_backward_hook(watch)
    program.register_full_backward_hook(lambda module, grad_input, grad_output: seen.append((module, grad_input)))
    examples = [{"question": "a", "answer": "b"}]
    criterion = nn.MetricLoss(exact_match(field="answer"), critic=Blames())
    criterion(program.map([{"question": "a"}]), examples).backward()
    assert seen == [
        (program.step, {"instruction": "instruction is wrong"}, ("the answer should be b",)),
        (program.step, {"instruction": "replaced"}),
    ]
    assert [c.text for c in program.step.instruction.grad.critiques] == ["replaced"]


def test_a_backward_hook_that_raises_stops_backward_and_leaves_gradients_alone(program):
    def broken(module, grad_input, grad_output):
        raise RuntimeError("broken hook")

    program.step.register_full_backward_hook(broken)
    loss = nn.MetricLoss(exact_match(field="answer"), critic=Blames())(program.map(["a"]), [{"answer": "b"}])
    with pytest.raises(RuntimeError, match="broken hook"):
        loss.backward()
    assert program.step.instruction.grad is None
