"""Which replies of local models a loss makes likelier, and by how much each counts."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from promptgrad.autograd._loss_row import LossRow

if TYPE_CHECKING:
    from promptgrad.autograd._critic import WeightTrace
    from promptgrad.autograd._node import Node


def advantages(
    terms: "Sequence[tuple[float, Sequence[LossRow], Any]]",
) -> "Iterator[tuple[Node | None, WeightTrace, float]]":
    """Each reply with its call and its advantage, never 0.

    That of a target is its share in the mean over all tokens of its loss; that of a sample its score minus the mean
    over the example's rollouts, the baseline of its group.
    """
    for scale, rows, _ in terms:
        tokens = sum(row.weight for row in rows if row.target is not None)
        groups: dict[Any, list[float]] = {}
        for row in rows:
            if row.target is not None:
                if scale:
                    yield row.node, row.target, scale / tokens
            elif row.error is None:
                groups.setdefault(_rollouts_of(row), []).append(row.score)
        for row in rows:
            tape = row.recorded if row.error is None and row.target is None else None
            if tape is None:
                continue
            scores = groups[_rollouts_of(row)]
            advantage = scale * (row.score - sum(scores) / len(scores))
            if advantage:
                for node in tape.nodes:
                    if row.node is None or node.started <= row.node.started:
                        for trace in node.weight_traces:
                            yield node, trace, advantage


def _rollouts_of(row: LossRow) -> Any:
    """A key that the rollouts of one example share; a row about one call is compared with the others' same call."""
    call = ("", 0) if row.node is None else (row.node.path, row.node.index)
    return row.example_id or id(row.example), call
