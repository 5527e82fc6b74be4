import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.autograd import Join, Node, Tape, Text, attach, no_grad
from promptgrad.autograd._text import _derive

TAPE = Tape()
A, B = TAPE.node("a"), TAPE.node("b")

words = st.text(max_size=12)
small = st.integers(0, 6)
fill = st.characters()


def unary(name, *arguments):
    return pytest.param(name, st.tuples(*arguments), id=name)


METHODS = [
    unary("capitalize"),
    unary("casefold"),
    unary("center", st.integers(0, 20), fill),
    unary("expandtabs", small),
    unary("ljust", st.integers(0, 20), fill),
    unary("lower"),
    unary("lstrip", st.none() | words),
    unary("removeprefix", words),
    unary("removesuffix", words),
    unary("replace", words, words, st.integers(-1, 3)),
    unary("rjust", st.integers(0, 20), fill),
    unary("rstrip", st.none() | words),
    unary("strip", st.none() | words),
    unary("swapcase"),
    unary("title"),
    unary("translate", st.dictionaries(st.integers(0, 200), st.none() | words)),
    unary("upper"),
    unary("zfill", st.integers(0, 20)),
    unary("__mul__", small),
    unary("__rmul__", small),
    unary("__getitem__", st.builds(slice, st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 5))),
    unary("__add__", words),
    unary("__format__", st.sampled_from(["", ">9", "^7", "<3", ".2"])),
    unary("split", st.none() | st.text(min_size=1, max_size=2), st.integers(-1, 3)),
    unary("rsplit", st.none() | st.text(min_size=1, max_size=2), st.integers(-1, 3)),
    unary("splitlines", st.booleans()),
    unary("partition", st.text(min_size=1, max_size=2)),
    unary("rpartition", st.text(min_size=1, max_size=2)),
]


def check(result, expected, fn):
    if isinstance(expected, (list, tuple)):
        assert type(result) is type(expected)
        assert len(result) == len(expected)
        for one, other in zip(result, expected, strict=True):
            check(one, other, fn)
        return
    assert str(result) == expected
    assert type(result) is Text
    assert result.grad_fn is fn


@pytest.mark.parametrize(("name", "arguments"), METHODS)
@given(data=st.data())
def test_a_method_says_what_str_says_and_keeps_what_produced_it(name, arguments, data):
    value = data.draw(st.text(alphabet="aB c\n\tß%1", max_size=12) | words)
    args = data.draw(arguments)
    expected = getattr(str, name)(value, *args)
    check(getattr(Text(value, A), name)(*args), expected, A)
    check(getattr(Text(value), name)(*args), expected, None)


def test_every_method_of_str_that_gives_text_is_covered():
    """A method that a later Python adds must not silently lose provenance."""
    plain = {"encode", "maketrans", "__str__", "__repr__", "__doc__", "__iter__"}
    covered = {param.values[0] for param in METHODS} | {"format", "format_map", "join", "__mod__", "__rmod__"}
    for name in dir(str):
        if name.startswith(("is", "find", "rfind", "index", "rindex", "count", "starts", "ends")) or name in plain:
            continue
        if not name.startswith("__") or name in (
            "__add__",
            "__mul__",
            "__rmul__",
            "__mod__",
            "__rmod__",
            "__getitem__",
        ):
            assert name in covered, f"str.{name} is not overridden"
            assert name in vars(Text), f"str.{name} is not overridden"


@given(words, words)
def test_adding_remembers_both_sides_in_order(left, right):
    a, b = Text(left, A), Text(right, B)
    assert str(a + b) == left + right
    assert (a + b).grad_fn.sources == (A, B)
    assert (b + a).grad_fn.sources == (B, A)
    assert (left + b).grad_fn is B
    assert type(left + b) is Text
    assert (a + right).grad_fn is A
    assert (a + a).grad_fn is A
    assert (Text(left) + Text(right)).grad_fn is None


@given(st.lists(st.tuples(words, st.sampled_from([None, A, B])), max_size=5))
def test_joining_remembers_each_part_once_in_order(parts):
    values = [Text(value, fn) if fn else value for value, fn in parts]
    result = Text(", ").join(values)
    assert str(result) == ", ".join(value for value, _ in parts)
    producers = list(dict.fromkeys(fn for _, fn in parts if fn))
    if len(producers) > 1:
        assert isinstance(result.grad_fn, Join)
        assert list(result.grad_fn.sources) == producers
    else:
        assert [result.grad_fn] == (producers or [None])


