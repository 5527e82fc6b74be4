import pytest

from promptgrad.lm._prices import cost, find_prices


def test_known_and_unknown_models():
    assert find_prices("openai/gpt-4o-mini") == pytest.approx((0.15, 0.6, 0.075))
    assert find_prices("gpt-4o-mini") == pytest.approx((0.15, 0.6, 0.075))
    assert find_prices("hosted_vllm/gpt-4o-mini") is None
    assert find_prices("mine") is None


def test_cost():
    assert cost((2.0, 4.0), 1_000_000, 500_000) == 4.0
    assert cost((2.0, 4.0, 0.5), 1_000_000, 500_000, 400_000) == pytest.approx(3.4)
    assert cost(None, 1, 1) is None
    assert cost((0.0, 0.0), 5, 5) == 0.0


def test_without_litellm_no_price_is_known(monkeypatch):
    from promptgrad.lm import _prices

    _prices._read_table.cache_clear()
    monkeypatch.setattr(_prices, "find_spec", lambda name: None)
    assert find_prices("openai/gpt-4o-mini") is None
    _prices._read_table.cache_clear()


def test_a_table_that_cannot_be_read_is_an_unknown_price_and_is_read_later(monkeypatch):
    from promptgrad.lm import _prices

    def broken(*args, **kwargs):
        raise OSError("too many open files")

    _prices._read_table.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(_prices.Path, "read_text", broken)
        assert find_prices("openai/gpt-4o-mini") is None
    assert find_prices("openai/gpt-4o-mini") is not None
