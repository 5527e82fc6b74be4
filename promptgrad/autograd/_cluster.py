"""Clusters of critiques that say the same, each with the number of examples behind it."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptgrad.autograd._critique import Critique

THRESHOLD = 0.75

Similarity = Callable[[str, str], float]


@dataclass(frozen=True)
class Cluster:
    """Critiques of one text of one module that say the same.

    Attributes:
        critique: The critique that represents the cluster, with the cluster's support, agreement and examples.
        critiques: The members, in their order.
    """

    critique: "Critique"
    critiques: "tuple[Critique, ...]"

    @property
    def text(self) -> str:
        """The text of the most central critique."""
        return self.critique.text

    @property
    def path(self) -> str:
        """The module."""
        return self.critique.path

    @property
    def target(self) -> str:
        """What is blamed there."""
        return self.critique.target

    @property
    def support(self) -> int:
        """How many examples are behind this: each counts once, however many critiques come from it."""
        return self.critique.support

    @property
    def agreement(self) -> float:
        """The mean agreement of the members, weighted by their support."""
        return self.critique.agreement

    @property
    def examples(self) -> tuple[str, ...]:
        """The ids of these examples, as far as they have one."""
        return examples_of(self.critique)


def examples_of(critique: "Critique") -> tuple[str, ...]:
    """The ids of the examples behind a critique; empty for a critique of an example without an id."""
    return critique.examples or ((critique.example_id,) if critique.example_id else ())


def support_of(critiques: "Sequence[Critique]") -> tuple[int, tuple[str, ...]]:
    """How many examples stand behind critiques that say the same, and those that have an id.

    An example with an id counts once. Support beyond the ids that a critique names (because examples have no id, or
    because it was set by hand) is added.
    """
    examples = tuple(dict.fromkeys(example for critique in critiques for example in examples_of(critique)))
    return len(examples) + sum(max(0, one.support - len(examples_of(one))) for one in critiques), examples


def clusters_of(
    critiques: "Sequence[Critique]", threshold: float = THRESHOLD, similarity: Similarity | None = None
) -> tuple[Cluster, ...]:
    """The clusters, by support, those of equal support by first appearance; see `Gradient.clusters`."""
    if not 0 < threshold <= 1:
        raise ValueError(
            f"threshold is a similarity in (0, 1], not {threshold}: 1 merges only texts that are alike in all respects"
        )
    places: dict[tuple[str, str], dict[str, list[int]]] = {}
    for place, critique in enumerate(critiques):
        text = str.__str__(critique.text)
        places.setdefault((critique.path, critique.target), {}).setdefault(text, []).append(place)
    made: list[tuple[int, Cluster]] = []
    for by_text in places.values():
        texts = sorted(by_text)
        weights = [support_of([critiques[place] for place in by_text[text]])[0] for text in texts]
        for center, members in stars(texts, weights, threshold, similarity):
            exemplar = critiques[by_text[texts[center]][0]]
            inside = [critiques[at] for at in sorted(place for member in members for place in by_text[texts[member]])]
            first = min(by_text[texts[member]][0] for member in members)
            made.append((first, Cluster(_merged(exemplar, inside), tuple(inside))))
    made.sort(key=lambda item: (-item[1].support, item[0]))
    return tuple(cluster for _, cluster in made)


def wording(text: str) -> str:
    """A text without what does not count: white space, the case of the first letter, and the last mark.

    Every other sign counts: a comma turns "No, metres are needed" into its contrary, and `"yes"` is not `"Yes"`.

    >>> wording("Use metres!") == wording("use  metres"), wording("use 3 words") == wording("use 5 words")
    (True, False)
    """
    words = " ".join(text.split())
    words = words.rstrip(" .!") or words
    return words[:1].lower() + words[1:]


def same_group(texts: Sequence[str], groups: Iterable[Iterable[int]]) -> Similarity:
    """A similarity for texts whose groups are known: 1 inside a group and 0 between two.

    For `Gradient.cluster(similarity=...)`, if a language model or a person has decided which critiques agree.

    >>> same = same_group(["name the unit", "give the unit", "be brief"], [[0, 1]])
    >>> same("name the unit", "give the unit"), same("name the unit", "be brief")
    (1.0, 0.0)

    A text in several groups stays in the first. A text in no group is alone, and an index without a text is ignored.
    Texts that `Gradient.cluster` merges by their words count as one.

    Args:
        texts: The texts.
        groups: For each group, the indices of the texts that say the same.
    """
    found: dict[str, int] = {}
    for number, group in enumerate(groups):
        for place in group:
            if 0 <= place < len(texts):
                found.setdefault(wording(texts[place]), number)

    def similarity(one: str, other: str) -> float:
        one, other = wording(one), wording(other)
        return float(one == other or (one in found and found[one] == found.get(other)))

    return similarity


def stars(
    texts: Sequence[str], weights: Sequence[int], threshold: float, similarity: Similarity | None
) -> list[tuple[int, list[int]]]:
    """Partition different texts into stars: a center, and texts at least `threshold` like it.

    The text with the weightiest neighbourhood is the first center; the next is the weightiest that is no neighbour of a
    center, and so on. Every other text goes to the center that it is most like. So no two centers are alike, which
    makes clustering idempotent, and nothing is in a cluster by a chain of others. For texts in sorted order the result
    does not depend on the order in which they were written.

    Source: Aslam, Pelekhov, Rus 2004, "The star clustering algorithm for static and dynamic information organization".
    Differs: a text near several centers joins one, and neighbours count by their weight.

    Returns:
        (center, members with the center) by index.
    """
    groups, near = _near(texts, threshold, similarity)
    mass = [sum(weights[member] for member in group) for group in groups]
    reach = [mass[group] + sum(mass[other] for other in near[group]) for group in range(len(groups))]
    heads = [min(group, key=lambda member: (-weights[member], len(texts[member]), texts[member])) for group in groups]
    rank = sorted(range(len(groups)), key=lambda group: (-reach[group], -mass[group], texts[heads[group]]))
    order = {group: place for place, group in enumerate(rank)}
    members: dict[int, list[int]] = {}
    for group in rank:
        centers = [other for other in near[group] if other in members]
        if not centers:
            members[group] = []
    for group in rank:
        best = min(
            (other for other in near[group] if other in members),
            key=lambda c: (-near[group][c], order[c]),
            default=group,
        )
        members[group if group in members else best] += groups[group]
    return [(heads[center], sorted(inside)) for center, inside in members.items()]


def _near(
    texts: Sequence[str], threshold: float, similarity: Similarity | None
) -> tuple[list[list[int]], list[dict[int, float]]]:
    """Groups of texts that the measure cannot tell apart, and the groups close to each."""
    if similarity is None:
        same: dict[str, list[int]] = {}
        for place, text in enumerate(texts):
            same.setdefault(wording(text), []).append(place)
        return list(same.values()), [{} for _ in same]
    groups = [[place] for place in range(len(texts))]
    near: list[dict[int, float]] = [{} for _ in groups]
    for one, other, value in _measured(texts, threshold, similarity):
        near[one][other] = near[other][one] = value
    return groups, near


def _measured(texts: Sequence[str], threshold: float, similarity: Similarity) -> Iterator[tuple[int, int, float]]:
    for j, text in enumerate(texts):
        for i in range(j):
            value = similarity(texts[i], text)
            if not -1e-6 <= value <= 1 + 1e-6:
                raise ValueError(
                    f"similarity returns a number in [0, 1], not {value!r} (for {texts[i]!r} and {text!r})"
                )
            if value >= threshold:
                yield i, j, value


def _merged(exemplar: "Critique", critiques: "Sequence[Critique]") -> "Critique":
    if len(critiques) == 1:
        return exemplar
    support, examples = support_of(critiques)
    agreements = {critique.agreement for critique in critiques}
    agreement = exemplar.agreement
    if len(agreements) > 1:
        weight = math.fsum(critique.support for critique in critiques)
        agreement = math.fsum(critique.agreement * critique.support for critique in critiques) / weight
    return replace(
        exemplar,
        support=support,
        agreement=agreement,
        examples=exemplar.examples if examples_of(exemplar) == examples else examples,
    )
