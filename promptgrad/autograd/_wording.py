"""How alike two critiques are in their words: the measure that clusters are made by when no other is given.

A text is read as a set of word stems, each *wanted* or *unwanted* where it stands: negated, too much, wrong, or what a
clause says that happened beside one that says what should happen. Likeness is the weighted Jaccard coefficient of two
such sets, in which function words count nothing and the phrases that every critique is made of ("the instruction should
say") a tenth. That is blind to the one word that matters in a long text, so it is 0 for texts which

- differ in their numbers, or in words of opposition and order (first, last, at most, before, upper, ...);
- want what the other does not want;
- say that what the other asks for, or misses, is there ("the answer has a unit", "the answer should have a unit");
- differ by one word between the same two others ("the color of the dog", "the size of the dog");
- lead the same words the other way ("from English to French", "from French to English").

Word lists are English. Texts in other languages are compared by the same sets without them.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

HEAVY, LIGHT = 10, 1

_PHRASES = [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"n['\u2019]t\b", " not"),
        (r"\bcannot\b", "can not"),
        (r"\b(?:has|have) to\b|\bit is (?:important|necessary|essential|best|better) (?:to|that)\b", "must"),
        (r"\b(?:is|are) ((?:not )?)to be\b", r"should \1be"),
        (r", so\b(?! (?:that|it|they)\b)", ""),
        (r"\band(?= (?:(?:it|they) )?(?:should|must|ought|needs?)\b)", ";"),
        (r", (?:and )?(?:which|this|that|it) (is|are)(?= (?:wrong|incorrect|mistaken|bad)\b)", r" \1"),
        (r"\bthere is no (?:need|reason|point)\b", "do not"),
        (r"\bit is (?:wrong|incorrect|mistaken|bad) to\b", "avoid"),
        (r"\b(?:overly|excessive(?:ly)?|(?:unnecessarily|needlessly)(?= \w)|(?:far|way|much) too)\b", "too"),
        (r"['\u2019]s\b", ""),
        (r"\b(?:no|not) more than\b|\bup to\b|\b(?:a )?maximum of\b", "at most"),
        (r"\b(?:no|not) (?:less|fewer) than\b|\b(?:a )?minimum of\b", "at least"),
        (r"\bleaves (?:it )?(?:open|unclear|out|unsaid|unspecified)\b", "lacks"),
        (r"\b(?:fail(?:s|ed) to|is missing|ignores|omits|misses|overlooks|neglects)\b", "lacks"),
        (r"\b(word|character|letter|sentence|line|digit|token)(s?) long\b", r"\1\2"),
        (r"\bone\b(?=\s*(?:of|in|when|if|that|which|is|should|must|and|or|[^\w\s]|$))", ""),
        (r"\bnothing (?:else|more)\b", "only"),
        (r"\b(upper|lower)case\b", r"\1 case"),
        (r"(?<=\d),(?=\d{3}\b)", ""),
    )
]
_QUOTED = re.compile(r"[\"'`\u201c\u2018]([^\w\s\"'`]+)[\"'`\u201d\u2019]")  # as in: separate them by ";"
_WORD = re.compile(
    r"(?<![\w)])-?\d+(?:\.\d+)?(?:st|nd|rd|th)?\b"
    r"|\w+(?:-\w+)*|[%$\u20ac\u00a3\u00b0+<>=]|[.,;:!?()\n]"
)
_BREAKS = frozenset(".,;:!?()\n") | {"but", "while", "whereas"}
_CASES = frozenset(("if", "when", "whenever", "unless", "until"))
_CONDITIONS = _CASES | {"because", "since"}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _canon(table: str) -> dict[str, str]:
    """`"a: b c"` a line: each word of the line stands for the first."""
    return {
        word: head for line in table.splitlines() for head, _, rest in [line.partition(":")] for word in rest.split()
    }


_FUNCTION = _words(
    """a an the this that these those there here it its they them their he she his her we our you your i my
    and or then so as never which who whom whose what where when how why whether
    of in on at to for from by with into onto about than per via between within during
    is are was were be been being am do does did done has have had having will would can could may might
    should must need needs needed ought shall also too very just quite rather instead such some any other another own
    please clearly explicitly specifically simply really actually however therefore thus
    make makes made sure ensure get gets got let"""
)
_LIGHT = _canon(
    """say: say says said saying state states stated stating specify specifies specified specifying mention mentions
