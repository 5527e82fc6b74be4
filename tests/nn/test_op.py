import asyncio
import copy
import functools

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.autograd import Parameter, edges, graph, register_rule
from promptgrad.data import Example
from promptgrad.errors import AsyncUsageError


class Scripted:
    """Blames everything it is asked about."""

    def __init__(self):
        self.asked = []

    async def critique(self, failure):
        self.asked.append(failure)
        return {target.name: f"{target.name}: {' & '.join(failure.feedback)}" for target in failure.targets}


@pg.op(kind="retriever")
def search(query: str, k: int = 2) -> list[str]:
    """Find paragraphs of the manual."""
    return [f"paragraph {number} speaks about other things entirely" for number in range(k)]


class Rag(nn.Module):
    def __init__(self, tool):
        super().__init__()
        self.ask = nn.Predict("question -> query")
        self.answer = nn.Predict("documents: list[str] -> answer")
        self.tool = tool
        self.to(lm.FunctionLM(reply))

    def forward(self, question):
        return self.answer(documents=self.tool(self.ask(question=question).query))


def reply(messages):
    return "[[ ## query ## ]]\nrivers" if "question" in messages[-1]["content"] else "[[ ## answer ## ]]\nRouen"


def backward(program, **kwargs):
    critic = Scripted()
    example = Example(question="where", answer="Paris").with_inputs("question")
    loss = nn.MetricLoss(lambda example, output: pg.Score(0.0, feedback="wrong"), critic=critic)
    return loss(program.map([example]), [example]), critic


def said(parameter):
    return [] if parameter.grad is None else [critique.text for critique in parameter.grad.critiques]


def test_a_retriever_tells_its_query():
    program = Rag(search)
    loss, critic = backward(program)
    assert [edge.kind for edge in edges(loss.rows[0].tape)] == ["exact"] * 3
    assert [repr(node) for node in graph(loss).nodes] == ["<Predict ask[0]>", "<Op tool[0]>", "<Predict answer[0]>"]
    loss.backward()
    assert len(critic.asked) == 2
    assert said(program.ask.instruction) == [
        "instruction: the search for 'rivers' did not find what was needed: documents: wrong (it found 'paragraph 0 "
        "speaks about other things entirely'; 'paragraph 1 speaks about other things entirely')"
    ]


def test_it_is_a_plain_call_where_nothing_records():
    assert search("x", k=1) == ["paragraph 0 speaks about other things entirely"]
    assert search.__name__ == "search"
    assert repr(search).startswith("Op(search(query: str, k: int = 2) -> ")


def test_its_description_is_a_parameter_only_on_request():
    assert search.description.data == "Find paragraphs of the manual."
    assert search.description.kind == "description"
    assert not search.description.requires_grad
    tool = pg.op(search.function, trainable=True)
    program = Rag(tool)
    assert "tool.description" in dict(program.named_parameters())
    loss, _ = backward(program)
    loss.backward()
    assert said(tool.description) == ["documents: wrong"]
    assert said(search.description) == []


def test_a_description_shown_in_a_prompt_gets_what_is_said_of_that_prompt():
    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.tool = pg.op(search.function, description="Look things up in the manual.", trainable=True)
            self.choose = nn.Predict("tools, question -> query")
            self.to(lm.FunctionLM(reply))

        def forward(self, question):
            return self.choose(tools=f"- {self.tool.__name__}: {self.tool.description.data}", question=question).query

    program = Agent()
    loss, _ = backward(program)
    loss.backward()
    assert said(program.tool.description) == ["tools: wrong"]


def test_what_it_raises_is_told_to_its_inputs():
    @pg.op
    def look_up(key):
        raise KeyError("no such river")

    program = Rag(look_up)
    loss, _ = backward(program)
    loss.backward()
    (text,) = said(program.ask.instruction)
    assert text.startswith("instruction: tool failed with KeyError: 'no such river', given key='rivers'.")


def test_a_backward_of_its_own():
    tool = pg.op(search.function, backward=lambda passing: {"query": f"shorter, {len(passing.feedback)}"})
    program = Rag(tool)
    backward(program)[0].backward()
    assert said(program.ask.instruction) == ["instruction: shorter, 1"]

    async def later(passing):
        await asyncio.sleep(0)
        return "one text for all"

    program = Rag(pg.op(search.function, backward=later))
    backward(program)[0].backward()
    assert said(program.ask.instruction) == ["instruction: one text for all"]


def test_a_registered_rule_holds_until_it_is_removed():
    with register_rule("retriever", lambda passing: {"query": "as registered"}):
        program = Rag(search)
        backward(program)[0].backward()
        assert said(program.ask.instruction) == ["instruction: as registered"]
    program = Rag(search)
    backward(program)[0].backward()
    assert "did not find" in said(program.ask.instruction)[0]


