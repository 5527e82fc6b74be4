"""Tickets: their attributes, written as text and read again."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

PRODUCTS = ("Nimbus", "Orbit", "Quill", "Tundra", "Vela")
CHANNELS = ("phone", "mail", "chat")
TONES = ("calm", "angry", "polite", "worried")
REGIONS = ("north", "south", "east", "west")

_SENTENCES: dict[str, tuple[str, ...]] = {
    "product": ("It is about {}.", "The customer uses {}.", "The trouble is with {}."),
    "one": ("One person is affected.", "Only one colleague has this."),
    "people": ("{} people are affected.", "{} colleagues have this."),
    "money": ("It concerns {} dollars.", "The sum is {} dollars.", "There are {} dollars at stake."),
    "channel": ("It came by {}.", "The customer wrote or called by {}."),
    "tone": ("The tone is {}.", "The customer sounds {}."),
    "region": ("The customer is in the {}.", "The office in the {} sent it."),
}


def _pattern() -> re.Pattern[str]:
    forms = {"one": "", "people": r"\d+", "money": r"\d+"}
    parts = []
    for name, sentences in _SENTENCES.items():
        words = {"product": PRODUCTS, "channel": CHANNELS, "tone": TONES, "region": REGIONS}.get(name)
        value = forms[name] if words is None else "|".join(words)
        alternatives = [re.escape(s).replace(r"\{\}", "\0").replace("\0", f"(?:{value})") for s in sentences]
        parts.append(f"(?P<{name}>{'|'.join(alternatives)})")
    return re.compile(r"\s+(?:" + "|".join(parts) + ")")


_SENTENCE = _pattern()
_HEAD = re.compile(r"Ticket (\d+)\.")
_VALUE = {
    "product": re.compile("|".join(PRODUCTS)),
    "people": re.compile(r"\d+"),
    "money": re.compile(r"\d+"),
    "channel": re.compile("|".join(CHANNELS)),
    "tone": re.compile("|".join(TONES)),
    "region": re.compile("|".join(REGIONS)),
}


@dataclass(frozen=True)
class Ticket:
    """What is known of one ticket; None for what a text does not say.

    Attributes:
        number: Its number, unique within a world.
        product: What it is about.
        people: How many are affected.
        money: The sum, in dollars.
        channel: How it came.
        tone: How the customer sounds.
        region: Where the customer is.
    """

    number: int
    product: str | None = None
    people: int | None = None
    money: int | None = None
    channel: str | None = None
    tone: str | None = None
    region: str | None = None


ATTRIBUTES = ("product", "people", "money", "channel", "tone", "region")


def draw(number: int, rng: random.Random) -> Ticket:
    """A ticket with attributes drawn independently."""
    people = 1 if rng.random() < 0.6 else rng.randint(2, 6)
    money = 10 * rng.randint(1, 60)
    return Ticket(
        number,
        rng.choice(PRODUCTS),
        people,
        money,
        rng.choice(CHANNELS),
        rng.choice(TONES),
        rng.choice(REGIONS),
    )


def write(ticket: Ticket, rng: random.Random) -> str:
    """The ticket as text: a sentence for each attribute that is known, order and wording drawn from `rng`."""
    names = [name for name in ATTRIBUTES if getattr(ticket, name) is not None]
    rng.shuffle(names)
    sentences = []
    for name in names:
        value = getattr(ticket, name)
        wording = rng.choice(_SENTENCES["one" if name == "people" and value == 1 else name])
        sentences.append(wording.format(value))
    return " ".join([f"Ticket {ticket.number}.", *sentences])


def find(text: str) -> list[tuple[Ticket, int, int]]:
    """Every ticket in a text with where it starts and ends; one that is cut off has fewer attributes."""
    found = []
    for head in _HEAD.finditer(text):
        values: dict[str, str | int] = {}
        end = head.end()
        while sentence := _SENTENCE.match(text, end):
            name = str(sentence.lastgroup)
            if name in values or (name == "one" and "people" in values):
                break
            if name == "one":
                values["people"] = 1
            else:
                value = _VALUE[name].search(sentence[0])
                if value is None:
                    raise ValueError(f"a sentence without its value: {sentence[0]!r}")
                values[name] = int(value[0]) if name in ("people", "money") else value[0]
            end = sentence.end()
        found.append((Ticket(int(head[1]), **values), head.start(), end))  # type: ignore[arg-type]
    return found


def distance(one: Ticket, other: Ticket) -> float:
    """How different two tickets look to somebody who does not know what counts."""
    apart = sum(getattr(one, name) != getattr(other, name) for name in ("product", "channel", "tone", "region"))
    people = (one.people or 1) > 1, (other.people or 1) > 1
    money = abs((one.money or 0) - (other.money or 0)) / 200
    return apart + (people[0] != people[1]) + min(1.0, money)
