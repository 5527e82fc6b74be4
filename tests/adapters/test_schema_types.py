"""Types from JSON schemas, of servers that may say anything."""

from contextlib import suppress
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptgrad.adapters import Tool
from promptgrad.adapters._schema_types import SchemaTypes
from promptgrad.errors import ToolCallError
from promptgrad.lm import ToolCall


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, str),
        ({"type": ["integer", "null"]}, int | None),
        ({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "number"}}]}, str | list[float]),
        ({"anyOf": [{"type": "string"}, {}]}, Any),
        ({"enum": ["a", "b", None]}, Literal["a", "b", None]),
        ({"const": 3}, Literal[3]),
        ({"type": "object", "additionalProperties": {"type": "boolean"}}, dict[str, bool]),
        ({"type": "array"}, list),
        ({"allOf": [{"$ref": "#/$defs/Name"}]}, str),
        ({"$ref": "#/$defs/a~1b"}, int),
        ({"$ref": "other.json#/x"}, Any),
        ({"type": "decimal"}, Any),
        ({"enum": [[1]]}, Any),
        (True, Any),
    ],
)
def test_what_a_schema_says(schema, kind):
    assert SchemaTypes({"$defs": {"Name": {"type": "string"}, "a/b": {"type": "integer"}}}).of(schema) == kind


def test_a_schema_that_contains_itself_many_times_is_read_in_a_bounded_time():
    loop = {"type": "object", "properties": {str(number): {"$ref": "#"} for number in range(200)}}
    either = {"anyOf": [{"type": "array", "items": {"$ref": "#/anyOf"}}, *[{"$ref": "#"}] * 200]}
    for schema in (loop, either):
        types = SchemaTypes(schema)
        types.of(schema)
        assert types.left >= -201 * 9
        assert Tool(None, name="t", parameters=schema).read(ToolCall("", "t", {"7": {}}))


SCHEMA_WORDS = ["type", "properties", "required", "anyOf", "enum", "const", "items", "$ref", "allOf", "a"]
VALUES = ["string", "integer", "object", "array", "null", "#", "#/properties/a", "a", ""]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(SCHEMA_WORDS), inner, max_size=4),
    max_leaves=12,
)


@given(ANYTHING, ANYTHING)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_schema_raises(schema, value):
    tool = Tool(None, name="t", parameters={"type": "object", "properties": {"a": schema}})
    with suppress(ToolCallError):
        assert tool.read(ToolCall("", "t", {"a": value})).keys() == {"a"}