def test_formatting_remembers_template_and_arguments():
    a, b = Text("x", A), Text("y", B)
    assert Text("{} and {k}").format(a, k=b).grad_fn.sources == (A, B)
    assert Text("{k}", A).format_map({"k": b}).grad_fn.sources == (A, B)
    assert (Text("%s-%s") % (a, b)).grad_fn.sources == (A, B)
    assert (Text("%(k)s", A) % {"k": b}).grad_fn.sources == (A, B)
    assert ("<%s>" % b).grad_fn is B  # noqa: UP031 - the operator is what is tested
    assert Text("ab", A).replace("a", b).grad_fn.sources == (A, B)
    assert str(Text("{:>3}|{}").format(a, 2)) == "  x|2"


def test_an_f_string_of_one_text_keeps_it_and_of_more_gives_a_plain_string():
    a = Text("x", A)
    assert f"{a}".grad_fn is A
    assert type(f"{a}!") is str


def test_str_sheds_the_graph():
    assert type(str(Text("x", A))) is str


def test_wrong_operands_are_refused_as_by_str():
    for act in (lambda: Text("a") + 1, lambda: 1 + Text("a"), lambda: Text("a") * "b"):
        with pytest.raises(TypeError):
            act()
    with pytest.raises(TypeError, match="not all arguments converted"):
        Text("a") % (1,)


@given(words)
def test_it_is_a_string_to_everyone_else(value):
    text = Text(value, A)
    assert text == value
    assert hash(text) == hash(value)
    assert repr(text) == repr(value)
    assert {value: 1}[text] == 1
    assert json.dumps({"k": text}) == json.dumps({"k": value})
    assert sorted([text, "m"]) == sorted([value, "m"])
    assert text.encode("utf-8", "surrogatepass") == value.encode("utf-8", "surrogatepass")


@given(words)
def test_copies_and_pickles_carry_the_text_and_not_the_graph(value):
    text = Text(value, A)
    for twin in (copy.deepcopy(text), pickle.loads(pickle.dumps(text)), copy.deepcopy([text])[0], text.detach()):
        assert twin == text
        assert type(twin) is Text
        assert twin.grad_fn is None
    assert copy.copy(text) is text
    assert len(pickle.dumps(text)) < len(pickle.dumps(value)) + 120


def test_a_text_of_a_text_keeps_its_producer_unless_told_otherwise():
    assert Text(Text("x", A)).grad_fn is A
    assert Text(Text("x", A), B).grad_fn is B
    assert Text(3) == "3"


def test_under_no_grad_results_have_no_graph():
    a, b = Text("x", A), Text("y", B)
    with no_grad():
        assert a.strip().grad_fn is None
        assert (a + b).grad_fn is None
        assert type(a.strip()) is Text
        assert a.grad_fn is A


def test_ten_thousand_additions_are_no_recursion_problem():
    text = Text("", A)
    for i in range(10_000):
        text = text + Text("x", (A, B)[i % 2])
    assert len(text) == 10_000
    assert isinstance(text.grad_fn, Join)
    copy.deepcopy(text)
    assert repr(text.grad_fn) == "<Join of 2>"


class TestAttach:
    def test_strings_become_texts_wherever_they_are(self):
        value = {"a": "x", "b": ["y", {"c": ("z", 1)}], "n": 3, "none": None}
        result = attach(value, A)
        assert result == value
        assert result["a"].grad_fn is A
        assert result["b"][0].grad_fn is A
        assert result["b"][1]["c"][0].grad_fn is A
        assert result["n"] == 3

    def test_the_fields_of_pydantic_objects_too(self):
        pydantic = pytest.importorskip("pydantic")

        class City(pydantic.BaseModel):
            name: str
            people: int

        class Country(pydantic.BaseModel):
            capital: City
            other: list[City]

        country = Country(capital={"name": "Paris", "people": 2}, other=[{"name": "Lyon", "people": 1}])
        dumped = country.model_dump_json()
        assert attach(country, A) is country
        assert country.capital.name.grad_fn is A
        assert country.other[0].name.grad_fn is A
        assert country.model_dump_json() == dumped
        assert country.model_copy().capital.name.grad_fn is A

    def test_a_text_of_somebody_else_becomes_the_producers(self):
        assert attach(Text("x", A), B).grad_fn is B

    def test_without_a_node_texts_are_texts_all_the_same(self):
        assert type(attach("x", None)) is Text
        assert attach("x", None).grad_fn is None


def test_nodes_have_a_repr_worth_reading():
    tape = Tape()
    tape.node("solve", module_name="Predict")
    assert repr(tape.node("solve", module_name="Predict")) == "<Predict solve[1]>"
    assert isinstance(A, Node)
    assert _derive("x", A).grad_fn is A


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}, lambda value: (value,)])
@pytest.mark.parametrize(("deep", "kind"), [(32, Text), (34, str)])
def test_texts_below_32_containers_are_left_as_they_are(wrap, deep, kind):
    value = "x"
    for _ in range(deep):
        value = wrap(value)
    found = attach(value, None)
    for _ in range(deep):
        (found,) = found.values() if isinstance(found, dict) else found
    assert type(found) is kind
