import copy
import json
import pickle

import pytest

from promptgrad.lm import Completion, ToolCall, Usage
from promptgrad.lm._completion import make_completion, make_usage


def test_usages_add_and_an_unknown_price_stays_unknown():
    one = Usage(1, 10, 5, 0.25, 0, 1.5)
    assert one + Usage(1, 1, 1, 0.5, 2, 0.5) == Usage(2, 11, 6, 0.75, 2, 2.0)
    assert sum([one, one]) == one + one
    assert (one + Usage(usd=None)).usd is None
    assert one.tokens == 15


def test_a_usage_adds_only_to_usages():
    assert Usage().__add__(3) is NotImplemented


def test_a_completion_survives_json_without_its_trace():
    completion = Completion("Paris", Usage(1, 3, 1, None), "m", "length", trace=object())
    back = Completion.from_dict(json.loads(json.dumps(completion.to_dict())))
    assert back == completion
    assert back.trace is None


def test_as_cached_costs_nothing():
    cached = Completion("Paris", Usage(1, 3, 1, 0.5), "m").as_cached()
    assert cached.cached
    assert cached.usage == Usage(cached=1)
    assert Completion.from_dict(cached.to_dict()) == cached


@pytest.mark.parametrize(
    ("made", "same"),
    [
        (make_usage(3, 4, None, 0.5), Usage(1, 3, 4, None, 0, 0.5)),
        (make_usage(3, 4, 0.25, 0.5, 2), Usage(1, 3, 4, 0.25, 0, 0.5, 2)),
        (make_completion("a", Usage(1), "m"), Completion("a", Usage(1), "m")),
        (
            make_completion("", Usage(1), "m", "length", "no"),
            Completion("", Usage(1), "m", "length", refusal="no"),
        ),
        (make_completion((ToolCall("f", "{}"),), Usage(1), "m"), Completion((ToolCall("f", "{}"),), Usage(1), "m")),
    ],
)
def test_what_is_made_in_each_call_is_a_record_as_any(made, same):
    assert type(made) is type(same)
    assert (made, repr(made), made.to_dict()) == (same, repr(same), same.to_dict())
    assert getattr(made, "trace", None) is None
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == same
    first = made.__slots__[0]
    for change in (lambda: setattr(made, first, 1), lambda: delattr(made, first)):
        with pytest.raises(AttributeError):
            change()
