"""`Attempts`: what was tried for each text, and the outcome."""

from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from promptgrad.search._hunks import Hunk
from promptgrad.search._verdict import Verdict

K = TypeVar("K", bound=Hashable)

ENTRY = "rejected"
"""Key of the attempts for a text in an optimizer's state."""

_CLOSED = ("refused: ", "taken back")


@dataclass(frozen=True)
class Attempt:
    """One text that was tried and not kept.

    Attributes:
        text: The text, or the hunks where they did not apply and there is no text.
        effect: The outcome in words: the measured gain, or the rule that refused it.
        measured: True if it was measured alone and did not gain, so that it is not to be tried again. A text that a
            rule refused may come again, because rules change. So may one that was measured only together with other
            changes, which may have done the harm, and one that looked better without enough evidence.
    """

    text: str
    effect: str
    measured: bool = True


class Attempts(Generic[K]):
    """The latest attempts for each text, kept in an optimizer's state in JSON types.

    It has no store of its own: `state` is `Optimizer.state` or any mapping of dicts, so that `state_dict()` saves it
    and a loaded state is used at once.

    Args:
        state: A dict for each text, by parameter or path. Its key "rejected" holds the attempts.
        limit: Most attempts that are kept for a text; 0 keeps none.
    """

    def __init__(self, state: MutableMapping[K, dict[str, Any]], limit: int) -> None:
        self._state = state
        self.limit = limit

    def of(self, key: K) -> tuple[Attempt, ...]:
        """The attempts for one text, oldest first."""
        entries = self._state[key].get(ENTRY, ()) if key in self._state else ()
        return tuple(Attempt(e["text"], e["effect"], bool(e.get("measured"))) for e in entries)

    def shown(
        self, key: K, known: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The attempts as a writer sees them: those that may come again, and those that may not or broke a rule.

        Args:
            key: The text.
            known: Attempts that the writer sees already, each with its "text".
        """
        seen = {each["text"] for each in known}
        open_, closed = list[dict[str, Any]](), list[dict[str, Any]]()
        for attempt in self.of(key):
            if attempt.text not in seen:
                is_open = not attempt.measured and not attempt.effect.startswith(_CLOSED)
                (open_ if is_open else closed).append({"text": attempt.text, "effect": attempt.effect})
        return open_, closed

    def spent(self, key: K) -> list[str]:
        """The texts that are not to be tried again."""
        return [attempt.text for attempt in self.of(key) if attempt.measured]

    def add(self, key: K, attempt: Attempt | None) -> None:
        """Keep an attempt; one that was not measured never replaces one of the same text that was. None is ignored."""
        if attempt is None or not self.limit:
            return
        known = self.of(key)
        old = next((each for each in known if each.text == attempt.text), None)
        if old is None or attempt.measured or not old.measured:
            self._keep(key, [*(each for each in known if each is not old), attempt][-self.limit :])

    def forget(self, key: K, text: Any) -> None:
        """Drop a text that has become the current value."""
        known = self.of(key)
        if any(attempt.text == text for attempt in known):
            self._keep(key, [attempt for attempt in known if attempt.text != text])

    def _keep(self, key: K, attempts: Sequence[Attempt]) -> None:
        self._state.setdefault(key, {})[ENTRY] = [asdict(attempt) for attempt in attempts]


def refused(text: str | None, reason: str, hunks: Sequence[Hunk] = ()) -> Attempt | None:
    """The attempt of a proposal that a rule refused: its text, or the hunks that did not apply; None without either."""
    shown = "; ".join(map(str, hunks)) if text is None else text
    return Attempt(shown, f"refused: {reason}", measured=False) if shown else None


def judged(text: str, verdict: Verdict, *, alone: bool, useless: bool) -> Attempt | None:
    """The attempt that a measurement makes of a text; None where no pair could be compared.

    Args:
        text: The text.
        verdict: What was measured.
        alone: Whether it was the only change that was measured.
        useless: Whether it gained nothing, or less than its length costs. A text that gained is at worst undecided.
    """
    if not verdict.pairs:
        return None
    more = "" if useless else "; undecided, it may come again"
    effect = f"{verdict.effect} on {verdict.pairs} pairs{'' if alone else ', with other changes'}{more}"
    return Attempt(text, effect, measured=alone and useless)


def check_attempts(entry: Mapping[str, Any]) -> None:
    """Check the attempts in an optimizer's state of one text.

    Raises:
        ValueError: An attempt is malformed.
    """
    for old in entry.get(ENTRY, ()):
        if not isinstance(old, Mapping) or not isinstance(old.get("text"), str) or "effect" not in old:
            raise ValueError(f"a rejected proposal has text, effect and measured, and is not {old!r}")
