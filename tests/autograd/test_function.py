import asyncio
import warnings

import pytest

from promptgrad import aio
from promptgrad.autograd import Function, Loss, Parameter, Text, edges, no_grad
from tests.autograd.programs import Call, ScriptedCritic, row, run, texts


class Search(Function):
    @staticmethod
    def forward(ctx, query, k=2):
        ctx.save_for_backward(query, k)
        return [f"document {number} about quite other matters" for number in range(k)]

    @staticmethod
    def backward(ctx, grad):
        query, k = ctx.saved
        assert ctx.needs_input_grad == (True, False)[: len(ctx.needs_input_grad)]
        return f"{query!r} found {k} wrong documents: {grad}", None


class Halves(Function):
    @staticmethod
    def forward(ctx, left, right):
        return f"<{left}>", f"<{right}>"

    @staticmethod
    def backward(ctx, first, second):
        return first and f"left: {first}", second and f"right: {second}"


def rag(search):
    ask, answer = Call("ask", lambda q: "rivers in France"), Call("answer", lambda docs: "Rouen")
    return ask, answer, lambda q: answer(docs=search(ask(q=q).out)).out


def test_its_backward_says_what_is_wrong_with_its_inputs():
    ask, _, program = rag(Search.apply)
    report = Loss([row(program, None, q="where")], ScriptedCritic()).backward()
    assert report.calls == 2
    assert texts(ask.instruction) == ["ask.instruction: 'rivers in France' found 2 wrong documents: answer.docs: wrong"]


def test_it_is_a_node_between_the_calls():
    _, _, program = rag(Search.apply)
    _, tape = run(program, q="where")
    assert [(node.path, node.kind) for node in tape.nodes] == [
        ("ask", "lm"),
        ("Search", "function"),
        ("answer", "lm"),
    ]
    assert [edge.kind for edge in edges(tape)] == ["exact"] * 3
    assert tape.nodes[1].inputs == {"query": "rivers in France"}


def test_without_recording_it_is_a_plain_call():
    seen = []

    class Look(Function):
        @staticmethod
        def forward(ctx, a, *, b=0):
            seen.append(ctx.needs_input_grad)
            return f"{a}{b}"

        @staticmethod
        def backward(ctx, grad):
            return grad

    with no_grad():
        result = Look.apply("x", b=1)
    assert type(result) is Text
    assert (result, result.grad_fn) == ("x1", None)
    run(lambda: Look.apply("x", b=1))
    assert seen == [(False, False), (True, True)]


def test_each_output_gets_what_is_said_of_it():
    a, b = Call("a", lambda: "one text of a"), Call("b", lambda: "another one of b")
    c, d = Call("c", lambda x: "see"), Call("d", lambda x: "dee")

    def program():
        left, right = Halves.apply(a().out, b().out)
        return [c(x=left).out, d(x=right).out]

    Loss([row(program, None)], ScriptedCritic()).backward()
    assert texts(a.instruction) == ["a.instruction: left: c.x: wrong"]
    assert texts(b.instruction) == ["b.instruction: right: d.x: wrong"]


def test_an_output_that_nobody_blames_has_no_gradient():
    a, b, c = Call("a", lambda: "text of a"), Call("b", lambda: "text of b"), Call("c", lambda x: "see")
    Loss([row(lambda: c(x=Halves.apply(a().out, b().out)[0]).out, None)], ScriptedCritic()).backward()
    assert len(texts(a.instruction)) == 1
    assert texts(b.instruction) == []


def test_no_blame_passes_through_a_non_differentiable_output():
    class Split(Function):
        @staticmethod
        def forward(ctx, text):
            kept, noted = text.upper(), f"a note on the length {len(text)}"
            ctx.mark_non_differentiable(noted)
            return kept, noted

        @staticmethod
        def backward(ctx, grad, nothing):
            assert nothing is None
            return grad

    a, c = Call("a", lambda: "a text of several words"), Call("c", lambda x: "see")
    loss = Loss([row(lambda: c(x=Split.apply(a().out)[1]).out, None)], ScriptedCritic())
    kinds = {edge.kind for edge in edges(loss.rows[0].tape) if edge.source.path == "Split"}
    assert kinds == {"order"}, "of the other output, which nothing used"
    loss.backward()
    assert texts(a.instruction) == ["a.instruction: wrong"]


