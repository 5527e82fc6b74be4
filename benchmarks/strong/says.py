"""What each instruction tells the student, written down by hand from its text: no more and no less.

The key is the name of the call and the digest of the text. For `note` it is the names of the facts that are noted; for
the others a function of the facts that the call is shown, where a rule about a fact that is not shown does not apply.
An instruction that gives no rule is followed by a guess that is always the same.
"""

from collections.abc import Mapping
from typing import Any

import student

Facts = Mapping[str, Any]


def parcels(facts: Facts) -> str:
    """What the new instruction says in `parcels`."""
    if facts["sender"] == "Quay Health":
        return "K4"
    if facts["tubes"] >= 5:
        return "K2"
    if facts["hours"] >= 20:
        return "K5"
    return "K1" if facts["material"] == "plasma" else "K3"


def parcels_2(facts: Facts) -> str:
    """What the new instruction says in `parcels-2`."""
    if facts["sender"] == "Marsh Hospital":
        return "K2"
    if facts["celsius"] > 10:
        return "K5"
    if facts["hours"] < 10:
        return "K1"
    return "K4" if facts["material"] == "urine" else "K3"


def letters(facts: Facts) -> str:
    """What the new instruction says in `letters`."""
    if facts.get("branch") == "Osprey Lane":
        return "M3"
    if facts.get("loans", 0) >= 6:
        return "M1"
    return "M4" if facts.get("year", 2000) < 1960 else "M2"


def letters_2(facts: Facts) -> str:
    """What the new instruction says in `letters-2`."""
    if not {"branch", "year", "loans"} & set(facts) or facts.get("branch") == "Fenwick":
        return "M2"
    if facts.get("year", 0) >= 1995:
        return "M4"
    return "M3" if facts.get("loans", 2) <= 1 else "M1"


SAYS: dict[tuple[str, str], Any] = {
    ("route", "1e4f6acdd7ed"): lambda _: "K3",
    ("note", "e9835cb2a97e"): ("name", "title"),
    ("decide", "872f3a09cfe1"): lambda _: "M2",
    ("route", "c61023779b64"): parcels,
    ("route", "7f2dd2415807"): parcels_2,
    ("note", "2f199e7d2bc3"): ("name", "branch", "loans", "title", "format", "year"),
    ("note", "62926c5d986c"): ("name", "branch", "title", "format", "year", "loans"),
    ("decide", "ecd726505bb6"): letters,
    ("decide", "5b7bda5cf881"): letters_2,
}


def says(call: str, text: str) -> Any:
    """What an instruction says.

    Raises:
        Untranslated: Nobody wrote it down yet.
    """
    try:
        return SAYS[call, student.digest(text)]
    except KeyError:
        raise student.Untranslated(call, text) from None
