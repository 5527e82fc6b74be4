"""The words of the pocket world: objects with four attributes, adjectives, topics, names, labels, numbers."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COLORS = _words("red green blue yellow brown white black grey")
SIZES = _words("small medium big")
PLACES = _words("farm kitchen garage forest garden office sea shop")

_OBJECTS = {
    "animal": """wolf grey big forest, cat black small garden, cow white big farm, fox red medium forest,
        frog green small garden, horse brown big farm, whale blue big sea, duck yellow small farm,
        sheep white medium farm, bear brown big forest""",
    "fruit": """apple red medium garden, lemon yellow small shop, plum blue small garden, lime green small kitchen,
        banana yellow medium shop, cherry red small garden, kiwi brown small shop, coconut white big sea,
        fig black small farm, olive green small kitchen""",
    "vehicle": """truck blue big garage, taxi yellow medium office, tram green big garage, van white medium shop,
        train black big forest, tractor red big farm, boat white medium sea, bus red big garage,
        bike grey small garden, cart brown medium shop""",
    "tool": """hammer grey small garage, saw black medium forest, drill yellow small garage, axe brown medium forest,
        rake green medium garden, shovel red medium garden, wrench grey small garage, ladder white big garden,
        pliers blue small office, chisel brown small shop""",
    "clothing": """shirt white medium office, coat black big office, hat brown small garden, scarf red small shop,
        sock grey small shop, glove green small garden, jeans blue medium farm, boot brown medium farm,
        dress yellow medium shop, tie blue small office""",
    "furniture": """chair brown medium kitchen, table white big kitchen, sofa grey big office, lamp yellow small office,
        desk black big office, shelf green medium shop, stool red small kitchen, bed blue big shop,
        bench green big garden, mirror grey medium office""",
    "instrument": """piano black big office, violin brown small shop, flute grey small forest, drum red medium garage,
        guitar yellow medium sea, harp white big sea, trumpet yellow small garage, cello brown big shop,
        banjo green medium farm, bell grey small sea""",
    "food": """bread brown medium kitchen, rice white small kitchen, cheese yellow small farm,
        soup green medium kitchen,
        pasta white medium shop, honey yellow small forest, butter yellow small kitchen, ham red medium farm,
        pepper black small shop, jam blue small kitchen""",
}

ATTRIBUTES = ("kind", "color", "size", "place")
ATTR: dict[str, dict[str, str]] = {}
"""Attributes of each object, e.g. `ATTR["wolf"]["color"] == "grey"`."""
OF_KIND: dict[str, tuple[str, ...]] = {}
"""The ten objects of each kind."""
for _kind, _lines in _OBJECTS.items():
    _rows = [line.split() for line in _lines.split(",")]
    OF_KIND[_kind] = tuple(row[0] for row in _rows)
    for _name, _color, _size, _place in _rows:
        ATTR[_name] = {"kind": _kind, "color": _color, "size": _size, "place": _place}

KINDS = tuple(_OBJECTS)
OBJECTS = tuple(ATTR)
PLURAL = {k: k + "-items" if k in ("clothing", "furniture", "food") else k + "s" for k in KINDS}

POSITIVE = _words("great lovely superb wonderful nice pleasant amazing perfect charming excellent fine splendid")
NEGATIVE = _words("awful terrible bad poor horrible boring nasty dull ugly weak dreadful broken")
TOPICS = {
    "sport": _words("match team coach goal race player"),
    "weather": _words("rain storm sun wind snow cloud"),
    "money": _words("bank price loan market salary tax"),
    "music": _words("song band concert album singer tune"),
}
SENTIMENT = {**dict.fromkeys(POSITIVE, "positive"), **dict.fromkeys(NEGATIVE, "negative")}
TOPIC = {word: topic for topic, words in TOPICS.items() for word in words}

NAMES = _words("tom ann bob eve sam kim joe liz max amy")
DIGITS = tuple(str(i) for i in range(10))
NUMBERS = tuple(str(i) for i in range(64))
LABELS = _words(
    "dax wug blip zorp fep gorp lum mib nix pov quib rasp tiz vek yad zib foo bar baz qux alpha beta gamma delta "
    "one two yes no wim tup dob jad kef nup sog tav"
)
"""Words without a meaning of their own, for label maps."""

CLASSES: dict[str, tuple[str, ...]] = {
    "sentiment": ("positive", "negative"),
    "topic": tuple(TOPICS),
    "kind": KINDS,
    "color": COLORS,
    "size": SIZES,
}
"""The classes that a label map can name, by feature."""
