"""`ChainOfThought`: a `Predict` that reasons before it answers."""

from promptgrad.nn._predict import Predict
from promptgrad.signature import Field, Signature


class ChainOfThought(Predict):
    """A `Predict` whose first output is `reasoning`, written before the outputs of the signature.

    A signature that has an output of this name stays as it is. The arguments are those of `Predict`.

    Cost: as `Predict`; the reply is longer.

    Source: Wei et al. 2022, arXiv 2201.11903.
    """

    @staticmethod
    def _complete_signature(signature: Signature) -> Signature:
        if "reasoning" in signature.outputs:
            return signature
        return signature.prepend(Field("reasoning", str, "the steps that lead to the answer", "output"))
