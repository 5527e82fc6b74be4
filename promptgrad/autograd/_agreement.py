"""How far repeated answers of a critic about one call agree: the noise of a critique."""

from collections.abc import Mapping, Sequence

from promptgrad.autograd._cluster import THRESHOLD, Similarity, stars, wording


def blames(answers: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """The texts in which the answers blame each target, in order; the targets in the order of their first blame."""
    found: dict[str, list[str]] = {}
    for answer in answers:
        for target, text in answer.items():
            if blame := (text or "").strip():
                found.setdefault(target, []).append(blame)
    return found


def wordings(texts: Sequence[str]) -> list[str]:
    """One text for each wording, in order: those that remain to be compared by their meaning."""
    found: dict[str, str] = {}
    for text in texts:
        found.setdefault(wording(text), text)
    return list(found.values())


def agreed(
    answers: Sequence[Mapping[str, str]], similarities: Mapping[str, Similarity] | None = None
) -> dict[str, tuple[str, float]]:
    """What repeated answers about one call say of each target, and the share of the answers that say so.

    For each target the texts are clustered as in `Gradient.cluster`. The largest cluster counts, the one that begins
    earliest if several are as large, and its most central text represents it. Answers that do not blame the target
    count as disagreement, so one answer of four gives 0.25 even if no other text contradicts it.

    Args:
        answers: At least one; a target that is missing or empty is not blamed.
        similarities: How alike two texts about a target are, by target; without it those with the same words are.

    Returns:
        The targets that some answer blames, in the order in which they are first blamed. A single answer is returned as
        it is, with an agreement of 1.
    """
    measures = similarities or {}
    return {target: _majority(texts, len(answers), measures.get(target)) for target, texts in blames(answers).items()}


def _majority(texts: Sequence[str], answers: int, similarity: Similarity | None) -> tuple[str, float]:
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    distinct = sorted(places)
    found = []
    for center, members in stars(distinct, [len(places[text]) for text in distinct], THRESHOLD, similarity):
        inside = [place for member in members for place in places[distinct[member]]]
        found.append((-len(inside), min(inside), distinct[center]))
    size, _, text = min(found)
    return text, -size / answers
