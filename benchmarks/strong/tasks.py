"""Two tasks, each with two policies of the house that nobody can guess.

`parcels`: one call gives a parcel of samples one of five codes. `letters`: the first of two calls notes facts from a
letter to a library, the second decides from these notes alone; the first instruction leaves out what the second needs.
`parcels-2` and `letters-2` are the same under another policy. The feedback says which answer was expected, no more.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptgrad import nn
from promptgrad.data import Example, Score

CODES = ("K1", "K2", "K3", "K4", "K5")
ANSWERS = ("M1", "M2", "M3", "M4")
COUNTS = {"train": 24, "val": 24, "test": 60}

SENDERS = ("Quay Health", "Halden Clinic", "Brisco Surgery", "Elm Road Practice", "Marsh Hospital", "Ward 7")
MATERIALS = ("serum", "plasma", "whole blood", "urine")
COURIERS = ("rail", "van", "bicycle")

NAMES = ("Ada Brook", "Tom Hale", "Rosa Lind", "Ivo Marr", "Jun Abe", "Lena Voss", "Sam Okoro", "Mia Falk")
BRANCHES = ("Osprey Lane", "Mill Street", "Harbour", "Northgate", "Fenwick")
TITLES = ("The Salt Path", "Bees at Dusk", "A Field of Tin", "Old Harbours", "The Glass Year", "Winter Bread")
FORMATS = ("hardback", "paperback", "large print")
ENDINGS = ("I am in no hurry.", "I need it by Friday.", "Please write to me when it is ready.", "Many thanks!")


def parcels_policy(facts: Mapping[str, Any]) -> str:
    """The first rule that applies."""
    if facts["sender"] == "Quay Health":
        return "K4"
    if facts["tubes"] >= 5:
        return "K2"
    if facts["hours"] > 18:
        return "K5"
    return "K1" if facts["material"] == "plasma" else "K3"


def parcels_2_policy(facts: Mapping[str, Any]) -> str:
    """The first rule that applies."""
    if facts["sender"] == "Marsh Hospital":
        return "K2"
    if facts["celsius"] >= 11:
        return "K5"
    if facts["hours"] < 6:
        return "K1"
    return "K4" if facts["material"] == "urine" else "K3"


def letters_policy(facts: Mapping[str, Any]) -> str:
    """The first rule that applies."""
    if facts["branch"] == "Osprey Lane":
        return "M3"
    if facts["loans"] >= 6:
        return "M1"
    return "M4" if facts["year"] < 1970 else "M2"


def letters_2_policy(facts: Mapping[str, Any]) -> str:
    """The first rule that applies."""
    if facts["branch"] == "Fenwick":
        return "M2"
    if facts["year"] > 1995:
        return "M4"
    return "M3" if facts["loans"] <= 1 else "M1"


POLICIES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "parcels": parcels_policy,
    "parcels-2": parcels_2_policy,
    "letters": letters_policy,
    "letters-2": letters_2_policy,
}


def parcel(rng: random.Random) -> dict[str, Any]:
    return {
        "number": rng.randint(100, 999),
        "sender": rng.choice((SENDERS[0], *SENDERS)),
        "tubes": rng.randint(1, 8),
        "material": rng.choice(("plasma", *MATERIALS)),
        "hours": rng.randint(2, 36),
        "celsius": rng.randint(2, 15),
        "courier": rng.choice(COURIERS),
    }


def letter(rng: random.Random) -> dict[str, Any]:
    return {
        "name": rng.choice(NAMES),
        "branch": rng.choice(BRANCHES),
        "title": rng.choice(TITLES),
        "format": rng.choice(FORMATS),
        "year": rng.randint(1935, 2015),
        "loans": rng.randint(0, 10),
        "ending": rng.choice(ENDINGS),
    }


PARCEL = (
    "Parcel {number} from {sender}: tubes of {material}: {tubes}; drawn {hours} hours ago; "
    "{celsius} degrees on arrival; brought by {courier}."
)
LETTER = (
    "Dear librarians, my name is {name} and I belong to the {branch} branch. I would like to read {title}, "
    "in {format}, printed in {year}. At present I have {loans} books on loan. {ending}"
)


@dataclass(frozen=True)
class Task:
    """A task: its data, its metric, and the program before any training."""

    name: str
    train: Sequence[Example]
    val: Sequence[Example]
    test: Sequence[Example]
    metric: Callable[[Example, Any], Score]
    program: Callable[[], nn.Module]


class Parcels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.route = nn.Predict(
            f"parcel: str -> code: Literal[{', '.join(map(repr, CODES))}]", instruction="Choose the code of the parcel."
        )

    def forward(self, parcel: str) -> Any:
        return self.route(parcel=parcel)


class Letters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.note = nn.Predict(
            "letter: str -> notes: str", instruction="Note who writes and which book the letter asks for."
        )
        self.decide = nn.Predict(
            f"notes: str -> answer: Literal[{', '.join(map(repr, ANSWERS))}]", instruction="Decide about the request."
        )

    def forward(self, letter: str) -> Any:
        return self.decide(notes=self.note(letter=letter).notes)


def balanced(
    draw: Callable[[random.Random], dict[str, Any]],
    label: Callable[[Mapping[str, Any]], str],
    answers: Sequence[str],
    count: int,
    rng: random.Random,
    seen: set[str],
) -> list[tuple[dict[str, Any], str]]:
    """Rows that hold each answer once in each round, in an order drawn anew; none of them comes twice."""
    rows: list[tuple[dict[str, Any], str]] = []
    while len(rows) < count:
        for answer in rng.sample(answers, len(answers)):
            facts = draw(rng)
            while label(facts) != answer or repr(facts) in seen:
                facts = draw(rng)
            seen.add(repr(facts))
            rows.append((facts, answer))
    return rows[:count]


def task(name: str) -> Task:
    """The task of a name in `POLICIES`."""
    rng, seen, policy = random.Random(f"{name}/0"), set[str](), POLICIES[name]
    parcels = name.startswith("parcels")
    given, asked = ("parcel", "code") if parcels else ("letter", "answer")
    draw, answers, text = (parcel, CODES, PARCEL) if parcels else (letter, ANSWERS, LETTER)
    parts = {}
    for part, count in COUNTS.items():
        rows = balanced(draw, policy, answers, count, rng, seen)
        parts[part] = [
            Example({given: text.format(**facts), asked: answer}).with_inputs(given) for facts, answer in rows
        ]

    def metric(example: Example, output: Any) -> Score:
        right = output[asked] == example[asked]
        return Score(float(right), "" if right else f"expected {example[asked]}")

    return Task(name, parts["train"], parts["val"], parts["test"], metric, Parcels if parcels else Letters)
