import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from promptgrad.lm._kv import GrowingLayer, PrefixStore, growing_cache, join, select, stack  # noqa: E402


def states(rows, places, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, places, 4, generator=generator), torch.randn(rows, 2, places, 3, generator=generator)


def filled(rows, places, seed=0):
    from transformers.cache_utils import Cache

    layer = GrowingLayer()
    layer.update(*states(rows, places, seed))
    return Cache(layers=[layer])


def test_it_grows_as_concatenation_does():
    layer = GrowingLayer()
    parts = [states(3, places, places) for places in (5, 1, 1, 40, 1, 100)]
    for index, part in enumerate(parts):
        keys, values = layer.update(*part)
        assert torch.equal(keys, torch.cat([p[0] for p in parts[: index + 1]], -2))
        assert torch.equal(values, torch.cat([p[1] for p in parts[: index + 1]], -2))
    assert layer.get_seq_length() == 148


def test_a_step_copies_nothing():
    layer = GrowingLayer()
    layer.update(*states(2, 5))
    place = layer.buffers[0].data_ptr()
    for _ in range(20):
        layer.update(*states(2, 1))
    assert layer.buffers[0].data_ptr() == place


def test_select_keeps_rows_and_drops_places():
    cache = filled(4, 6)
    keys = cache.layers[0].keys.clone()
    select(cache, torch.tensor([3, 1]), 2)
    assert torch.equal(cache.layers[0].keys, keys[[3, 1], :, 2:])
    cache.layers[0].update(*states(2, 1))
    assert cache.get_seq_length() == 5


def test_join_aligns_at_the_end():
    one, other = filled(2, 3, 1), filled(1, 5, 2)
    joined = join(one, other).layers[0]
    assert torch.equal(joined.keys[:2, :, 2:], one.layers[0].keys)
    assert torch.equal(joined.values[2:], other.layers[0].values)
    assert not joined.keys[:2, :, :2].any()


def test_stack_makes_rows_of_prefixes():
    store = PrefixStore(10**6)
    short, long = store.put((1,), filled(1, 3, 1)), store.put((2,), filled(1, 5, 2))
    layer = stack([short, None, long, long], [3, 0, 5, 2]).layers[0]
    assert layer.get_seq_length() == 5
    assert torch.equal(layer.keys[0, :, 2:], short[0][0])
    assert not layer.keys[1].any()
    assert torch.equal(layer.values[2], long[0][1])
    assert torch.equal(layer.values[3, :, 3:], long[0][1][:, :2])


def test_prefixes_pay_from_the_second_time_on_and_old_ones_go():
    store = PrefixStore(2 * 2 * 5 * 7 * 4)
    assert not store.pays((1,), 1)
    assert store.pays((1,), 1)
    assert store.pays((2,), 2)
    store.put((1,), filled(1, 5)), store.put((2,), filled(1, 5))
    assert store.get((1,)) is not None
    store.put((3,), filled(1, 5))
    assert store.get((2,)) is None
    assert store.get((1,)) is not None
    store.clear()
    assert store.get((1,)) is None
    assert store.size == 0


def test_which_models_keep_plain_keys_and_values(models):
    assert growing_cache(models["llama"].config) is not None
    assert growing_cache(models["qwen3"].config) is not None
    assert growing_cache(models["sliding"].config) is None
