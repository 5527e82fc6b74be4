"""Items that are not those of one list: of "1.5 kg" and "300 g" none is the meant value without the other's unit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptgrad._patterns import late_pattern
from promptgrad.adapters._taken_back import leaves_out

_OF_ONE_KIND = """\
mg; g gram grams; kg kilogram kilograms; t tonne tonnes ton tons; lb lbs pound pounds; oz ounce ounces
ms; s sec second seconds; min mins minute minutes; h hr hour hours; d day days; week weeks; month months; year years
mm; cm; m metre metres meter meters; km kilometres kilometers; mi mile miles; ft foot feet; in inch inches
ml; cl; dl; l litre litres liter liters; gal gallon gallons
kb; mb; gb; tb
hz; khz; mhz; ghz
w; kw; mw; gw
wh; kwh; mwh
°c c celsius; °f f fahrenheit
$ usd dollar dollars; € eur euro euros; £ gbp; ¥ jpy yen; ₹ inr rs rupees; chf
"""
_UNITS = {
    name: (kind, unit)
    for kind, line in enumerate(_OF_ONE_KIND.splitlines())
    for unit, names in enumerate(line.split(";"))
    for name in names.split()
}
_WRITTEN = late_pattern(r"\A\W*?([$€£¥₹]|[A-Z]{2,3}(?= ?\d))|[\d.,] ?(°?[A-Za-z]+|[°%$€£¥₹])[\s.)*_`]*\Z")


_TEXT_LABEL = late_pattern(r"\A\W*([^\W\d][^:=\d]{0,40}?)\s*[:=]")
_SUMS = late_pattern(
    r"\b(?:(?:sub)?totals?|sum|average|mean|median|counts?|overall|max(?:imum)?|min(?:imum)?)\b", re.IGNORECASE
)


def odd_items(items: Sequence[object] | Mapping[Any, object], *, has_numbers: bool) -> str:
    """Why items are not those of one list: units that differ, a total among its parts, "and 3 more"; else empty."""
    is_list = not isinstance(items, Mapping)
    values = list(items.values()) if isinstance(items, Mapping) else items
    if is_list and len(values) > 1 and leaves_out(values[-1]) and (len(values) > 2 or len(str(values[-1])) > 4):
        return f"ends in {values[-1]!r}: give all items"
    if has_numbers and have_several_units(values):
        return "holds numbers in several units: give all in one unit, as numbers alone"
    return "holds a number that is made of the others: leave it out" if has_numbers and has_a_sum(values) else ""


def has_a_sum(texts: Sequence[object]) -> bool:
    """Whether one of several values says that it is made of the others: "Total: 30" beside "10" and "20"."""
    labels = [_TEXT_LABEL.match(text) if isinstance(text, str) and len(text) < 60 else None for text in texts]
    sums = [label is not None and _SUMS.search(label[1]) is not None for label in labels]
    return any(sums) and not all(sums)


def have_several_units(texts: Iterable[object]) -> bool:
    """Whether the texts among some values are quantities of one kind in different units: "5 min" beside "2 h"."""
    found: dict[int, int] = {}
    for text in texts:
        written = _WRITTEN.search(text) if isinstance(text, str) and len(text) < 60 else None
        if written is not None:
            known = _UNITS.get((written[1] or written[2]).lower())
            if known is not None and found.setdefault(*known) != known[1]:
                return True
    return False
