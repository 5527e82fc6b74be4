"""The scored attempts at one text, as its writer sees them: the promising apart from those known to be worse."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptgrad.search._candidate import Candidate, Measured
from promptgrad.search._places import Place

if TYPE_CHECKING:
    from promptgrad.search._session import Session

MOST = 6
"""Attempts of each sort that are shown."""

PRESENT = "(the present version)"
"""What stands in place of the present text where there is no other: the writer has it in full."""

WORSE = 1.0
"""How many standard deviations below the present text a gain must lie for its text to be known as worse."""


def attempted(
    session: "Session", place: Place, candidate: Candidate
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every scored version of a text: (those that may be promising, those that are known to be worse), best first.

    A version has its text, its mean score and the number of held-out rows behind it; the rows themselves are never
    shown. The present one stands among the others with its text, so that what they differ in can be compared. Where
    other parameters were changed with it, it names them. Of a text that several candidates had, the best one counts.
    """
    believed = {standing.candidate.key: standing for standing in session.standings.posterior()}
    present = session.value(place.path, candidate)
    own = believed[candidate.key].gain if candidate.key in believed else 0.0
    found: dict[Any, tuple[float, float, Measured]] = {}
    for measured in session.standings:
        if measured.candidate.label != candidate.label:
            continue  # of another program, which may have no such text
        text, standing = session.value(place.path, measured.candidate), believed.get(measured.candidate.key)
        gain, sd = (standing.gain, standing.sd) if standing is not None else (0.0, 0.0)
        if (text != present or measured.candidate.key == candidate.key) and gain > found.get(text, (-9.0,))[0]:
            found[text] = gain, sd, measured
    promising, worse = list[tuple[float, dict[str, Any]]](), list[tuple[float, dict[str, Any]]]()
    for text, (gain, sd, measured) in found.items():
        other = _others(session, place, measured.candidate, candidate)
        alone = text == present and len(found) == 1
        shown: dict[str, Any] = {"text": PRESENT if alone else str.__str__(text), "score": round(measured.mean, 3)}
        shown |= {"rows": len(measured.known)} | ({"present": True} if text == present and not alone else {})
        shown |= {"with changes of": other} if other else {}
        (worse if text != present and gain + WORSE * sd < own else promising).append((gain, shown))
    return _best(promising), _best(worse)


def attempted_together(
    session: "Session", paths: Sequence[str], candidate: Candidate
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every scored candidate, by what it changes of some texts: (the promising, those known to be worse), best first.

    As `attempted`, for a writer who may change several texts at once.
    """
    believed = {standing.candidate.key: standing for standing in session.standings.posterior()}
    own = believed[candidate.key].gain if candidate.key in believed else 0.0
    promising, worse = list[tuple[float, dict[str, Any]]](), list[tuple[float, dict[str, Any]]]()
    for measured in session.standings:
        if measured.candidate.label != candidate.label:
            continue
        standing = believed.get(measured.candidate.key)
        gain, sd = (standing.gain, standing.sd) if standing is not None else (0.0, 0.0)
        texts = {path: session.value(path, measured.candidate) for path in paths}
        changes = {path: str.__str__(text) for path, text in texts.items() if text != session.value(path, candidate)}
        if not changes and measured.candidate.key != candidate.key:
            continue  # it differs in something else
        shown = {"changes": changes or PRESENT, "score": round(measured.mean, 3), "rows": len(measured.known)}
        (worse if changes and gain + WORSE * sd < own else promising).append((gain, shown))
    return _best(promising), _best(worse)


def _best(attempts: list[tuple[float, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [shown for _, shown in sorted(attempts, key=lambda attempt: -attempt[0])][:MOST]


def _others(session: "Session", place: Place, tried: Candidate, candidate: Candidate) -> list[str]:
    """The other parameters that have another value than in a candidate."""
    paths: Mapping[str, Any] = {**tried.values, **candidate.values}
    return [
        path
        for path in sorted(paths)
        if path != place.path and session.value(path, tried) != session.value(path, candidate)
    ]
