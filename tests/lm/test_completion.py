import json

from promptgrad.lm import Completion, Usage


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
