"""Proposals without a writer: a text without sentences that seem to harm, and with such of others that seem to help."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from promptgrad.run import value_digest
from promptgrad.search._candidate import Candidate
from promptgrad.search._edit import edit_ratio
from promptgrad.search._effects import Effects
from promptgrad.search._rewriter import Edit, Evidence, Rewriter

if TYPE_CHECKING:
    from promptgrad.search._session import Session
    from promptgrad.search._steps import Step

MOVES = 3
"""Most sentences that are left out or added in a proposal."""

FEW = 4
"""Candidates below which nothing is known of their sentences."""

MOST = 150
"""Candidates that sentences are judged by, those with most runs on validation examples."""

DRAWS = 4
"""Draws for each proposal that is wanted: some say what was tried, or promise nothing."""

_END = r"(?<=[.!?])(?<!\d\.)(?<!e\.g\.)(?<!i\.e\.)\s+(?=[^a-z\s])|(?<=[\u3002\uff01\uff1f])\s*|\n\s*|\Z"
_SENTENCE = re.compile(rf"```.*?(?:```\s*|\Z)|[^\n]+?(?:{_END})", re.DOTALL)
_MARK = re.compile(r"\s*(?:[-*•]|(\d{1,3})([.)]))\s+")

Part = tuple[str, str]
"""A sentence of a text, or another value: the path of the parameter, and what the sentence says or the digest."""


def recombined(
    rewriter: Rewriter, step: "Step", base: Candidate, texts: Sequence[Evidence], first: int, count: int = 2
) -> list[Edit]:
    """Propose the texts of a candidate with up to three sentences left out, or taken over from other candidates.

    What a sentence adds is estimated from all runs of all candidates that hold it (`Effects`), those on training
    examples included; so what one candidate learned is put together with what others did. The first proposal is by what
    is expected of the sentences, others by draws from what is believed of them (Thompson sampling). None promises less
    than its base, and none was tried before. With fewer than four candidates, or where these share no sentences that
    tell them apart, there is little to go by and often no proposal. Solutions are left as they are.

    Cost: no LM call.
    Source: leaving out and adding phrases is from GrIPS (Prasad et al. 2023, arXiv 2203.07281), which draws them at
    random and measures each.

    Args:
        rewriter: Its memory and rules decide what may be tried.
        step: The step.
        base: The candidate whose texts are changed.
        texts: What is known of them.
        first: Number of the first proposal.
        count: Most proposals.
    """
    session, open_ = step.session, {text.path: text for text in texts if not text.parameter.kind.exact}
    tried, said = _tried(session, base), dict[Part, str]()
    known = [(one, scores) for one in _most_run(session, tried) if (scores := _scores(session, one))]
    if len(known) < FEW:
        return []
    known.sort(key=lambda entry: -len(entry[1]))
    own = _parts(session, base, open_, said)
    held = [_parts(session, one, open_, said) for one, _ in known]
    effects = Effects(held, [scores for _, scores in known], session.best_score)
    mean, rng = {part: gain for part, gain in effects.mean().items() if part in said}, session.rng(step.name)
    out, made = {one.key for one in tried}, list[list[Edit]]()
    for draw in range(DRAWS * count):
        weights = effects.draw(rng) if draw else mean
        moves = _moves(own, {part: weights[part] for part in mean})
        if len(made) == count or sum(sign * mean[part] for part, sign in moves.items()) <= 0:
            continue
        edits = _edits(rewriter, open_, moves, said, first + len(made))
        child = base.child({path: text for edit in edits for path, text in edit.values.items()}, step.name)
        if child.key not in out and all(edit.passed for edit in edits):
            out.add(child.key)
            made.append(edits)
    found = [edit for edits in made for edit in edits]
    rewriter.settle(step, [(open_[edit.path].parameter, edit) for edit in found])
    return found


def _parts(
    session: "Session", candidate: Candidate, open_: Mapping[str, Evidence], said: dict[Part, str]
) -> frozenset[Part]:
    """What makes a candidate as good as it is: its sentences, noted in `said`, and its other values as they are."""
    parts = {(path, value_digest(value)) for path, value in candidate.values.items() if path not in open_}
    for path in open_:
        for sentence in sentences(session.value(path, candidate)):
            part = path, _named(sentence)
            said.setdefault(part, _bare(sentence))
            parts.add(part)
    return frozenset(parts)


def _edits(
    rewriter: Rewriter, open_: Mapping[str, Evidence], moves: Mapping[Part, int], said: Mapping[Part, str], number: int
) -> list[Edit]:
    """The edits of the texts that moves change, checked."""
    edits = []
    for path, text in open_.items():
        old, new = str.__str__(text.text), _moved(text, moves, said)
        if new != old:
            rules, spent = text.rules.after(text.parameter.constraints), rewriter.memory.spent(text.parameter)
            reason = rules.refusal(old, new, tried=spent) or ""
            edits.append(Edit(path, old, new, reason, edit_ratio(old, new), variant=number))
    return edits


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, each with the space behind it; together they are the text.

    A fenced block is one of them.

    >>> sentences("Read it twice. Answer with one word, e.g. yes.")
    ['Read it twice. ', 'Answer with one word, e.g. yes.']
    """
    return [match.group() for match in _SENTENCE.finditer(str.__str__(text)) if match.group().strip()]