say: mentioned mentioning tell tells told telling indicate indicates indicated ask asks asked asking require requires
say: required request requests requested give gives gave given giving provide provides provided write writes wrote
say: written return returns returned clarify clarifies clarified declare
answer: answer answers answered answering output outputs response responses respond reply replies result results
instruction: instruction instructions prompt prompts
lack: lacks
wrong: wrong incorrect incorrectly wrongly bad mistaken unclear vague ambiguous
right: right correct correctly rightly
use: use uses used using
only: only solely merely alone"""
)
_PIVOTS = _canon(
    """first: first initial 1st
second: second 2nd
third: third 3rd
last: last final
next: next following subsequent
previous: previous preceding
before: before
after: after
begin: begin begins beginning start starts starting
end: end ends ending
most: most maximum
least: least minimum
more: more
less: less fewer
long: long longer longest
short: short shorter shortest
great: large larger largest great greater greatest big bigger biggest
small: small smaller smallest
high: high higher highest
low: low lower lowest
every: all every each always
none: none nobody
both: both
either: either
upper: upper capital capitals capitalized
lower: lower
ascending: ascending increasing
descending: descending decreasing
include: include includes included including
exclude: exclude excludes excluded excluding omit omitted omitting
add: add adds added adding
remove: remove removes removed removing delete deletes deleted
singular: singular
plural: plural
positive: positive
negative: negative
true: true
false: false
yes: yes
no: no
above: above over
below: below under
exact: exact exactly
reverse: reverse reversed backwards
odd: odd
even: even"""
)
_DIRECTIONS = _canon(
    """from: from
to: to into towards toward
before: before
after: after
than: than
above: above over
below: below under"""
)
_OPPOSITES = _canon(
    """order: first second third last next previous
