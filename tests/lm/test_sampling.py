from collections import Counter
from random import Random

import pytest

torch = pytest.importorskip("torch")

from promptgrad.lm._sampling import Sampling, choose  # noqa: E402 - needs torch

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -50.0])


def draw(sampling, count=4000):
    rows = [Sampling(sampling.temperature, sampling.top_p, sampling.top_k, seed) for seed in range(count)]
    tokens, scaled, _ = choose(LOGITS.expand(count, -1), rows, [row.source() for row in rows])
    return Counter(tokens.tolist()), scaled


def test_zero_takes_the_likeliest():
    counts, scaled = draw(Sampling(0.0), 3)
    assert counts == {0: 3}
    assert torch.equal(scaled[0], LOGITS)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_probabilities(temperature):
    counts, scaled = draw(Sampling(temperature))
    expected = torch.softmax(LOGITS / temperature, -1)
    assert torch.allclose(scaled[0], LOGITS / temperature)
    for token, share in enumerate(expected.tolist()):
        assert counts[token] / 4000 == pytest.approx(share, abs=0.03)


def test_top_k_and_top_p_cut_the_tail():
    assert set(draw(Sampling(5.0, top_k=2))[0]) == {0, 1}
    assert set(draw(Sampling(5.0, top_k=1))[0]) == {0}
    shares = torch.softmax(LOGITS, -1)
    assert set(draw(Sampling(1.0, top_p=float(shares[0]) - 0.01))[0]) == {0}
    assert set(draw(Sampling(1.0, top_p=float(shares[0]) + 0.01))[0]) == {0, 1}
    assert set(draw(Sampling(1.0, top_p=0.0))[0]) == {0}
    assert set(draw(Sampling(5.0, top_p=0.01, top_k=2))[0]) == {0}
    assert set(draw(Sampling(5.0, top_p=0.99, top_k=2))[0]) == {0, 1}


def test_a_row_does_not_see_its_neighbours():
    torch.manual_seed(0)
    logits = torch.randn(20, 50)
    rows = [
        Sampling(t, p, k, s) for s, (t, p, k) in enumerate([(0.0, None, None), (1.0, 0.8, None), (0.7, None, 9)] * 6)
    ]
    rows += [Sampling(1.5, None, None, 7)] * 2
    together, scaled, _ = choose(logits, rows, [row.source() for row in rows])
    alone = [choose(logits[i : i + 1], [row], [row.source()])[0].item() for i, row in enumerate(rows)]
    assert together.tolist() == alone
    assert scaled.shape == logits.shape


def test_only_drawn_rows_use_random_numbers():
    source = Random(1)
    before = source.getstate()
    choose(LOGITS[None], [Sampling(0.0)], [None])
    assert source.getstate() == before
    assert Sampling(0.0).source() is None


def test_a_draw_at_the_very_end_is_the_last_token():
    class AtTheEnd:
        def random(self):
            return 1.0

    tokens, _, _ = choose(torch.zeros(1, 5), [Sampling(1.0)], [AtTheEnd()])
    assert tokens.tolist() == [4]


def test_logits_that_are_no_numbers_are_noticed():
    logits = LOGITS.expand(2, -1).clone()
    rows = [Sampling(0.0), Sampling(1.0)]
    assert choose(logits, rows, [row.source() for row in rows])[2] is True
    logits[1, 2] = float("nan")
    for own in (rows, rows[:1] * 2):
        assert choose(logits, own, [row.source() for row in own])[2] is False