def _tried(session: "Session", base: Candidate) -> list[Candidate]:
    """All candidates of the program of `base` that were run, the oldest first."""
    found = {one.key: one for one in (*(known.candidate for known in session.standings), *session.rows.candidates())}
    return [one for one in found.values() if one.label == base.label]


def _most_run(session: "Session", tried: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that were run on most validation examples, in their order."""
    runs = [0 if (known := session.standings.of(one)) is None else len(known.ids) for one in tried]
    kept = sorted(sorted(range(len(tried)), key=lambda place: -runs[place])[:MOST])
    return [tried[place] for place in kept]


def _scores(session: "Session", candidate: Candidate) -> dict[str, float]:
    """All scores that are known of a candidate, by example."""
    measured, trained = session.standings.of(candidate), session.rows.measured(candidate, session.train)
    return trained.by_id() | (measured.by_id() if measured is not None else {})


def _moves(own: frozenset[Part], effects: Mapping[Part, float]) -> dict[Part, int]:
    """The sentences to leave out (-1) and to take over (1) that gain most."""
    signs = {part: -1 if part in own else 1 for part in effects}
    gains = {part: round(sign * effects[part], 9) for part, sign in signs.items()}
    best = sorted(gains, key=lambda part: -gains[part])[:MOVES]
    return {part: signs[part] for part in best if gains[part] > 0}


def _moved(text: Evidence, moves: Mapping[Part, int], said: Mapping[Part, str]) -> str:
    """A text after moves: what is left of it as it stands, and what is added at its end."""
    out = {name for (path, name), sign in moves.items() if path == text.path and sign < 0}
    new = "".join(each for each in sentences(text.text) if _named(each) not in out).rstrip()
    for (path, name), sign in moves.items():
        if path == text.path and sign > 0:
            new = _after(new) + said[path, name]
    return new


def _after(text: str) -> str:
    """A text with all that stands before the next sentence at its end: a space, or a new line with the list's mark."""
    lines = text.splitlines()
    if not lines:
        return ""
    mark = _MARK.match(lines[-1])
    if mark is None:
        return f"{text}\n" if len(lines) > 1 else f"{text} "
    number = mark[1]
    return f"{text}\n{mark.group().replace(number, str(int(number) + 1), 1) if number else mark.group()}"


def _bare(sentence: str) -> str:
    """A sentence without the mark of its list."""
    mark = _MARK.match(sentence)
    return (sentence[mark.end() :] if mark else sentence).strip()


def _named(sentence: str) -> str:
    """What a sentence says, whatever its case, spaces and mark."""
    return " ".join(_bare(sentence).split()).casefold()