@pytest.mark.parametrize("kind", [str, list, len])
def test_no_edge_leaves_a_call_all_of_whose_outputs_are_marked(kind):
    class Marked(Function):
        @staticmethod
        def forward(ctx, text):
            out = "second thing " + text
            out = [out] if kind is list else kind(out)
            ctx.mark_non_differentiable(out)
            return out

        @staticmethod
        def backward(ctx, grad):
            raise AssertionError("nobody is to be blamed")

    a, c = Call("a", lambda: "a text of several words"), Call("c", lambda x: "see")
    for program in (lambda: Marked.apply(a().out), lambda: c(x=f"given {Marked.apply(a().out)}, what?").out):
        loss = Loss([row(program, None)], ScriptedCritic())
        assert not [edge for edge in edges(loss.rows[0].tape) if getattr(edge.source, "path", "") == "Marked"]
        loss.backward()
    assert texts(a.instruction) == []
    assert texts(c.instruction) == ["c.instruction: wrong"]


def test_a_parameter_is_an_input_like_any_other():
    style = Parameter("formal", "description", requires_grad=True)

    class Styled(Function):
        @staticmethod
        def forward(ctx, text, style):
            assert style == "formal"
            return f"{text} ({style})"

        @staticmethod
        def backward(ctx, grad):
            return None, f"too {style.data}: {grad}"

    Loss([row(lambda: Styled.apply("hello", style), None)], ScriptedCritic()).backward()
    assert texts(style) == ["too formal: wrong"]


def test_asynchronous_forward_and_backward():
    class Later(Function):
        @staticmethod
        async def forward(ctx, query):
            await asyncio.sleep(0)
            return [f"found for {query}"]

        @staticmethod
        async def backward(ctx, grad):
            await asyncio.sleep(0)
            return f"later: {grad}"

    ask, answer, _ = rag(None)

    async def program(q):
        return answer(docs=await Later.apply(ask(q=q).out)).out

    loss = Loss([row(lambda q: aio.run(program(q)), None, q="where")], ScriptedCritic())
    loss.backward(retain_graph=True)
    asyncio.run(loss.abackward())
    assert texts(ask.instruction) == ["ask.instruction: later: answer.docs: wrong"] * 2


@pytest.mark.parametrize(
    ("returned", "message"), [(("a", "b", "c"), "returned 3 gradients"), (ValueError("own bug"), "own bug")]
)
def test_a_backward_that_fails_is_reported_and_the_rest_goes_on(returned, message):
    class Wrong(Function):
        @staticmethod
        def forward(ctx, query):
            return f"{query}!"

        @staticmethod
        def backward(ctx, grad):
            if isinstance(returned, Exception):
                raise returned
            return returned

    ask, answer, program = rag(Wrong.apply)
    with pytest.warns(UserWarning, match="the backward rule of Wrong failed"):
        report = Loss([row(program, None, q="where")], ScriptedCritic()).backward()
    assert message in report.skipped[0].reason
    assert len(texts(answer.instruction)) == 1
    assert texts(ask.instruction) == []


def test_what_forward_raises_is_the_nodes_error():
    class Fails(Function):
        @staticmethod
        def forward(ctx, query):
            raise LookupError("no such river")

        @staticmethod
        def backward(ctx, grad):
            return f"ask otherwise: {grad.splitlines()[-1]}"

    ask, _, program = rag(Fails.apply)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Loss([row(program, None, feedback="", raises=LookupError, q="where")], ScriptedCritic()).backward()
    assert texts(ask.instruction) == ["ask.instruction: ask otherwise: LookupError: no such river"]


def test_it_is_not_made_and_has_both_methods():
    with pytest.raises(TypeError, match=r"Search\.apply"):
        Search()
    with pytest.raises(TypeError, match="does not define forward"):
        Function.apply()
    with pytest.raises(TypeError):
        Search.apply("x", nonsense=1)


def test_a_purely_local_backward_needs_no_critic():
    tone = Parameter("calm", "description", requires_grad=True)

    class Use(Function):
        @staticmethod
        def forward(ctx, tone):
            return f"I am {tone}"

        @staticmethod
        def backward(ctx, grad):
            return grad

    report = Loss([row(lambda: Use.apply(tone), None)]).backward()
    assert report.calls == 0
    assert texts(tone) == ["wrong"]
