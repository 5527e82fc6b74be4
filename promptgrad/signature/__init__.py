"""The signature of a language-model call: an instruction, and typed inputs and outputs."""

from promptgrad.signature._field import Field, Input, Output
from promptgrad.signature._parser import parse_type
from promptgrad.signature._sets import with_sorted_sets
from promptgrad.signature._signature import Signature, make_signature
from promptgrad.signature._types import is_union, type_name

__all__ = [
    "Field",
    "Input",
    "Output",
    "Signature",
    "is_union",
    "make_signature",
    "parse_type",
    "type_name",
    "with_sorted_sets",
]
