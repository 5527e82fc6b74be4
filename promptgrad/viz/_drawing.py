"""`Drawing`: a picture as SVG, Mermaid or DOT text."""

import html
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from promptgrad._patterns import late_pattern
from promptgrad.viz._layout import layout
from promptgrad.viz._picture import Box, Line, Picture

_CHAR = 6.65  # width of a character of 11 px in a monospaced font
_LINE = 16.0
_PAD = 10.0
_MARGIN = 16.0
_LEGEND = 34.0

_INK = "#24292f"
_FILL = {"call": "#f6f8fa", "parameter": "#fff8c5", "output": "#ddf4ff"}
_EDGE = {"": "#8c959f", "right": "#1a7f37", "blamed": "#cf222e", "error": "#cf222e"}
_STATE_FILL = {"error": "#ffebe9", "right": "#dafbe1"}
_TEXT = {"value": _INK, "blame": "#cf222e", "error": "#cf222e", "note": "#656d76"}
_DASH = {"exact": "", "content": "6 4", "control": "2 3", "order": "2 3"}
_DOT_STYLE = {"exact": "solid", "content": "dashed", "control": "dotted", "order": "dotted"}
_CLASS = {"call": "step"}  # `call` is a keyword of Mermaid
_LINE_INK = {"exact": "#57606a", "content": "#0969da", "control": "#9a6700", "order": "#8c959f"}

_ILLEGAL = late_pattern("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Drawing:
    """A graph of calls, drawn. It shows itself in a notebook.

    Attributes:
        picture: What is drawn: boxes and links, as data.
    """

    def __init__(self, picture: Picture) -> None:
        self.picture = picture

    def svg(self) -> str:
        """The graph as an SVG document."""
        return "\n".join(_svg(self.picture))

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart, for Markdown pages."""
        return "\n".join(_mermaid(self.picture))

    def dot(self) -> str:
        """The graph in the language of Graphviz."""
        return "\n".join(_dot(self.picture))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the graph to a file: `.svg`, `.html`, `.mmd` or `.dot`; returns the path.

        Raises:
            ValueError: The name has another ending.
        """
        place = Path(path)
        writers = {".svg": self.svg, ".html": self._repr_html_, ".mmd": self.mermaid, ".dot": self.dot}
        if place.suffix not in writers:
            raise ValueError(f"a drawing is saved as {', '.join(writers)}, not as {place.name!r}")
        place.write_text(writers[place.suffix]() + "\n", encoding="utf-8")
        return place

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return f'<div style="overflow:auto">{self.svg()}</div>'

    def __repr__(self) -> str:
        calls = sum(box.kind == "call" for box in self.picture.boxes)
        kinds = Counter(link.kind for link in self.picture.links)
        edges = ", ".join(f"{kinds[kind]} {kind}" for kind in _DASH if kinds[kind]) or "none"
        return f"<Drawing of {calls} call{'' if calls == 1 else 's'}; edges: {edges}>"


# ---------------------------------------------------------------------------------------------------------- SVG


def _svg(picture: Picture) -> Iterator[str]:
    sizes = [_size(box) for box in picture.boxes]
    placed = layout(sizes, [(link.source, link.target) for link in picture.links])
    kinds = [kind for kind in _DASH if any(link.kind == kind for link in picture.links)]
    legend = 90.0 * len(kinds) + (_CHAR * len(picture.note) + 20 if picture.note else 0)
    width = max(placed.width, legend, 120.0) + 2 * _MARGIN
    height = placed.height + 2 * _MARGIN + (_LEGEND if kinds or picture.note else 0)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" '
        'font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="11">'
    )
    yield "<defs>"
    for kind in kinds:
        yield (
            f'<marker id="pg-{kind}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto">'
            f'<path d="M0,0.5 L8,4 L0,7.5 z" fill="{_LINE_INK[kind]}"/></marker>'
        )
    yield "</defs>"
    yield f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
    yield f'<g transform="translate({_MARGIN:g},{_MARGIN:g})">'
    for link, points in zip(picture.links, placed.routes, strict=True):
        dash = f' stroke-dasharray="{_DASH[link.kind]}"' if _DASH[link.kind] else ""
        one, other = picture.boxes[link.source].title, picture.boxes[link.target].title
        about = f"{link.kind}: {one} -> {other}{f' ({link.label})' if link.label else ''}"
        about += ", ambiguous" if link.ambiguous else ""
        yield (
            f'<path class="edge {link.kind}" d="{_curve(points)}" fill="none" stroke="{_LINE_INK[link.kind]}" '
            f'stroke-width="1.4"{dash} marker-end="url(#pg-{link.kind})"><title>{_xml(about)}</title></path>'
        )
    for box, (x, y), size in zip(picture.boxes, placed.corners, sizes, strict=True):
        yield from _svg_box(box, x, y, *size)
    for link, points in zip(picture.links, placed.routes, strict=True):
        if link.label:
            x, y = points[-1]
            yield (
                f'<text x="{x + 4:.1f}" y="{y - 9:.1f}" font-size="9.5" fill="#656d76" stroke="#ffffff" '
                f'stroke-width="3" paint-order="stroke">{_xml(link.label)}{"?" if link.ambiguous else ""}</text>'
            )
    yield "</g>"
    if kinds or picture.note:
        y = height - _LEGEND / 2 - 4
        for place, kind in enumerate(kinds):
            x = _MARGIN + 90.0 * place
            dash = f' stroke-dasharray="{_DASH[kind]}"' if _DASH[kind] else ""
            yield f'<path d="M{x:.0f},{y:.1f} h26" stroke="{_LINE_INK[kind]}" stroke-width="1.4"{dash}/>'
            yield f'<text x="{x + 32:.0f}" y="{y + 4:.1f}" fill="#656d76">{kind}</text>'
        if picture.note:
            x = _MARGIN + 90.0 * len(kinds) + 12
            yield f'<text x="{x:.0f}" y="{y + 4:.1f}" fill="#656d76">{_xml(picture.note)}</text>'
    yield "</svg>"


