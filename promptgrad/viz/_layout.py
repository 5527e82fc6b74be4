"""The positions of boxes and links: a layered layout.

It is that of Sugiyama et al. 1981, in its simplest form: layers by longest path, a bend in each layer that a link
passes, barycentres against crossings, then positions near the mean of the neighbours. It is iterative, and linear in
the links except for sorting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_GAP = 28.0  # between neighbours
_BEND_GAP = 14.0
_LEVEL = 54.0  # between layers
_APART = 48.0  # between components
_ROW = 1800.0  # a row of components that gets wider is broken
_SWEEPS = 8
_BENDS = 20_000  # with more, links run straight


@dataclass(frozen=True)
class Layout:
    """Upper left corners of the boxes, and for each link the points that it passes."""

    corners: list[tuple[float, float]]
    routes: list[list[tuple[float, float]]]
    width: float
    height: float


def layout(sizes: Sequence[tuple[float, float]], links: Sequence[tuple[int, int]]) -> Layout:
    """Place boxes of these sizes, whose links go from lower to higher numbers."""
    layers = _layers(len(sizes), links)
    widths = [width for width, _ in sizes]
    heights = [height for _, height in sizes]
    level = list(layers)
    chains: list[list[int]] = []
    count = sum(max(0, layers[b] - layers[a] - 1) for a, b in links)
    for a, b in links:
        chain = [a]
        for place in range(layers[a] + 1, layers[b]) if count <= _BENDS else ():
            chain.append(len(level))
            level.append(place)
            widths.append(0.0)
            heights.append(0.0)
        chains.append([*chain, b])
    up: list[list[int]] = [[] for _ in level]
    down: list[list[int]] = [[] for _ in level]
    for chain in chains:
        for one, other in pairwise(chain):
            down[one].append(other)
            up[other].append(one)
    centre = [0.0] * len(level)
    top = [0.0] * len(level)
    left, begin, tallest, right = 0.0, 0.0, 0.0, 0.0
    for members in _components(up, down):
        rows: list[list[int]] = [[] for _ in range(max(level[v] for v in members) + 1)]
        for vertex in members:
            rows[level[vertex]].append(vertex)
        rows = [row for row in rows if row]
        _order(rows, up, down)
        _place(rows, up, down, widths, centre)
        low = min(centre[v] - widths[v] / 2 for v in members)
        wide = max(centre[v] + widths[v] / 2 for v in members) - low
        if left and left + wide > _ROW:
            left, begin, tallest = 0.0, begin + tallest + _APART, 0.0
        y = begin
        for row in rows:
            tall = max(heights[v] for v in row)
            for vertex in row:
                centre[vertex] += left - low
                top[vertex] = y + (tall - heights[vertex]) / 2
            y += tall + _LEVEL
        tallest = max(tallest, y - _LEVEL - begin)
        right = max(right, left + wide)
        left += wide + _APART
    corners = [(centre[v] - widths[v] / 2, top[v]) for v in range(len(sizes))]
    routes = _routes(chains, len(sizes), centre, top, widths, heights)
    return Layout(corners, routes, right, begin + tallest)


def _layers(count: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each box: below all its sources; boxes without a source stand right above their first target."""
    into: list[list[int]] = [[] for _ in range(count)]
    out: list[list[int]] = [[] for _ in range(count)]
    for a, b in links:
        into[b].append(a)
        out[a].append(b)
    layers = [0] * count
    for box in range(count):
        layers[box] = max((layers[source] + 1 for source in into[box]), default=0)
    for box in range(count):
        if not into[box] and out[box]:
            layers[box] = min(layers[target] for target in out[box]) - 1
    return layers


def _components(up: Sequence[Sequence[int]], down: Sequence[Sequence[int]]) -> list[list[int]]:
    """The connected components, in the order of their first members."""
    seen = [False] * len(up)
    found = []
    for start in range(len(up)):
        if seen[start]:
            continue
        seen[start] = True
        members, stack = [], [start]
        while stack:
            vertex = stack.pop()
            members.append(vertex)
            for other in (*up[vertex], *down[vertex]):
                if not seen[other]:
                    seen[other] = True
                    stack.append(other)
        found.append(sorted(members))
    return found


def _order(rows: list[list[int]], up: Sequence[Sequence[int]], down: Sequence[Sequence[int]]) -> None:
    """Sort each layer by the mean place of the neighbours, downwards and upwards by turns."""
    place: dict[int, float] = {}
    for row in rows:
        for number, vertex in enumerate(row):
            place[vertex] = float(number)
    for sweep in range(_SWEEPS):
        near = up if sweep % 2 == 0 else down
        for row in rows if sweep % 2 == 0 else reversed(rows):
            for vertex in row:
                if near[vertex]:
                    place[vertex] = sum(place[other] for other in near[vertex]) / len(near[vertex])
            row.sort(key=place.__getitem__)
            for number, vertex in enumerate(row):
                place[vertex] = float(number)


def _place(
    rows: Sequence[Sequence[int]],
    up: Sequence[Sequence[int]],
    down: Sequence[Sequence[int]],
    widths: Sequence[float],
    centre: list[float],
) -> None:
    """Give each vertex a centre near the mean of its neighbours', at a distance from those beside it."""

    def apart(one: int, other: int) -> float:
        gap = _BEND_GAP if not (widths[one] and widths[other]) else _GAP
        return (widths[one] + widths[other]) / 2 + gap

    for row in rows:
        x = 0.0
        for number, vertex in enumerate(row):
            x += apart(row[number - 1], vertex) if number else 0.0
            centre[vertex] = x
    for sweep in range(_SWEEPS):
        near = up if sweep % 2 == 0 else down
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wish = [
                sum(centre[other] for other in near[vertex]) / len(near[vertex]) if near[vertex] else centre[vertex]
                for vertex in row
            ]
            leftmost, rightmost = list(wish), list(wish)
            for number in range(1, len(row)):
                least = leftmost[number - 1] + apart(row[number - 1], row[number])
                leftmost[number] = max(wish[number], least)
            for number in range(len(row) - 2, -1, -1):
                most = rightmost[number + 1] - apart(row[number], row[number + 1])
                rightmost[number] = min(wish[number], most)
            for number, vertex in enumerate(row):
                centre[vertex] = (leftmost[number] + rightmost[number]) / 2


def _routes(
    chains: Sequence[Sequence[int]],
    boxes: int,
    centre: Sequence[float],
    top: Sequence[float],
    widths: Sequence[float],
    heights: Sequence[float],
) -> list[list[tuple[float, float]]]:
    """The points of each link; links that share a box leave and enter it side by side."""
    leaving: list[list[int]] = [[] for _ in range(boxes)]
    entering: list[list[int]] = [[] for _ in range(boxes)]
    for number, chain in enumerate(chains):
        leaving[chain[0]].append(number)
        entering[chain[-1]].append(number)
    first, last = [0.0] * len(chains), [0.0] * len(chains)
    for box in range(boxes):
        for links, end, step in ((leaving[box], first, 1), (entering[box], last, -2)):
            links.sort(key=lambda number, step=step: centre[chains[number][step]])  # type: ignore[misc]
            for place, number in enumerate(links):
                end[number] = centre[box] + widths[box] * 0.8 * ((place + 1) / (len(links) + 1) - 0.5)
    routes = []
    for number, chain in enumerate(chains):
        a, b = chain[0], chain[-1]
        bends = [(centre[bend], top[bend]) for bend in chain[1:-1]]
        routes.append([(first[number], top[a] + heights[a]), *bends, (last[number], top[b])])
    return routes
