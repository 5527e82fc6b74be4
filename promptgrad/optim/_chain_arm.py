"""`ChainArm`: all texts rewritten in the order of the program, for `Auto` where a critic divides the blame."""

from typing import TYPE_CHECKING

from promptgrad.search import Arm, Candidate, Step, varied

if TYPE_CHECKING:
    from promptgrad.optim._auto import Course


class ChainArm(Arm):
    """Rewrites all texts in the order of the program, each from runs under those rewritten before it.

    What a step must pass on gains nothing before a later one uses it, so both have to change at once.

    Args:
        course: The search, which runs candidates.
        gain: As for `Arm`.
    """

    def __init__(self, course: "Course", *, gain: float) -> None:
        super().__init__("all texts", gain=gain)
        self.course = course

    async def make(self, step: Step, parent: Candidate, count: int) -> list[Candidate]:
        """One candidate."""
        current, rewriter = parent, self.course.rewriter
        for number, place in enumerate(self.course.texts):
            if number and current is not parent:
                await self.course.observe(step, current, f"chain/{number}")
            evidence = rewriter.evidence(step.session, current, place)
            if not evidence.rows:
                continue
            asked = varied([evidence], 1, rewriter.numbered(current, [evidence], 1))
            edit = next(iter(await rewriter.rewrite(step.part(f"chain/{number}"), asked)), None)
            if edit is not None and edit.passed:
                current = current.child(edit.values, f"{step.name}, {self.name}")
        return [] if current is parent else [current]