def test_an_async_function():
    @pg.op
    async def find(query):
        await asyncio.sleep(0)
        return [f"found {query}"]

    assert find("x") == ["found x"]
    assert asyncio.run(find.acall("x")) == ["found x"]
    program = Rag(find)
    loss, _ = backward(program)
    loss.backward()
    assert said(program.ask.instruction) == ["instruction: documents: wrong"]


async def look_up(query):
    await asyncio.sleep(0)
    if not query:
        raise LookupError("nothing is asked")
    return [f"found {query}"]


def test_a_plain_function_that_calls_an_async_one():
    find = pg.op(lambda query: look_up(query))
    assert find("x") == asyncio.run(find.acall("x")) == ["found x"]
    with pytest.raises(LookupError):
        find("")
    program = Rag(find)
    loss, _ = backward(program)
    loss.backward()
    assert said(program.ask.instruction) == ["instruction: documents: wrong"]

    class Program(nn.Module):
        async def forward(self, query):
            return find(query)

    with pytest.raises(AsyncUsageError, match=r"write `await <lambda>\.acall\(\.\.\.\)`"):
        Program()("q")


def test_a_plain_op_may_be_called_in_an_async_forward():
    class Later(Rag):
        async def forward(self, question):
            query = (await self.ask.acall(question=question)).query
            return await self.answer.acall(documents=self.tool(query))

    program = Later(search)
    loss, _ = backward(program)
    loss.backward()
    assert len(said(program.ask.instruction)) == 1


def test_outside_of_a_program_it_is_called_by_its_name():
    class Free(nn.Module):
        def __init__(self):
            super().__init__()
            self.answer = nn.Predict("documents: list[str] -> answer")
            self.to(lm.FunctionLM(reply))

        def forward(self, question):
            return self.answer(documents=search(question))

    loss, _ = backward(Free())
    assert [node.path for node in loss.rows[0].tape.nodes] == ["search", "answer"]


def test_slips():
    with pytest.raises(TypeError, match="modules are recorded as they are"):
        pg.op(Rag(search))
    with pytest.raises(TypeError, match="op takes a function"):
        pg.op("search")
    shared = Parameter("what", "description")
    assert pg.op(len, description=shared).description is shared
    assert copy.deepcopy(search)("x") == search("x")


def test_a_method_is_refused_with_the_way_to_write_it():
    class Program(nn.Module):
        plain = pg.op(lambda query: query + "!")

        def __init__(self):
            super().__init__()
            self.find = pg.op(self._find)

        @pg.op(kind="retriever")
        def search(self, query):
            return query

        @staticmethod
        @pg.op
        def outer(query):
            return query

        @pg.op
        @staticmethod
        def inner(query):
            return query

        def _find(self, query):
            return query, self

        def forward(self, query):
            return self.plain(self.outer(self.inner(query)))

    program = Program()
    with pytest.raises(TypeError, match=r"Program\.search is a method.*self\.search = promptgrad\.op\(self\._search\)"):
        program.search("q")
    assert isinstance(Program.search, nn.Op)
    assert program("q") == "q!"
    assert copy.deepcopy(program).find("q")[1] is not program
    assert [path for path, _ in program.named_modules()] == ["", "find"]


def test_builtins_and_partials_are_functions_too(scripted):
    class Longest(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Predict("question -> answer", instruction="One.")
            self.longest = pg.op(max)

        def forward(self, question):
            return self.longest(self.one(question=question).answer, question, key=len)

    program = Longest().to(scripted(lambda question: {"answer": question * 2}))
    output = program("ab")
    assert output == "abab"
    found = edges(output.grad_fn.tape)
    assert "args" in [edge.field for edge in found if edge.kind == "exact" and "one" in repr(edge.source)]

    def join(left, right):
        """Join two words."""
        return left + right

    made = pg.op(functools.partial(functools.partial(join), "x"))
    assert made("y") == "xy"
    assert made.__name__ == "join"
    assert made.description.data == "Join two words."


def test_a_generator_is_refused():
    def rows(query):
        yield query

    async def later(query):
        yield query

    for function in (rows, later, functools.partial(rows, "q")):
        with pytest.raises(TypeError, match=r"(rows|later) is a generator function: return a list"):
            pg.op(function)


def test_an_async_op_called_without_await_says_what_to_write():
    @pg.op
    async def look(query):
        return query

    class Program(nn.Module):
        async def forward(self, query):
            return look(query)

    assert repr(look).startswith("AsyncOp(look(query)")
    with pytest.raises(AsyncUsageError, match=r"write `await look\.acall\(\.\.\.\)`"):
        Program()("q")