def _svg_box(box: Box, x: float, y: float, width: float, height: float) -> Iterator[str]:
    fill = _STATE_FILL.get(box.state, _FILL[box.kind])
    heavy = "1.8" if box.state else "1.1"
    round_ = height / 3 if box.kind == "parameter" else 5.0
    yield f'<g class="{f"{box.kind} {box.state}".strip()}">'
    yield f"<title>{_xml(box.tooltip)}</title>"
    yield (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round_:.0f}" '
        f'fill="{fill}" stroke="{_EDGE[box.state]}" stroke-width="{heavy}"/>'
    )
    left, line = x + _PAD, y + _PAD + 9
    head = f'<tspan font-weight="bold" fill="{_INK}">{_xml(box.title)}</tspan>'
    if box.subtitle:
        head += f'<tspan dx="8" fill="#656d76">{_xml(box.subtitle)}</tspan>'
    yield f'<text x="{left:.1f}" y="{line:.1f}">{head}</text>'
    for shown in box.lines:
        line += _LINE
        yield f'<text x="{left:.1f}" y="{line:.1f}" fill="{_TEXT[shown.kind]}">{_xml(_marked(shown))}</text>'
    yield "</g>"


def _size(box: Box) -> tuple[float, float]:
    head = len(box.title) * 1.05 + (len(box.subtitle) + 1.5 if box.subtitle else 0)
    longest = max([head, *(len(_marked(line)) for line in box.lines)])
    return longest * _CHAR + 2 * _PAD, _LINE * (1 + len(box.lines)) + 2 * _PAD - 6


def _marked(line: Line) -> str:
    return f"✗ {line.text}" if line.kind in ("blame", "error") else line.text


