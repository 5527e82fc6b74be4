"""KNNFewShot: for each call, the labelled examples nearest to its inputs as demos."""

from typing import Any

from promptgrad._habits import refuses
from promptgrad.data import Example
from promptgrad.nn import Neighbours, Vectorizer, ngrams
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import KNN_HABITS
from promptgrad.optim._nothing_to_label import nothing_to_label
from promptgrad.optim._search import Search
from promptgrad.search import Measured, Session, labeled_demos

_ANY = Example(text="").with_inputs("text")


class KNNFewShot(Search):
    """In each call of a module, show the training examples nearest to its inputs as demos.

    This concerns every module whose fields the training examples have. Its demos become an `nn.Neighbours`: all
    training examples cut to the module's fields, `k`, and the vectorizer that compares them. It is saved with the
    program, and other candidates can replace it like any demos.

    Cost: no LM call, except those that confirm the result in `Trainer.fit`. Afterwards the prompt of a call has `k`
    demos, which differ from call to call, and a call spends the time of the vectorizer.
    Source: Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?", arXiv 2101.06804; DSPy's optimizer of
    this name. Differs: neighbours are plain labelled examples, which need no run of the program; the nearest comes
    last; a call is not shown an example with the same inputs (DSPy trains a program anew for each call by
    `BootstrapFewShot`, and may show a training example its own answer).

    Args:
        params: Parameters; those of kind "demos" are trained.
        k: Demos in each call.
        vectorizer: A `pg.Embedder`, which compares meaning; or a plain function from a list of texts to a list of
            vectors, with a name that identifies it in states and digests. The default, `nn.ngrams`, compares spelling
            and has no dependencies. An embedder or a function of yours is registered with `nn.register_vectorizer`
            before a saved program is loaded in another process.
        exclude_same: Leave out an example with the same inputs as the call, see `nn.Neighbours`.

    Raises:
        TypeError: `k` is not a whole number, or the vectorizer not a plain function.
        ValueError: `k` is below one, or the vectorizer has no name.
        DataError: In `Trainer.fit`: no training example has the fields of a module with demos.
    """

    kinds = ("demos",)
    selects = False

    @refuses(KNN_HABITS)
    def __init__(
        self, params: Params, k: int = 3, vectorizer: Vectorizer = ngrams, *, exclude_same: bool = True
    ) -> None:
        Neighbours([_ANY], k, vectorizer, exclude_same=exclude_same)  # refuses now what it would refuse in `fit`
        super().__init__(params)
        self.k = k
        self.vectorizer = vectorizer
        self.exclude_same = exclude_same

    async def fit(self, session: Session) -> None:
        """Offer demos that choose from the training examples in each call."""
        values: dict[str, Any] = {}
        for place in session.places(self.kinds):
            examples = labeled_demos(place.signature, session.train)
            if examples:
                values[place.path] = Neighbours(examples, self.k, self.vectorizer, exclude_same=self.exclude_same)
        if not values:
            raise nothing_to_label(session, self.kinds)
        candidate = session.base.child(values, f"the {self.k} nearest of {len(session.train)} training examples")
        if session.val:
            measured = await session.evaluate(candidate, session.val, scope="neighbours")
        else:
            measured = Measured(candidate, (), ())
        session.trial(measured)
        session.offer(measured)

    def expected_demos(self) -> tuple[int, int]:
        """Return the most traces, and the most demos."""
        return 0, self.k
