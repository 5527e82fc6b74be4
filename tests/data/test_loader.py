import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import promptgrad as pg
from promptgrad.data import DataLoader, Example, collate
from promptgrad.errors import DataError

rows = [Example(n=n) for n in range(10)]


def numbers(loader):
    return [[row.n for row in batch] for batch in loader]


def flat(loader):
    return [n for batch in numbers(loader) for n in batch]


def test_batches_in_order():
    loader = DataLoader(rows, 4)
    assert numbers(loader) == numbers(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(loader) == 3
    assert numbers(DataLoader(rows, batch_size=4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(DataLoader(rows, batch_size=4, drop_last=True)) == 2


def test_each_epoch_has_its_own_order_and_a_seed_repeats_them():
    first, second = DataLoader(rows, 3, shuffle=True, seed=1), DataLoader(rows, 3, shuffle=True, seed=1)
    epochs = [flat(first) for _ in range(3)]
    assert [flat(second) for _ in range(3)] == epochs
    assert len(set(map(tuple, epochs))) == 3
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert flat(DataLoader(rows, 3, shuffle=True, seed=2)) != epochs[0]
    first.set_epoch(1)
    assert flat(first) == epochs[1]


def test_a_pass_that_was_left_is_not_gone_on_with():
    loader = DataLoader(rows, 3, shuffle=True, seed=0)
    for _ in loader:
        break
    assert sorted(flat(loader)) == list(range(10))
    assert loader.epoch == 1


@given(size=st.integers(1, 11), taken=st.integers(0, 25))
def test_the_state_goes_on_with_the_next_batch(size, taken):
    def stream(loader):
        while True:
            yield from loader

    loader = DataLoader(rows, size, shuffle=True, seed=5)
    batches = stream(loader)
    for _ in range(taken):
        next(batches)
    other = DataLoader(rows, size, shuffle=True, seed=0)
    other.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    rest = stream(other)
    assert [next(rest) for _ in range(5)] == [next(batches) for _ in range(5)]


def test_the_default_seed_is_that_of_manual_seed():
    wanted = flat(DataLoader(rows, shuffle=True, seed=7))
    pg.manual_seed(7)
    try:
        assert flat(DataLoader(rows, shuffle=True)) == wanted
    finally:
        pg.manual_seed(0)


def test_a_sampler_decides_the_order():
    class Backwards:
        epochs = ()

        def set_epoch(self, epoch):
            self.epochs += (epoch,)

        def __iter__(self):
            return iter(range(4, -1, -1))

        def __len__(self):
            return 5

    sampler = Backwards()
    loader = DataLoader(rows, 2, sampler=sampler)
    assert numbers(loader) == [[4, 3], [2, 1], [0]]
    assert len(loader) == 3
    assert flat(loader) == [4, 3, 2, 1, 0]
    assert sampler.epochs == (0, 1)
    with pytest.raises(ValueError, match="either shuffle=True or a sampler"):
        DataLoader(rows, shuffle=True, sampler=sampler)


def test_torch_samplers_and_torch_loaders_work():
    data = pytest.importorskip("torch.utils.data")
    assert flat(DataLoader(rows, 3, sampler=data.SequentialSampler(rows))) == list(range(10))
    loader = data.DataLoader(rows, batch_size=4, collate_fn=collate)
    assert numbers(loader) == numbers(DataLoader(rows, 4))


def test_dicts_become_examples_and_any_iterable_will_do():
    loader = DataLoader(({"n": n} for n in range(3)), 2)
    assert list(loader) == [[Example(n=0), Example(n=1)], [Example(n=2)]]


def test_what_cannot_work_is_told():
    with pytest.raises(DataError, match="empty"):
        DataLoader([])
    with pytest.raises(DataError, match="10 rows make no batch of 11"):
        DataLoader(rows, 11, drop_last=True)
    for size in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="batch_size"):
            DataLoader(rows, size)
    with pytest.raises(DataError, match="seed, epoch and batch"):
        DataLoader(rows).load_state_dict({"epoch": 1})
    with pytest.raises(TypeError, match="num_workers"):
        DataLoader(rows, num_workers=4)


def test_repr_says_what_it_gives():
    assert repr(DataLoader(rows, 4, shuffle=True, seed=3)) == "DataLoader(10 rows, batch_size=4, shuffled, seed 3)"