time: before after begin end
amount: most least more less exact
size: long short great small high low
all: every none both either
case: upper lower
direction: ascending descending reverse
give: include exclude add remove
count: singular plural odd even
sign: positive negative true false yes no
place: above below"""
)
_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
} | {"single": "1", "twenty": "20", "hundred": "100", "thousand": "1000"}
_MODALS = _words("should must need needs needed required ought shall instead")
_ENDS = _MODALS | _words(
    "of in on at to for from by with into onto about than per via between within during before after"
)
_COPULAS = _words("is are was were")
_INDICATIVES = _COPULAS | {"does", "did"}
_AUXILIARIES = _INDICATIVES | _words("do must should can could may might will would be has have had need shall ca wo")
_SUBJECTS = _words("instruction instructions prompt prompts")
_KNOWN = _FUNCTION | _PIVOTS.keys() | _NUMBERS.keys()
_LEFT = frozenset(("+left", "-left"))
_TURNS = _words("without except nor neither avoid avoids avoiding")
_INSTEAD = {("instead", "of"), ("rather", "than")}
_REPORTS = _words(
    """is are was were does did has had gives gave says said states stated returns returned writes wrote names named
    answers answered uses used outputs picks picked chooses chose lists listed shows showed contains contained takes
    took counts counted reports reported repeats repeated cites cited mentions mentioned"""
)
_OPENINGS = _INDICATIVES | _words("the a an it its they their there this these he she no")
_PLURALS = frozenset(("are", "were", "do"))
_ORDERS = _words("do please also always say state ensure make check verify see assume remember note")
_RELATIVES = _words("that which who whom whose where what how why whether")
_GRANTS = _words("allowed permitted supposed meant expected necessary enough only")
_CONTRARY = ({"report", "must"}, {"report", "lack"}, {"phrase", "lack"})
_FAULTS = _words("wrong incorrect mistaken bad")


class Wording(NamedTuple):
    """A text as it is compared.

    Attributes:
        marks: Its numbers, and its words of each kind of opposition, in their order: the first of the last is not the
            last of the first.
        heavy: Stems that carry meaning, each with "+" (wanted) or "-" before it.
        light: Words that most critiques are made of.
        contexts: The neighbours of each stem.
        toward: For each word of direction, the stems that follow it.
        weight: Of all its words.
        mood: "must" if it says what should be, else "lack" if it says what is not there, else "report" if it says what
            is there, "phrase" if it may do so, and "" for an order.
    """

    marks: tuple[tuple[str, tuple[str, ...]], ...]
    heavy: frozenset[str]
    light: frozenset[str]
    contexts: dict[str, frozenset[tuple[str, str]]]
    toward: dict[str, frozenset[str]]
    weight: int
    mood: str


def read(text: str) -> Wording:
    """What of a text counts."""
    sequence: list[str] = []
    marks: dict[str, list[str]] = {}
    light: set[str] = set()
    toward: dict[str, set[str]] = {}
    direction = ""
    mood, roles = _roles(text)
    for word, unwanted in roles:
        role = "-" if unwanted else "+"
        known = len(sequence)
        if word in _DIRECTIONS:
            direction = _DIRECTIONS[word]
        if word in _NUMBERS or word[-1].isdigit():
            number = _NUMBERS.get(word, word)
            marks.setdefault(role, []).append(number)
            sequence.append(role + number)
        elif word in _PIVOTS:
            pivot = _PIVOTS[word]
            marks.setdefault(role + _OPPOSITES[pivot], []).append(pivot)
            sequence.append(role + pivot)
        elif word in _LIGHT:
            light.add(_LIGHT[word])
        elif word not in _FUNCTION or (direction and len(word) == 1 and word != "s"):  # from a to b
            sequence.append(role + stem(word))
        if direction and len(sequence) > known and word not in _DIRECTIONS:
            toward.setdefault(direction, set()).add(sequence[-1][1:])
            direction = ""
    if not sequence and not light:  # nothing but function words: then they are what there is
        sequence = ["+" + word for word in text.split()]
    contexts: dict[str, set[tuple[str, str]]] = {}
    for before, at, after in zip(["", *sequence], sequence, [*sequence[1:], ""], strict=False):
        contexts.setdefault(at, set()).add((before, after))
    return Wording(
        tuple(sorted((kind, tuple(said)) for kind, said in marks.items())),
        frozenset(sequence),
        frozenset(light),
        {at: frozenset(places) for at, places in contexts.items()},
        {way: frozenset(stems) for way, stems in toward.items()},
        HEAVY * len(contexts) + LIGHT * len(light),
        mood,
    )


def alike(one: Wording, other: Wording) -> float:
    """How alike two texts are, from 0 to 1: symmetric, and 1 for a text with itself."""
    shared = HEAVY * len(one.heavy & other.heavy) + LIGHT * len(one.light & other.light)
    if not shared or one.marks != other.marks or _contradicted(one, other):
        return 1.0 if one == other else 0.0
    return shared / (one.weight + other.weight - shared)


def neighbours(wordings: Sequence[Wording], threshold: float) -> Iterator[tuple[int, int, float]]:
    """All pairs (i, j), i < j, at least `threshold` alike, each once.

    Two sets that share a given part of their weight share one of their rarest members: each set is looked up by these
    alone. The candidates that this leaves are compared as bit masks, and read closely only if they are near enough.

    Source: Bayardo, Ma, Srikant 2007, "Scaling up all pairs similarity search": prefix filtering.
    """
    frequency: dict[str, int] = {}
    for wording in wordings:
        for member in (*wording.heavy, *wording.light):
            frequency[member] = frequency.get(member, 0) + 1
    ranks = {
        member: rank for rank, member in enumerate(sorted(frequency, key=lambda member: (frequency[member], member)))
    }
    masks = [
        (sum(1 << ranks[member] for member in wording.heavy), sum(1 << ranks[member] for member in wording.light))
        for wording in wordings
    ]
    index: dict[object, list[int]] = {}
    for i, wording in enumerate(wordings):
        weight, rest = wording.weight, wording.weight
        keys: list[object] = []
        for member in sorted((*wording.heavy, *wording.light), key=ranks.__getitem__):
            if rest < threshold * weight:
                break
            rest -= HEAVY if member in wording.heavy else LIGHT
            keys.append((wording.marks, member))
        found: dict[int, None] = {}
        for key in keys:
            same = index.setdefault(key, [])
            found.update(dict.fromkeys(same))
            same.append(i)
        heavy, light = masks[i]
        part = threshold / (1 + threshold)  # a share of the union is this share of the sum
        for j in found:
            shared = HEAVY * (heavy & masks[j][0]).bit_count() + LIGHT * (light & masks[j][1]).bit_count()
            if shared >= part * (weight + wordings[j].weight) - 1e-6:
                value = alike(wordings[j], wording)
                if value >= threshold:
                    yield j, i, value


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """A word without its common English endings, so that its forms meet; seldom a word itself.

    >>> stem("rounded") == stem("rounding") == stem("rounds"), stem("metres") == stem("meter")
    (True, True)
    """
    if len(word) > 4:
        for ending, left in (("ies", "y"), ("ied", "y"), ("ing", ""), ("ed", ""), ("ly", ""), ("es", "e"), ("s", "")):
            if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
                word = word[: -len(ending)] + left
                break
    elif len(word) == 4 and word[-1] == "s" and word[-2] not in "sui":
        word = word[:-1]
    if len(word) > 3 and word.endswith("re"):  # metre, centre
        word = word[:-2] + "er"
    if len(word) > 4 and word.endswith("our"):  # colour
        word = word[:-3] + "or"
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] == "e" else word


def _roles(text: str) -> tuple[str, list[tuple[str, bool]]]:
    """The mood of a text (see `Wording`), and its words, each with whether it is unwanted where it stands."""
    text = _QUOTED.sub(lambda mark: " quoted_" + "_".join(str(ord(sign)) for sign in mark[1]) + " ", text.casefold())
    for pattern, words in _PHRASES:
        text = pattern.sub(words, text)
    clauses = list(_clauses(_WORD.findall(text)))
    prescribes = any(not _MODALS.isdisjoint(clause) for _, clause in clauses)
    mood = "must" if prescribes else ""
    roles: list[tuple[str, bool]] = []
    for opener, clause in clauses:
        told = _told(opener, clause)
        excess = [at for at, word in enumerate(clause[1:]) if clause[at] == "too" and word not in _FUNCTION]
        turns, unwanted, lacks = _negations(opener, clause, told, excess)
        if not prescribes and opener not in _CASES and _is_fault(clause):
            unwanted = not unwanted
        plain = not (turns or unwanted or lacks or excess) and _MODALS.isdisjoint(clause)
        happened = plain and prescribes and opener not in _CONDITIONS and not _REPORTS.isdisjoint(clause)
        if lacks and not prescribes:
            mood = "lack"
        elif plain and told and mood in ("", "phrase"):
            mood = "phrase" if _REPORTS.isdisjoint(clause[:told]) else "report"
        rest = unwanted
        for place, word in enumerate(clause):
            if word in _ENDS:
                unwanted = rest
            if place in turns:
                unwanted = rest = not unwanted
            elif place in excess:
                unwanted = True
            elif happened and not unwanted and word in _REPORTS:
                unwanted = rest = True  # what the answer *is*, in a text that says what it should be
            elif word != "not" and not (word == "no" and lacks):
                roles.append((word, unwanted))
    return mood, roles


def _is_fault(clause: Sequence[str]) -> bool:
    """Whether a clause says of all before that it is wrong."""
    return clause[-1] in _FAULTS and len(clause) > 3 and clause[-2] in _COPULAS and _RELATIVES.isdisjoint(clause)


def _told(opener: str, clause: Sequence[str]) -> int:
    """How many words of a clause, from its beginning, tell what there is: none of an order, a wish or a condition."""
    names = clause[0] not in _ORDERS and not _PLURALS.isdisjoint(clause[1:3])  # units are
    if opener in _CASES or not (names or clause[0] in _OPENINGS):
        return 0
    return next((place for place, word in enumerate(clause) if word in _RELATIVES or word in _MODALS), len(clause))


def _negations(opener: str, clause: Sequence[str], told: int, excess: Sequence[int]) -> tuple[set[int], bool, bool]:
    """Where a clause turns to its contrary, whether it begins there, and whether it names what is not there."""
    turns: set[int] = set()
    whole, lacks = opener == "unless", "lacks" in clause
    if lacks and opener in _CASES:
        whole, lacks = not whole, False
    modal = False
    for place, word in enumerate(clause):
        before, after = clause[place - 1] if place else "", clause[place + 1] if place + 1 < len(clause) else ""
        modal = modal or word in _MODALS
        if word in ("not", "never"):
            answers_do = before == "do" and place > 1 and clause[place - 2].endswith("s")
            if answers_do or (word == "never" and after.endswith("s")):
                before = "does"
            absent = place < told and after not in _MODALS and _GRANTS.isdisjoint(clause[place:told])
            if any(place < at < place + 4 for at in excess):
                continue  # what should not be too much is wanted as little as what is
            if not modal and before in _INDICATIVES and (absent or not _SUBJECTS.isdisjoint(clause[:place])):
                lacks = True  # it does not say what it should
            elif before in _AUXILIARIES and (after == "be" or before in _COPULAS):
                whole = not whole  # a passive: what should not be used
            else:
                turns.add(place)
        elif word == "no" and "or" not in (before, after or "or"):
            if place < told and not _REPORTS.isdisjoint([before] if before else clause[:told]):
                lacks = True
            else:
                turns.add(place)
        elif word in _TURNS or (word, after) in _INSTEAD:
            turns.add(place)
    return turns, whole, lacks


def _clauses(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The clauses of a text, each with the mark or the word that opens it."""
    opener, clause = "", list[str]()
    for word in words:
        if word in _BREAKS or word in _CONDITIONS:
            if clause:
                yield opener, clause
            opener, clause = word, []
        elif "-" in word[1:] and not _KNOWN.isdisjoint(parts := word.split("-")):
            clause += parts
        else:
            clause.append(word)
    if clause:
        yield opener, clause


def _contradicted(one: Wording, other: Wording) -> bool:
    """Whether one wants what the other does not, or has a word where the other has another between the same two."""
    if {one.mood, other.mood} in _CONTRARY:
        return True
    mine, theirs = one.heavy - other.heavy, other.heavy - one.heavy
    if "right" in one.light ^ other.light and ("wrong" in one.light ^ other.light or _LEFT & (mine | theirs)):
        return True
    if any(_turned(one, other, way) and _turned(other, one, way) for way in one.toward.keys() & other.toward.keys()):
        return True
    if not mine or not theirs:
        return False
    if any(("-" if member[0] == "+" else "+") + member[1:] in theirs for member in mine):
        return True
    places = {place for member in theirs for place in other.contexts[member]}
    return any(not places.isdisjoint(one.contexts[member]) for member in mine)


def _turned(one: Wording, other: Wording, way: str) -> bool:
    """Whether one leads to a word of the other that the other does not lead to."""
    stray = one.toward[way] - other.toward[way]
    return any(stray_word == member[1:] for stray_word in stray for member in other.heavy)
