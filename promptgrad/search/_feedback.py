"""`Feedback`: the metric's feedback as the critique, without an LM call."""

from collections.abc import Mapping

from promptgrad.autograd import NodeFailure


class Feedback:
    """A critic that does not divide blame: every target of a failed call receives the feedback unchanged.

    So the gradient of a text has, for each of its failed calls, the inputs, the outputs and the metric's feedback on
    the result (`Score.feedback`, and `Score.module_feedback` where there is one for the module).

    Cost: no LM call.
    """

    async def critique(self, failure: NodeFailure) -> Mapping[str, str]:
        """The feedback, for each target."""
        feedback = "\n".join(failure.feedback)
        return {target.name: feedback for target in failure.targets}
