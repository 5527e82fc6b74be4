"""`Tool`: which functions are tools, how they are run, and what a model is shown of them."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import threading
from typing import Annotated, Any, ClassVar

import pydantic
import pytest

import promptgrad as pg
from promptgrad.adapters import Tool
from promptgrad.errors import BudgetExceeded, SignatureError, ToolCallError, ToolTimeoutError
from promptgrad.lm import ToolCall, ToolResult
from tests.waiting import until


class Filter(pydantic.BaseModel):
    year: int
    tags: list[str] = []


def google(query: str, k: int = 3) -> str:
    """Find pages.

    The best come first.

    Args:
        query: What to look for.
        k (int): How many,
            at most.

    Returns:
        Their addresses.
    """
    return f"{query}/{k}"


def numpy(query: str, k: int = 3) -> str:
    """Find pages.

    The best come first.

    Parameters
    ----------
    query : str
        What to look for.
    k : int, optional
        How many,
        at most.

    Returns
    -------
    str
        Their addresses.
    """
    return f"{query}/{k}"


def sphinx(query: str, k: int = 3) -> str:
    """Find pages.

    The best come first.

    :param query: What to look for.
    :param int k: How many,
        at most.
    :returns: Their addresses.
    """
    return f"{query}/{k}"


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("c1", name, arguments)


@pytest.mark.parametrize("function", [google, numpy, sphinx])
def test_docstrings_of_three_styles(function: Any) -> None:
    tool = Tool(function)
    assert tool.description == "Find pages.\n\nThe best come first."
    assert {key: field.description for key, field in tool.fields.items()} == {
        "query": "What to look for.",
        "k": "How many, at most.",
    }


def test_a_docstring_that_is_none_of_them_is_the_description() -> None:
    def odd(text: str) -> str:
        """Note: keep it.

        Args:
          no colon here
        """
        return text

    assert Tool(odd).description == "Note: keep it.\n\nArgs:\n  no colon here"
    assert Tool(lambda: 1, name="bare").description == ""


class Shop:
    """A shop."""

    def __init__(self, stock: dict[str, int]) -> None:
        self.stock = stock

    def count(self, item: str) -> int:
        """How many there are.

        Args:
            item: Its name.
        """
        return self.stock[item]

    @staticmethod
    def hours(day: str) -> str:
        """When it is open."""
        return f"{day}: 9 to 5"

    @classmethod
    def name(cls, upper: bool) -> str:
        """Its name."""
        return cls.__name__.upper() if upper else cls.__name__

    async def order(self, item: str, filter: Filter) -> str:
        """Order an item."""
        return f"{item} of {filter.year}"

    def __call__(self, item: str) -> str:
        """Sell an item.

        :param item: Its name.
        """
        return f"sold {item}"


def price(item: str, currency: str, key: str, rate: float = 1.0) -> str:
    """The price of an item."""
    return f"{item}: {rate} {currency} ({key})"


shop = Shop({"pear": 3})
wrapped = pydantic.validate_call(price)


@pytest.mark.parametrize(
    ("function", "name", "about", "arguments", "given", "result"),
    [
        (shop.count, "count", "How many there are.", ["item"], {"item": "pear"}, 3),
        (Shop.hours, "hours", "When it is open.", ["day"], {"day": "Monday"}, "Monday: 9 to 5"),
        (Shop.name, "name", "Its name.", ["upper"], {"upper": "yes"}, "SHOP"),
        (
            shop.order,
            "order",
            "Order an item.",
            ["item", "filter"],
            {"item": "a", "filter": '{"year": "1999"}'},
            "a of 1999",
        ),
        (shop, "Shop", "Sell an item.", ["item"], {"item": "pear"}, "sold pear"),
        (
            functools.partial(price, currency="EUR", key="secret"),
            "price",
            "The price of an item.",
            ["item", "rate"],
            {"item": "pear", "rate": "2"},
            "pear: 2.0 EUR (secret)",
        ),
        (
            functools.partial(shop.order, filter=Filter(year=1)),
            "order",
            "Order an item.",
            ["item"],
            {"item": "a"},
            "a of 1",
        ),
        (
            functools.partial(functools.partial(price, "pear"), key="k"),
            "price",
            "The price of an item.",
            ["currency", "rate"],
            {"currency": "EUR"},
            "pear: 1.0 EUR (k)",
        ),
        (
            wrapped,
            "price",
            "The price of an item.",
            ["item", "currency", "key", "rate"],
            {"item": "a", "currency": "b", "key": "c"},
            "a: 1.0 b (c)",
        ),
        (Filter, "Filter", "", ["year", "tags"], {"year": "1999"}, Filter(year=1999)),
    ],
)
def test_whatever_can_be_called(
    function: Any, name: str, about: str, arguments: list[str], given: dict[str, Any], result: Any
) -> None:
    tool = Tool(function)
    assert (tool.name, tool.description, list(tool.fields)) == (name, about, arguments)
    assert tool.run(call(name, **given)) == result
    assert asyncio.run(tool.arun(call(name, **given))) == result
    assert "secret" not in str(tool.to_dict())


def test_a_method_without_its_object_is_no_tool() -> None:
    with pytest.raises(SignatureError, match=r"pass the method of an object"):
        Tool(Shop.count)


def test_descriptions_beside_types_and_what_the_model_does_not_see() -> None:
    def find(
        query: Annotated[str, "What to look for."],
        k: Annotated[int, pydantic.Field(ge=1, description="How many.")] = 3,
        session=None,
        _cache: dict[str, str] | None = None,
    ) -> str:
        return f"{query} {k} {session}"

    tool = Tool(find)
    assert {key: field.description for key, field in tool.fields.items()} == {
        "query": "What to look for.",
        "k": "How many.",
    }
    assert list(tool.to_dict()["parameters"]["properties"]) == ["query", "k"]
    assert tool.run(call("find", query="x")) == "x 3 None"
    with pytest.raises(ToolCallError, match="`k`"):
        tool.read(call("find", query="x", k=0))


def test_a_plain_function_runs_in_a_thread_and_an_async_one_on_the_loop() -> None:
    def here() -> str:
        return threading.current_thread().name

    async def there() -> str:
        return threading.current_thread().name

    assert Tool(here).run(call("here")) != threading.current_thread().name
    assert Tool(there).run(call("there")) == "promptgrad-program"

    async def main() -> tuple[str, str]:
        return await Tool(here).arun(call("here")), await Tool(there).arun(call("there"))

    plain, coroutine = asyncio.run(main())
    assert plain != coroutine == threading.current_thread().name


def test_a_tool_may_call_a_program_of_its_own() -> None:
    inner = pg.nn.Predict("word -> answer", adapter="chat")
    inner.to(pg.lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\nfine", name="inner"))

    def ask(word: str) -> str:
        return inner(word=word).answer

    assert Tool(ask, timeout=60).run(call("ask", word="x")) == "fine"
    assert Tool(ask).result(call("ask", word="x")) == ToolResult("c1", "fine")


class TestTime:
    def test_an_async_tool_is_cancelled(self) -> None:
        ended = []

        async def hang(number: int) -> int:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(number)
            return number

        with pytest.raises(ToolTimeoutError, match=r"`hang` gave no result within 0.01 seconds") as caught:
            Tool(hang, timeout=0.01).run(call("hang", number=3))
        assert ended == [3]
        assert (caught.value.tool, caught.value.seconds) == ("hang", 0.01)
        assert isinstance(caught.value, TimeoutError)

    def test_threads_that_are_left_behind_are_bounded_and_come_back(self) -> None:
        gate = threading.Event()
        calls = []

        def hang(number: int) -> int:
            calls.append(number)
            gate.wait(60)
            return number

        tool = Tool(hang, timeout=0.01)
        other = tool.replace(name="other")  # it calls the same function
        both = [tool, other] * 6
        results = [one.result(call(one.name, number=number)) for number, one in enumerate(both)]
        assert all(result.is_error for result in results)
        until(lambda: len(calls) == 8)  # the last thread may only begin now
        assert "gave no result within" in str(results[7].content)
        assert "was not called: 8 earlier calls of it run on" in str(results[8].content)
        gate.set()
        until(lambda: tool._left.count == 0)
        assert tool.replace(timeout=60).run(call("hang", number=99)) == 99

    def test_a_result_in_time_is_a_result(self) -> None:
        assert Tool(google, timeout=60).run(call("google", query="x")) == "x/3"
        assert asyncio.run(Tool(shop.count, timeout=60).acall(item="pear")) == 3
        with pytest.raises(KeyError):
            Tool(shop.count, timeout=60).run(call("count", item="plum"))

    @pytest.mark.parametrize("timeout", [0, -1, float("nan")])
    def test_a_time_is_above_zero(self, timeout: float) -> None:
        with pytest.raises(ValueError, match="timeout"):
            Tool(google, timeout=timeout)


class TestResults:
    def test_a_result_is_text_json_or_an_error(self) -> None:
        def make(kind: str) -> Any:
            if kind == "error":
                raise LookupError("it has sunk")
            return {"text": "plain", "set": {"b", "a"}, "model": Filter(year=1), "none": None, "bytes": b"ab"}[kind]

        tool = Tool(make)
        shown = {
            kind: tool.result(call("make", kind=kind)) for kind in ("text", "set", "model", "none", "bytes", "error")
        }
        assert {kind: result.content for kind, result in shown.items()} == {
            "text": "plain",
            "set": '["a", "b"]',
            "model": '{"year": 1, "tags": []}',
            "none": "null",
            "bytes": '"YWI="',
            "error": "LookupError: it has sunk",
        }
        assert [kind for kind, result in shown.items() if result.is_error] == ["error"]
        misfit = tool.result(call("make", kinds="x"))
        assert misfit.is_error
        assert "no argument `kinds`; it has `kind`" in str(misfit.content)
        assert tool.result(call("other")).is_error

    def test_a_result_is_cut_and_says_so(self) -> None:
        def read(size: int) -> str:
            return "x" * size

        assert Tool(read, max_chars=5).result(call("read", size=8)).content == "xxxxx... (3 characters more)"
        assert Tool(read).result(call("read", size=3_000_000)).content == "x" * 10_000 + "... (2990000 characters more)"
        for wrong in (0, True, 1.5):
            with pytest.raises(ValueError, match="max_chars"):
                Tool(read, max_chars=wrong)  # type: ignore[arg-type]

    def test_what_ends_a_run_is_no_result(self) -> None:
        def pay() -> None:
            raise BudgetExceeded("no calls left")

        with pytest.raises(BudgetExceeded):
            Tool(pay).result(call("pay"))

    def test_images_stay_parts(self) -> None:
        picture = pg.Image(b"\x89PNG\r\n\x1a\n" + bytes(20))

        def draw(several: bool) -> Any:
            return ["First:", picture] if several else picture

        text, part = Tool(draw).result(call("draw", several=True)).content
        assert (str(text), part) == (f"First:\n{picture}", picture)
        assert Tool(draw).result(call("draw", several=False)).content == (pg.lm.TextPart(str(picture)), picture)


def test_replace_keeps_the_function_and_what_is_known_of_it() -> None:
    tool = Tool(google, timeout=3, max_chars=10)
    other = tool.replace(name="find", description="Finds.", timeout=None, trainable=True)
    assert (other.name, other.description, other.timeout, other.max_chars) == ("find", "Finds.", None, 10)
    assert other.parameters is tool.parameters
    assert (tool.name, tool.trainable) == ("google", False)
    assert other.run(call("find", query="x", k=1)) == "x/1"
    with pytest.raises(TypeError, match="'function' of a tool cannot be replaced"):
        tool.replace(function=numpy)
    with pytest.raises(SignatureError, match="a tool has a name"):
        tool.replace(name="a b")


def test_a_tool_can_be_copied_and_pickled() -> None:
    tool = Tool(google, timeout=3)
    assert copy.deepcopy(tool) == tool == pickle.loads(pickle.dumps(tool))


class TestSchemas:
    """Tools that are declared by a JSON schema, as those of a server are."""

    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What."},
            "k": {"type": "integer"},
            "kind": {"enum": ["web", "news"]},
            "from": {"type": ["number", "null"]},
            "filter": {"$ref": "#/$defs/Filter"},
            "days": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["query"],
        "$defs": {
            "Filter": {
                "type": "object",
                "properties": {"year": {"type": "integer"}, "inner": {"$ref": "#/$defs/Filter"}},
                "required": ["year"],
            }
        },
    }

    def test_arguments_are_mended_as_those_of_a_function(self) -> None:
        tool = Tool(None, name="search", parameters=self.SCHEMA)
        given = {
            "query": "x",
            "k": "5",
            "kind": "News",
            "from": "3.5",
            "filter": '{"Year": "1999", "inner": {"year": 1}}',
            "days": "[1, '2']",
        }
        assert tool.read(call("search", **given)) == {
            "query": "x",
            "k": 5,
            "kind": "news",
            "from": 3.5,
            "filter": {"year": 1999, "inner": {"year": 1}},
            "days": [1, 2],
        }
        assert tool.checked(call("search", query="x", k="5")).kwargs == {"query": "x", "k": 5}
        assert tool.to_dict()["parameters"] == self.SCHEMA
        assert tool.fields["query"].description == "What."
        for wrong, words in (({"k": "many"}, "`k`"), ({"from": "often"}, "`from`"), ({"to": 1}, "no argument `to`")):
            with pytest.raises(ToolCallError, match=words):
                tool.read(call("search", query="x", **wrong))

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "string"},
            {"properties": ["query"]},
            {"type": "object", "properties": {"query": "text", "k": {"type": "integr"}}, "required": "query"},
            {"properties": {"k": {"$ref": "#/$defs/Nothing"}, "j": {"$ref": "http://example.org/x"}}, "required": [1]},
            {
                "properties": {
                    "k": {"type": [], "enum": []},
                    "l": {"anyOf": []},
                    "m": {"const": {"a": 1}},
                    "n": {"allOf": [{}, {}]},
                }
            },
            {"properties": {"k": {"type": "object", "properties": {"k": {"$ref": "#"}}}}},
            {
                "properties": {
                    "k": {"enum": list(range(5000))},
                    "l": {"type": "object", "properties": {"": {"type": "string"}, "a b": {}}},
                }
            },
        ],
    )
    def test_a_schema_that_says_nonsense_is_taken_for_what_it_says(self, schema: dict[str, Any]) -> None:
        tool = Tool(None, name="search", parameters=schema)
        parameters = tool.to_dict()["parameters"]
        assert parameters["type"] == "object"
        assert isinstance(parameters["properties"], dict)
        known = next(iter(parameters["properties"]), "anything")
        assert tool.read(call("search", **{known: {"k": {}}})) == {known: {"k": {}}}

    def test_descriptions_may_be_given(self) -> None:
        tool = Tool(None, name="search", parameters=self.SCHEMA, arguments={"k": "How many."})
        assert tool.to_dict()["parameters"]["properties"]["k"] == {"type": "integer", "description": "How many."}
        assert "description" not in self.SCHEMA["properties"]["k"]
        with pytest.raises(SignatureError, match="has no argument 'page'"):
            Tool(None, name="search", parameters=self.SCHEMA, arguments={"page": "Which."})
