"""The store of cells: results of a program on one example, reusable while every value that was read is the same."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """The result of one program on one example.

    Attributes:
        example: Id of the example.
        replicate: Which of several independent runs on this example.
        score: The metric's score.
        feedback: The metric's feedback.
        reads: Digest of every parameter value that was read on the way, by path.
        output: What the program returned.
        error: The error because of which there is no score, or None. Such a cell is not kept in a store.
        parts: The metric's scores of named aspects.
        costs: What the program's own calls cost without a cache, and how many calls the metric made; None where that is
            not known.
    """

    example: str
    replicate: int = 0
    score: float = 0.0
    feedback: str = ""
    reads: Mapping[str, str] = field(default_factory=dict)
    output: Any = None
    error: BaseException | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float | None] = field(default_factory=dict)


class CellStore:
    """Finds cells by (example, replicate, LM, sources) and then by what was read.

    Which parameters a program reads on an example is known only after it ran. So a stored cell fits a candidate if
    every value that was read then is the same now: changing a module that an example never reaches costs nothing.

    Attributes:
        hits: Lookups that found a cell.
        misses: Lookups that did not.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[str, int, str, str], list[Cell]] = {}
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def get(
        self, example: str, state: Callable[[str], str | None], *, replicate: int = 0, lm: str = "", source: str = ""
    ) -> Cell | None:
        """The cell of an example whose read set agrees with a candidate; None if no cell does.

        Args:
            example: Id of the example.
            state: Gives the digest of the candidate's value at a path, None if it has no such path.
            replicate: Index of the run on this example.
            lm: Identity of the language models.
            source: Digest of the sources of program and metric.
        """
        with self._lock:
            for cell in self._cells.get((example, replicate, lm, source), ()):
                if all(state(path) == digest for path, digest in cell.reads.items()):
                    self.hits += 1
                    return cell
            self.misses += 1
            return None

    def put(self, cell: Cell, *, lm: str = "", source: str = "") -> None:
        """Keep a cell; one with the same read set is replaced."""
        with self._lock:
            kept = self._cells.setdefault((cell.example, cell.replicate, lm, source), [])
            for place, other in enumerate(kept):
                if other.reads == cell.reads:
                    kept[place] = cell
                    return
            kept.append(cell)

    def __len__(self) -> int:
        return sum(map(len, self._cells.values()))

    def __repr__(self) -> str:
        return f"<CellStore {len(self)} cells, {self.hits} hits, {self.misses} misses>"