def _curve(points: list[tuple[float, float]]) -> str:
    x, y = points[0]
    parts = [f"M{x:.1f},{y:.1f}"]
    for other_x, other_y in points[1:]:
        middle = (y + other_y) / 2
        parts.append(f"C{x:.1f},{middle:.1f} {other_x:.1f},{middle:.1f} {other_x:.1f},{other_y:.1f}")
        x, y = other_x, other_y
    return " ".join(parts)


def _xml(text: str) -> str:
    return html.escape(_ILLEGAL.sub("\ufffd", text), quote=True)


# ----------------------------------------------------------------------------------------- Mermaid and Graphviz


def _label(box: Box) -> list[str]:
    head = f"{box.title}  {box.subtitle}" if box.subtitle else box.title
    return [head, *map(_marked, box.lines)]


def _mermaid(picture: Picture) -> Iterator[str]:
    yield "flowchart TD"
    if picture.note:
        yield f"  %% {picture.note}"
    for number, box in enumerate(picture.boxes):
        text = "<br/>".join(map(_mermaid_text, _label(box)))
        before, after = ('(["', '"])') if box.kind == "parameter" else ('["', '"]')
        yield f"  n{number}{before}{text}{after}:::{box.state or _CLASS.get(box.kind, box.kind)}"
    for link in picture.links:
        label = f"|{_quoted(link.label)}|" if link.label else ""
        yield f"  n{link.source} -->{label} n{link.target}"
    for kind, dash in _DASH.items():
        numbers = ",".join(str(number) for number, link in enumerate(picture.links) if link.kind == kind)
        if numbers:
            style = f",stroke-dasharray:{dash}" if dash else ""
            yield f"  linkStyle {numbers} stroke:{_LINE_INK[kind]}{style}"
    for name, fill in {**_FILL, **_STATE_FILL, "blamed": "#ffffff"}.items():
        ink = _EDGE.get(name, _EDGE[""])
        yield f"  classDef {_CLASS.get(name, name)} fill:{fill},stroke:{ink},color:{_INK},text-align:left"


def _quoted(text: str) -> str:
    return f'"{_mermaid_text(text)}"'


def _mermaid_text(text: str) -> str:
    """The text with everything that Mermaid would read as syntax spelt as a character code."""
    plain = " ".join(_ILLEGAL.sub("\ufffd", text).split())
    return re.sub(r'[#"<>&`*_~\\|{}\[\]]', lambda match: f"#{ord(match.group())};", plain)


def _dot(picture: Picture) -> Iterator[str]:
    yield "digraph promptgrad {"
    if picture.note:
        yield f"  label={_dot_text(picture.note)};"
    yield '  node [shape=box, style="rounded,filled", fontname="monospace", fontsize=10];'
    yield '  edge [fontname="monospace", fontsize=9];'
    for number, box in enumerate(picture.boxes):
        shape = ", shape=ellipse" if box.kind == "parameter" else ""
        label = _dot_text("\n".join(_label(box)) + "\n", "\\l")
        fill = _STATE_FILL.get(box.state, _FILL[box.kind])
        yield (
            f'  n{number} [label={label}, tooltip={_dot_text(box.tooltip)}, fillcolor="{fill}", '
            f'color="{_EDGE[box.state]}"{shape}];'
        )
    for link in picture.links:
        label = f", label={_dot_text(link.label)}" if link.label else ""
        yield (
            f'  n{link.source} -> n{link.target} [style={_DOT_STYLE[link.kind]}, color="{_LINE_INK[link.kind]}", '
            f'tooltip="{link.kind}"{label}];'
        )
    yield "}"


def _dot_text(text: str, newline: str = "\\n") -> str:
    clean = _ILLEGAL.sub("\ufffd", text).replace("\\", "\\\\").replace('"', '\\"').replace("\r", "")
    return '"' + clean.replace("\n", newline) + '"'
