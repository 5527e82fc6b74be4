import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad.viz._layout import layout
from tests.counting import growth, steps


def overlap(one, other, sizes, corners):
    (x, y), (w, h) = corners[one], sizes[one]
    (a, b), (c, d) = corners[other], sizes[other]
    return x < a + c and a < x + w and y < b + d and b < y + h


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 14))
    sizes = [(draw(st.integers(20, 200)), draw(st.integers(20, 90))) for _ in range(count)]
    pairs = [(a, b) for b in range(count) for a in range(b)]
    links = draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    return sizes, links


@settings(deadline=None, max_examples=60)
@given(graphs())
def test_boxes_do_not_overlap_and_links_go_down(graph):
    sizes, links = graph
    placed = layout(sizes, links)
    for one in range(len(sizes)):
        for other in range(one):
            assert not overlap(one, other, sizes, placed.corners)
        (x, y), (w, h) = placed.corners[one], sizes[one]
        assert x >= -1e-6
        assert y >= -1e-6
        assert x + w <= placed.width + 1e-6
        assert y + h <= placed.height + 1e-6
    for (a, b), route in zip(links, placed.routes, strict=True):
        assert all(one[1] < other[1] for one, other in pairwise(route))
        for box, (x, y), edge in ((a, route[0], sizes[a][1]), (b, route[-1], 0)):
            left, top = placed.corners[box]
            assert left <= x <= left + sizes[box][0]
            assert abs(y - top - edge) < 1e-6


def test_a_chain_stands_in_one_column_and_a_pair_side_by_side():
    placed = layout([(100, 40), (60, 40), (100, 40)], [(0, 1), (1, 2)])
    assert len({x + w / 2 for (x, _), w in zip(placed.corners, (100, 60, 100), strict=True)}) == 1
    placed = layout([(100, 40)] * 3, [(0, 2), (1, 2)])
    assert placed.corners[0][1] == placed.corners[1][1] < placed.corners[2][1]


def test_crossings_that_can_be_avoided_are():
    placed = layout([(50, 20)] * 4, [(0, 3), (1, 2), (0, 3)])
    (a, _), (b, _), (c, _), (d, _) = placed.corners
    assert (a < b) == (d < c)


def test_ten_thousand_boxes_take_no_recursion_and_no_quadratic_time():
    def work(count, every):
        rng = random.Random(0)
        links = [(max(0, b - rng.randrange(1, 4)), b) for b in range(1, count)]
        links += [(0, b) for b in range(every, count, every)]
        return lambda: layout([(80, 40)] * count, links)

    assert growth(lambda count: work(count, count // 4), 200, times=8) < 10
    assert steps(work(10_000, 100)) / 10_000 < 600  # about 360, whatever the number of long links
