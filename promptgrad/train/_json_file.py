"""`read_json`: a JSON file in which every value has one meaning."""

import json
import math
from pathlib import Path
from typing import Any

from promptgrad._json_pairs import once
from promptgrad._pipes import not_a_file
from promptgrad.nn import flaw_of


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: It is not JSON, which has no NaN and no infinite numbers; it has a key twice, with different values;
            it is nested too deeply, or no file at all.
    """
    if odd := not_a_file(path):
        raise ValueError(odd)
    text = path.read_text(encoding="utf-8", errors="surrogatepass")
    try:
        whole = json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if flaw := flaw_of(whole):
        raise ValueError(f"it {flaw}")
    return whole


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no number that JSON can hold")
    return number
