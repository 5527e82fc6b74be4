"""KNNFewShot: for each call, the labelled examples nearest to its inputs as demos."""

from typing import Any

from promptgrad.data import Example
from promptgrad.errors import DataError
from promptgrad.nn import Neighbours, Vectorizer, ngrams
from promptgrad.optim._groups import Params
from promptgrad.optim._search import Search
from promptgrad.search import Measured, Session, labeled_demos

_ANY = Example(text="").with_inputs("text")


class KNNFewShot(Search):
    """Let every module whose fields the training examples have show, in each call, those nearest to its inputs.

    The demos become an `nn.Neighbours`: all training examples cut to the module's fields, `k`, and the vectorizer by
    which they are compared. It is saved with the program. It can be laid over by other candidates, as any demos.

    Cost: no LM call, save those that confirm the result in `Trainer.fit`. Afterwards a call has `k` demos in its
    prompt, other ones from call to call, and takes the time of the vectorizer.
    Source: Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?", arXiv 2101.06804; DSPy's optimizer of
    this name. Differs: neighbours are labelled examples as they are, which need no run of the program; the nearest
    comes last; a call whose inputs are those of an example is not shown that example (DSPy trains a program anew for
    each call by `BootstrapFewShot`, and may show a training example its own answer).

    Args:
        params: Parameters; those of kind "demos" are trained.
        k: Demos in each call.
        vectorizer: A plain function from a list of texts to a list of vectors, with a name by which it is known in
            states and digests. By default `nn.ngrams`, which compares spelling and needs nothing. For one of your own
            that compares meaning, see `nn.register_vectorizer` before a saved program is loaded in another process.
        exclude_same: Leave out an example with the very inputs of the call, see `nn.Neighbours`.

    Raises:
        TypeError: `k` is no whole number, or the vectorizer no plain function.
        ValueError: `k` is below one, or the vectorizer has no name.
        DataError: In `Trainer.fit`: no training example has the fields of a module with demos.
    """

    kinds = ("demos",)
    selects = False

    def __init__(
        self, params: Params, k: int = 3, vectorizer: Vectorizer = ngrams, *, exclude_same: bool = True
    ) -> None:
        Neighbours([_ANY], k, vectorizer, exclude_same=exclude_same)  # refuses now what it would refuse in `fit`
        super().__init__(params)
        self.k = k
        self.vectorizer = vectorizer
        self.exclude_same = exclude_same

    async def fit(self, session: Session) -> None:
        """Offer the training examples as what each module chooses from."""
        values: dict[str, Any] = {}
        for place in session.places(self.kinds):
            examples = labeled_demos(place.signature, session.train)
            if examples:
                values[place.path] = Neighbours(examples, self.k, self.vectorizer, exclude_same=self.exclude_same)
        if not values:
            raise DataError(
                "no training example has the fields of a module with demos: "
                "a labelled demo needs every input of the module and at least one of its outputs"
            )
        candidate = session.base.child(values, f"the {self.k} nearest of {len(session.train)} training examples")
        if session.val:
            measured = await session.evaluate(candidate, session.val, scope="neighbours")
        else:
            measured = Measured(candidate, (), ())
        session.trial(measured)
        session.offer(measured)
