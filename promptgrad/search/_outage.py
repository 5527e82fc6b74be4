"""Calls without an answer: which are final, when a language model counts as down, and which rows are left alone."""

from collections.abc import Iterable, Sequence

from promptgrad.errors import FATAL, is_outage

DOWN = 3
"""Failures in a row after which a language model counts as down, if each block lost more than half of its calls."""


def is_final(error: BaseException | None) -> bool:
    """True if asking again would bring the same error, so that the run cannot go on."""
    return isinstance(error, (*FATAL, ImportError))


class Unanswered:
    """What got no answer in a run.

    One or two calls may fail by accident. So a language model counts as down after `DOWN` failures, in one block or in
    consecutive blocks of one kind that each lost more than half. A row that fails whenever it is tried, with
    any candidate, says that of itself alone and counts once, also where a later block has no other rows.
    """

    def __init__(self) -> None:
        self._lost: dict[str, set[str]] = {}
        self._ever: dict[str, set[str]] = {}
        self._rows: dict[str, set[str]] = {}

    def look(self, what: str, errors: Sequence[BaseException | None], names: Sequence[str]) -> None:
        """Check a part of a block at once, whatever the rest comes to; nothing is kept of it.

        Arguments and errors are those of `check`; of what was not run yet there is no error.
        """
        part = Unanswered()
        part._ever = {what: self._ever.get(what, set())}
        part.check(what, names, [*errors, *[None] * (len(names) - len(errors))])

    def check(
        self, what: str, keys: Sequence[str], errors: Sequence[BaseException | None], names: Sequence[str] = ()
    ) -> list[tuple[str, BaseException]]:
        """The calls of a block without which the run goes on, each with its error.

        Args:
            what: The kind of block: runs of the program, single calls, or critiques.
            keys: A name for each call of the block.
            errors: What became of each.
            names: Names that are the same if one is tried again; by default its key, which is not.

        Raises:
            LMError: More than half got no answer, or asking again would bring the same error.
            BudgetExceeded: The budget refused one.
        """
        names = names or keys
        failed = [(place, error) for place, error in enumerate(errors) if error is not None and is_outage(error)]
        final = next((error for _, error in failed if is_final(error)), None)
        lost, ever = self._lost.setdefault(what, set()), self._ever.get(what, set())
        if 2 * len(failed) <= len(keys):
            lost.clear()
        elif fresh := [(place, error) for place, error in failed if names[place] not in ever]:
            lost.update(names[place] for place, _ in fresh)
            final = final or (fresh[0][1] if len(lost) >= DOWN else None)
        self._ever[what] = ever | {names[place] for place, _ in failed}
        if final is not None:
            raise final
        return [(keys[place], error) for place, error in failed]

    def leave(self, candidate: str, examples: Iterable[str]) -> None:
        """Note the examples on which a run of a candidate got no answer."""
        self._rows.setdefault(candidate, set()).update(examples)

    def rows(self, candidate: str) -> frozenset[str]:
        """The examples on which a candidate got no answer, so that no step is spent on them again."""
        return frozenset(self._rows.get(candidate, ()))


class Failing:
    """The examples on which a program was run, and those of them on which it fails for a reason of its own.

    Args:
        who: The program, "the start".
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._ran: set[str] = set()
        self._errors: dict[str, BaseException] = {}

    def add(self, example: str, error: BaseException | None) -> None:
        """Note one run."""
        self._ran.add(example)
        if error is not None and not is_outage(error):
            self._errors.setdefault(example, error)

    def told(self, of: str) -> str | None:
        """On how many it failed and with what, the first error; None if it did not fail.

        Args:
            of: What the examples are.
        """
        if not self._errors:
            return None
        return note_of(self._who, len(self._errors), len(self._ran), of, next(iter(self._errors.values())))


def note_of(who: str, failed: int, ran: int, of: str, error: BaseException) -> str:
    """The note of a report about examples on which a program fails, with the first error."""
    said = " ".join(str(error).split())[:300]
    return f"{who} failed on {failed} of {ran} {of} examples: {type(error).__name__}: {said}"
