"""Training episodes of the pocket model: token lists with a mask of the tokens that the model must write.

An episode is what the chat template renders: `<s> <|system|> INSTRUCTION USER ASSISTANT <|end|> USER ASSISTANT ...`,
where a user turn ends with the first output marker and an assistant turn is everything after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from promptgrad.data.pocket import _ontology as words
from promptgrad.data.pocket._ops import (
    FAMILIES,
    HELD_OUT_COMPOSITIONS,
    HELD_OUT_FAMILIES,
    OPS,
    Fields,
    LabelMap,
    Operation,
    make_map,
    say_rule,
)
from promptgrad.data.pocket._phrases import (
    CRITIQUE,
    CRITIQUE_WITH_INPUT,
    IMPROVE,
    INDUCT,
    IT_IS_RIGHT,
    PARTIAL,
    TAILS,
    VAGUE,
    VERBS,
    instruction,
    phrase_table,
    precise,
)

MARKERS = tuple(
    f"[[{name}]]"
    for name in (
        "text",
        "question",
        "answer",
        "reasoning",
        "instruction",
        "critique",
        "feedback",
        "verdict",
        "input_critique",
    )
)
SPECIALS = ("<pad>", "<unk>", "<s>", "<|system|>", "<|end|>")
LONGEST = 224
"""Longer episodes are dropped from training."""


@dataclass
class Episode:
    """Tokens, which of them the model must write, and where each assistant turn lies."""

    system: str
    tokens: list[str] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._put(["<s>", "<|system|>", *self.system.split()], learn=False)

    def _put(self, tokens: list[str], *, learn: bool) -> None:
        self.tokens += tokens
        self.mask += [learn] * len(tokens)

    def turn(self, user: list[str], output: list[tuple[str, list[str]]], *, learn: bool = True) -> Episode:
        """Add a user turn and what the assistant answers: named output fields, the first marker pre-filled."""
        rendered = [token for name, value in output for token in (f"[[{name}]]", *value)]
        self._put([*user, rendered[0]], learn=False)
        start = len(self.tokens)
        self._put([*rendered[1:], "<|end|>"], learn=learn)
        self.spans.append((start, len(self.tokens)))
        return self


def render(fields: Fields) -> list[str]:
    """Input fields as tokens, each after its marker."""
    return [token for name, value in fields.items() for token in (f"[[{name}]]", *value)]


def outputs(op: Operation, fields: Fields, *, reason: bool) -> list[tuple[str, list[str]]]:
    """The output fields of the right answer."""
    reasoning, answer = op.solve(fields)
    return [("reasoning", reasoning), ("answer", answer)] if reason else [("answer", answer)]


# --- tasks ---


def task_episode(
    r: Random, op: Operation, level: str, shots: int, *, reason: bool = False, noise: float = 0.0, part: str = "train"
) -> Episode:
    """One instruction and `shots` solved texts; a share `noise` of the demos is wrong and not learned."""
    system = "" if level == "vague" and r.random() < 0.04 else instruction(r, op, level, part)
    episode = Episode(system)
    for i in range(shots):
        fields = op.draw(r, part)
        output = outputs(op, fields, reason=reason)
        wrong = noise > 0 and i < shots - 1 and r.random() < noise
        if wrong:
            output[-1] = ("answer", op.solve(op.draw(r, part)).answer)
        episode.turn(render(fields), output, learn=not wrong)
    return episode


_SINGLE = (*words.OBJECTS, *words.KINDS, *words.COLORS, *words.NAMES, *words.POSITIVE, *words.NEGATIVE)


def word_map_episode(r: Random, sizes: tuple[int, ...] = (2, 3, 3, 4, 4, 6)) -> Episode:
    """Arbitrary words to arbitrary labels; only words shown before are learned (pure binding)."""
    n = r.choice(sizes)
    chosen = r.sample(_SINGLE, n)
    labels = r.sample(words.LABELS if r.random() < 0.6 else _SINGLE, n)
    mapping = dict(zip(chosen, labels, strict=True))
    episode, seen = Episode(r.choice(VAGUE)), set()
    for _ in range(r.randint(2 * n, 2 * n + 6)):
        word = r.choice(chosen)
        episode.turn(["[[text]]", word], [("answer", [mapping[word]])], learn=word in seen)
        seen.add(word)
    return episode


def dense_episode(r: Random) -> Episode:
    """Repeated random sequences and bare word-label pairs: the first lesson of a training from scratch."""
    episode = Episode("")
    if r.random() < 0.4:
        line = r.sample((*_SINGLE, *words.LABELS), r.randint(6, 16))
        episode._put(line, learn=False)
        for _ in range(r.choice((1, 2))):
            episode._put(line[:1], learn=False)
            episode._put(line[1:], learn=True)
        return episode
    n = r.randint(2, 7)
    chosen, labels = r.sample(_SINGLE, n), r.sample(words.LABELS if r.random() < 0.6 else _SINGLE, n)
    between = r.choice(([], ["[[answer]]"], ["[[answer]]"]))
    for again in range(3):
        for j in r.sample(range(n), n):
            episode._put([chosen[j], *between], learn=False)
            episode._put([labels[j]], learn=again > 0)
    return episode


def class_map_episode(r: Random) -> Episode:
    """A fresh label map, by demos under a vague instruction or by a precise instruction."""
    op = make_map(r)
    if r.random() < 0.55:
        level = r.choice(("vague", "vague", "vague", "partial"))
        return task_episode(r, op, level, r.randint(4, 9), reason=r.random() < 0.15)
    return task_episode(r, op, "precise", r.choice((1, 1, 2, 3)), reason=r.random() < 0.3)


# --- meta-tasks: critique, improve, induct ---


def rivals(op: Operation) -> list[Operation]:
    """Other operations that apply to the same texts and whose wording may be written by the model."""
    return [
        other
        for other in OPS.values()
        if other.texts == op.texts
        and other.neutral
        and other.name != op.name
        and other.family not in HELD_OUT_FAMILIES
        and other.name not in HELD_OUT_COMPOSITIONS
        and op.family != "label-map"
    ]


@dataclass(frozen=True)
class Failure:
    """One failed sample of an LM call, as a critic sees it."""

    current: str
    fields: Fields
    given: list[str]
    feedback: str
    bad: Operation | None
    reasoning: list[str] | None = None

    def render(self) -> list[str]:
        """The user turn of a critique."""
        thought = ["[[reasoning]]", *self.reasoning] if self.reasoning else []
        return [
            *["[[instruction]]", *self.current.split(), *render(self.fields), *thought],
            *["[[answer]]", *self.given, "[[feedback]]", *self.feedback.split()],
        ]


def feedback(answer: Iterable[str]) -> str:
    """The feedback of a metric on a wrong answer."""
    return f"the answer should be {' '.join(answer)}"


_GIVES_OBJECT = frozenset(
    {*FAMILIES["pick"], *FAMILIES["find-kind"], *FAMILIES["find-value"], *FAMILIES["thing-of-name"], "odd", "lookup"}
)


def fail(r: Random, op: Operation, *, part: str = "train", partly: bool = False) -> Failure:
    """A sample that a call with a vague, partial, rival or (seldom) right instruction got wrong.

    Args:
        r: Source of randomness.
        op: What should have been done.
        part: Part of the text space.
        partly: The feedback only names an attribute of the right object, as from a later call in a chain.
    """
    while True:
        others = rivals(op)
        bad = r.choice(others) if others and r.random() < 0.85 else None
        fields = op.draw(r, part)
        gold = op.solve(fields).answer
        given = bad.solve(fields) if bad else op.solve(op.draw(r, "train"))
        says = feedback(gold)
        if partly:
            value = words.ATTR[gold[0]][r.choice(words.ATTRIBUTES)]
            if given.answer[0] in words.ATTR and value in words.ATTR[given.answer[0]].values():
                continue
            says = f"the answer should be a {value} thing"
        if given.answer != gold:
            break
    if bad is None and r.random() < 0.4:
        current = precise(r, op)
    else:
        level = r.choice(("vague", "vague", "partial", "precise") if bad else ("vague", "partial"))
        current = instruction(r, bad or op, level)
    return Failure(current, fields, given.answer, says, bad, given.reasoning if r.random() < 0.12 else None)


def is_precise(current: str, op: Operation) -> bool:
    """Whether an instruction is neither vague nor partial."""
    return current not in VAGUE and current not in PARTIAL[op.group]


def complain(r: Random, should: str, is_now: str | None) -> str:
    """A critique of an instruction: what the answer should be, and what it was where that is known."""
    if is_now is None:
        return r.choice((f"the answer is wrong ; it should be {should}", f"the answer must be {should}"))
    return r.choice(
        (
            f"the answer gives {is_now} but it should be {should}",
            f"it should be {should} and not {is_now}",
            f"the answer is {is_now} ; it must be {should}",
        )
    )


def blame(r: Random, should: str, bad: Operation | None) -> str:
    """A critique that knows which other operation the answer came from, if any."""
    return complain(r, should, bad.phrase(r) if bad else None)


def one_rule(r: Random, op: LabelMap, pair: tuple[str, str] | None = None) -> str:
    """One line of a label map, e.g. "dax for animal"."""
    return say_rule(r, [pair or r.choice(op.labels)])


def critique_episode(r: Random, op: Operation, *, part: str = "train") -> Episode:
    """Blame for one failed sample of one call."""
    episode = Episode(r.choice(CRITIQUE))
    if r.random() < 0.04:
        fields = op.draw(r, part)
        current = instruction(r, op, r.choice(("vague", "precise")))
        failure = Failure(current, fields, op.solve(fields).answer, "it is right", None)
        return episode.turn(failure.render(), [("critique", IT_IS_RIGHT.split())])
    failure = fail(r, op, part=part, partly=op.name in _GIVES_OBJECT and r.random() < 0.3)
    if isinstance(op, LabelMap):
        answer = failure.feedback.split()[-1]
        text = blame(r, one_rule(r, op, next(p for p in op.labels if p[1] == answer)), None)
        if is_precise(failure.current, op):
            text = IT_IS_RIGHT
    elif failure.bad is None and is_precise(failure.current, op):
        text = IT_IS_RIGHT
    else:
        text = blame(r, op.phrase(r), failure.bad)
    return episode.turn(failure.render(), [("critique", text.split())])


def chain_critique_episode(r: Random, *, part: str = "train") -> Episode:
    """Blame for the second call of a chain (describe an object): its instruction, its input, or both."""
    attribute = r.choice(words.ATTRIBUTES)
    op = OPS[attribute]
    while True:
        wanted, received = r.choice(words.OBJECTS), r.choice(words.OBJECTS)
        input_right = r.random() < 0.45
        gold = words.ATTR[wanted][attribute]
        if input_right:
            received = wanted
        elif words.ATTR[received][attribute] == gold:
            continue
        fields: Fields = {"text": [received]}
        bad = None if not input_right and r.random() < 0.55 else r.choice(rivals(op))
        given = (bad or op).solve(fields)
        if given.answer != [gold]:
            break
    level = r.choice(("vague", "partial", "precise")) if bad else "precise"
    failure = Failure(instruction(r, bad or op, level), fields, given.answer, feedback([gold]), bad)
    own = IT_IS_RIGHT if bad is None else blame(r, op.phrase(r), bad)
    other = IT_IS_RIGHT if input_right else f"the answer should be a {gold} thing"
    return Episode(r.choice(CRITIQUE_WITH_INPUT)).turn(
        failure.render(), [("critique", own.split()), ("input_critique", other.split())]
    )


def made_up(r: Random) -> str:
    """A wording of no operation at all, e.g. "the shade of the dax"; it can only be copied."""
    nouns = (*words.OBJECTS, *words.LABELS, *words.NAMES, *(word for group in words.TOPICS.values() for word in group))
    x, y = r.sample(nouns, 2)
    adjective = r.choice((*words.COLORS, *words.SIZES, *words.POSITIVE, *words.NEGATIVE, "first", "last", "second"))
    attribute = r.choice(
        ("kind", "type", "color", "shade", "size", "place", "location", "number", "sum", "name", "topic")
    )
    form = r.choice(
        (
            "the {a} of the {x}",
            "the {x} of the {y}",
            "the {x} in the {y}",
            "the {j} {x} of the list",
            "the {x} of the text",
            "the {x} in the list",
            "the {a} of what the {x} has",
            "the {a} of the {j} {x}",
            "what the {x} has",
            "how many {x} things there are",
            "if the {x} is {j} or {y}",
        )
    )
    return form.format(a=attribute, j=adjective, x=x, y=y)


def copy_episode(r: Random) -> Episode:
    """Improving towards a made-up wording: the words of most critiques, whatever they mean."""
    n = r.randint(1, 6)
    wrong = r.randint(0, int(0.4 * n))
    target, *noise = [made_up(r) for _ in range(1 + wrong)]
    now = r.choice((made_up(r), None))
    current = r.choice(VAGUE) if now is None or r.random() < 0.6 else f"{r.choice(VERBS)} {now}"
    critiques = [complain(r, target, now) for _ in range(n - wrong)] + [complain(r, other, now) for other in noise]
    r.shuffle(critiques)
    user = ["[[instruction]]", *current.split()]
    for text in critiques:
        user += ["[[critique]]", *text.split()]
    sentence = f"{r.choice(VERBS)} {target} {r.choice(TAILS)}".strip()
    return Episode(r.choice(IMPROVE)).turn(user, [("instruction", sentence.split())])


def improve_episode(r: Random, op: Operation, count: int | None = None) -> Episode:
    """Rewrite an instruction as most of its critiques ask; some of them are wrong."""
    n = count or r.choices(range(1, 7), (4, 2, 2, 2, 2, 2))[0]
    wrong = r.randint(0, int(0.4 * n)) if r.random() < 0.6 else 0
    others = rivals(op)
    if isinstance(op, LabelMap):
        current = instruction(r, op, r.choice(("vague", "partial")))
        pairs = list(op.labels)
        n = max(n, len(pairs))
        order = [*r.sample(pairs, len(pairs)), *(r.choice(pairs) for _ in range(n - len(pairs)))]
        r.shuffle(order)
        critiques = [blame(r, one_rule(r, op, pair), None) for pair in order]
        first_seen = list(dict.fromkeys(order))
        target = f"{r.choice(VERBS)} {say_rule(r, first_seen)} {r.choice(TAILS)}".strip()
    elif r.random() < 0.06:
        current = target = precise(r, op)
        critiques = [IT_IS_RIGHT] * (n - wrong)
        critiques += [blame(r, r.choice(others or [op]).phrase(r), op) for _ in range(wrong)]
        r.shuffle(critiques)
    else:
        bad = r.choice(others) if others and r.random() < 0.85 else None
        current = instruction(r, bad or op, r.choice(("vague", "vague", "partial", "precise")) if bad else "vague")
        critiques = [blame(r, op.phrase(r), bad) for _ in range(n - wrong)]
        noise = r.sample(others, min(wrong, len(others)))
        critiques += [IT_IS_RIGHT if r.random() < 0.2 else blame(r, other.phrase(r), bad) for other in noise]
        r.shuffle(critiques)
        target = precise(r, op)
    user = ["[[instruction]]", *current.split()]
    for text in critiques:
        user += ["[[critique]]", *text.split()]
    return Episode(r.choice(IMPROVE)).turn(user, [("instruction", target.split())])


def induct_episode(r: Random, op: Operation, count: int | None = None, *, part: str = "train") -> Episode:
    """Write the instruction that examples obey."""
    n = count or (r.randint(4, 6) if op.family == "label-map" else r.randint(1, 6))
    user: list[str] = []
    for _ in range(n):
        fields = op.draw(r, part)
        user += [*render(fields), "[[answer]]", *op.solve(fields).answer]
    return Episode(r.choice(INDUCT)).turn(user, [("instruction", precise(r, op).split())])


# --- the mixture ---

WEIGHTS = {
    "pick": 4.0,
    "list": 3.0,
    "count": 1.0,
    "pick-number": 1.0,
    "extreme": 1.2,
    "sort": 1.2,
    "attr": 1.5,
    "sentiment": 0.5,
    "topic": 0.5,
    "lookup": 1.2,
    "pick-name": 0.8,
    "attr-of-pick": 3.5,
    "find-kind": 2.0,
    "find-value": 2.0,
    "attr-of-kind": 2.0,
    "count-kind": 2.0,
    "count-color": 1.5,
    "odd": 1.5,
    "attr-of-odd": 1.2,
    "sum": 2.0,
    "sum-parity": 1.0,
    "second-largest": 1.0,
    "range": 1.2,
    "count-even": 1.0,
    "attr-lookup": 1.8,
    "thing-of-name": 0.8,
    "attr-of-name": 1.5,
}
"""How often each family is drawn in the mixture."""


def draw_op(r: Random, *, meta: bool) -> Operation:
    """Draw an operation by family weight; for meta-tasks without the held-out families."""
    weights = {k: v for k, v in WEIGHTS.items() if not meta or k not in HELD_OUT_FAMILIES}
    while True:
        name = r.choice(FAMILIES[r.choices(list(weights), list(weights.values()))[0]])
        if name not in HELD_OUT_COMPOSITIONS:
            return OPS[name]


def meta_episode(r: Random) -> Episode:
    """One critique, improvement or induction."""
    kind = r.choices(("critique", "chain", "improve", "copy", "induct"), (11, 4, 6, 3, 9))[0]
    if kind == "chain":
        return chain_critique_episode(r)
    if kind == "copy":
        return copy_episode(r)
    op = make_map(r) if r.random() < 0.1 else draw_op(r, meta=True)
    if kind == "critique":
        return critique_episode(r, op)
    return improve_episode(r, op) if kind == "improve" else induct_episode(r, op)


def mixture_episode(r: Random, progress: float = 1.0) -> Episode:
    """Word maps 5 %, class maps 12 %, meta-tasks 34 %, tasks 49 %.

    Args:
        r: Source of randomness.
        progress: Share of the training done; meta-tasks and vague instructions are rarer at its start.
    """
    early = progress < 0.15
    x = r.random()
    if x < 0.05:
        return word_map_episode(r)
    if x < 0.17:
        return class_map_episode(r)
    if x < (0.35 if early else 0.51):
        return meta_episode(r)
    op = draw_op(r, meta=False)
    level = r.choices(("precise", "partial", "vague"), (55, 10, 35) if early else (42, 8, 50))[0]
    if level == "precise":
        shots = r.choices(range(1, 7), (3, 2, 2, 1, 1, 1))[0]
    else:
        shots = r.choices(range(1, 9), (2, 1, 1, 1, 1, 1, 2, 3))[0]
    reason = r.random() < (0.5 if op.hops == 2 else 0.12)
    return task_episode(r, op, level, shots, reason=reason, noise=0.15 if r.random() < 0.12 else 0.0)


def build_vocabulary() -> list[str]:
    """Every word of the world: the special tokens, the field markers, then all words in alphabetical order."""
    sentences = [*VERBS, *TAILS, *VAGUE, *CRITIQUE, *CRITIQUE_WITH_INPUT, *IMPROVE, *INDUCT, IT_IS_RIGHT]
    sentences += [wording for group in PARTIAL.values() for wording in group]
    sentences += list(phrase_table())
    sentences += ["the answer gives but it should be and not the answer is ; it must be the answer is wrong a thing"]
    sentences += ["if it is for and"]
    r = Random(0)
    for op in OPS.values():
        for _ in range(40):
            sentences += [" ".join(op.sample(r)["text"]), " ".join(op.solve(op.sample(r)).reasoning)]
    found = {word for sentence in sentences for word in sentence.split()}
    for group in (
        words.OBJECTS,
        words.KINDS,
        words.PLURAL.values(),
        words.COLORS,
        words.SIZES,
        words.PLACES,
        words.POSITIVE,
        words.NEGATIVE,
        words.SENTIMENT.values(),
        words.TOPICS,
        words.TOPIC,
        words.NAMES,
        words.NUMBERS,
        words.LABELS,
    ):
        found.update(group)
    return [*SPECIALS, *MARKERS, *sorted(found)]
