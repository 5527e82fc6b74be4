"""What a model is shown of a value: cut while it is written, however large the value is."""

import itertools
import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from promptgrad.adapters import observed


class Looked(Mapping[str, Any]):
    """A mapping of any size that counts what is read of it."""

    def __init__(self, size: int, value: Any = "word") -> None:
        self.size, self.value, self.read = size, value, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[str]:
        return (f"key{number}" for number in range(self.size))

    def __getitem__(self, key: str) -> Any:
        self.read += 1
        return self.value


def test_the_work_is_bounded_by_what_is_shown() -> None:
    large = Looked(10_000_000)
    text, _ = observed(large, 1_000)
    assert text.startswith('{"key0": "word", "key1": "word", ')
    assert text.endswith("... (cut after 1000 characters)")
    assert len(text) == 1_000 + len("... (cut after 1000 characters)")
    assert large.read <= 60
    nested = Looked(10_000_000, inner := Looked(10_000_000))
    observed([nested] * 1_000, 1_000)
    assert nested.read + inner.read <= 60


def test_what_never_ends_is_shown_by_its_beginning() -> None:
    made = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            made.append(number)
            yield number

    assert observed(numbers(), 12)[0] == "[0, 1, 2, 3,... (cut after 12 characters)"
    assert len(made) <= 6
    assert observed({"found": deque([1, 2])}, 100)[0] == '{"found": [1, 2]}'


def test_a_text_counts_what_is_left_out() -> None:
    assert observed("x" * 1_000_000, 3)[0] == "xxx... (999997 characters more)"
    assert observed(ValueError("y" * 20), 15)[0] == "ValueError: yyy... (17 characters more)"
    assert observed("xyz", 3)[0] == "xyz"


@pytest.mark.parametrize(
    "value", [[], {}, [1, "a\n", None, True, 2.5], {"a": [{"b": "c"}], "d": {}}, [["x"], [[]]], ["\u00e9\u4e2d"]]
)
def test_uncut_it_is_json(value: Any) -> None:
    whole = json.dumps(value, ensure_ascii=False)
    assert observed(value, len(whole))[0] == whole
    if len(whole) > 2:
        assert observed(value, len(whole) - 1)[0] == f"{whole[:-1]}... (cut after {len(whole) - 1} characters)"


def test_a_value_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecursionError, match="more than 64 levels"):
        observed(endless, 1_000)


def test_bytes_are_cut_before_they_are_encoded() -> None:
    assert observed(b"ab", 100)[0] == '"YWI="'
    assert observed(bytes(10_000_000), 10)[0] == '"AAAAAAAAA... (cut after 10 characters)'


def test_sets_are_sorted_whatever_their_items() -> None:
    assert observed({"b", "a", "c"}, 9)[0] == '["a", "b"... (cut after 9 characters)'
    assert observed({frozenset({2, 1})}, 100)[0] == "[[1, 2]]"
