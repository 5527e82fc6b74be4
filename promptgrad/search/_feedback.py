"""`Feedback`: the metric's feedback as the critique, without asking anybody."""

from collections.abc import Mapping

from promptgrad.autograd import NodeFailure


class Feedback:
    """A critic that divides no blame: all that may be to blame for a failed call is shown its feedback as it is.

    So the gradient of a text has, for each of its failed calls, the inputs, the outputs and what the metric says of the
    result (`Score.feedback`, and `Score.module_feedback` where it says something of the module).

    Cost: no LM call.
    """

    async def critique(self, failure: NodeFailure) -> Mapping[str, str]:
        """The feedback, for each target."""
        feedback = "\n".join(failure.feedback)
        return {target.name: feedback for target in failure.targets}
