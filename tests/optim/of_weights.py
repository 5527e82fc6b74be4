"""`OfWeights`: what of the contract fits optimizers that train the weights of the embedded model."""

from __future__ import annotations

from typing import Any

from promptgrad import lm
from promptgrad.testing.optimizers import OptimizerContract


class OfWeights(OptimizerContract):
    """A local model answers, so that no script can stop the run or spoil replies."""

    kills = 2

    def lm(self, scripted: Any) -> Any:
        return lm.pocket()

    test_killed_in_another_process_it_is_resumed_in_a_third = None
    test_stopped_by_the_user_it_is_resumed_to_the_same_end = None
    test_no_budget_of_calls_is_exceeded = None
    test_no_budget_of_tokens_is_exceeded = None
    test_garbage_does_not_end_a_run = None
    test_a_fifth_of_the_calls_may_fail = None
    test_nothing_to_improve = None
