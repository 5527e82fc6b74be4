"""`Grouper`, which finds the critiques that ask for the same in different words."""

from collections.abc import Sequence

from promptgrad import aio
from promptgrad.autograd import Critique, Gradient, no_grad, same_group
from promptgrad.errors import NoLMError
from promptgrad.lm import LM, current
from promptgrad.nn._module import Module
from promptgrad.nn._plain import is_narrow, plain
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import fields_of
from promptgrad.signature import Field, Signature

INSTRUCTION = """\
Several reviewers criticised one text, each after another failure. Find out which of their critiques ask for the same \
change of the text.

Two critiques ask for the same if whoever follows one has also followed the other. They do not if they differ in a \
number, a quoted value, a direction or an order, in what is wanted and what is not, or if one asks for something more \
that matters. If in doubt, keep them apart.

Give in `groups` one list for each change that is asked for, with the numbers of the critiques that ask for it. Every \
number stands in exactly one list."""


class Grouper(Module, in_place=True):
    """Merge the critiques of a gradient that ask for the same, as a language model understands them.

    `Gradient.cluster` alone merges critiques of the same words, so that it never merges too much; a language model
    seldom uses the same words twice. A grouper is called with a gradient and returns one with a critique for each
    group, its support added up, the most supported first. It is an ordinary program on the signature "Group", with a
    visible and by default frozen instruction. `nn.Critic` has one as `.grouper`, for `backward(repeat=n)`.

        grad = parameter.grad
        common = nn.Grouper(lm)(grad)                       # or: await nn.Grouper(lm).acall(grad)

    Cost: one LM call for each target of a module that is criticised in more than one wording, none for the others. All
    wordings about one target go into one prompt. The embedded model does not know this format: with it the words
    decide, at no cost.

    Args:
        lm: The LM that compares the critiques; else that of `promptgrad.context(critic=...)` or
            `configure(critic=...)`, else the LM of the calls that are criticised.
        instruction: The instruction for the LM.

    Raises:
        ParseError: When called: the reply does not hold the groups, after the re-asks.
        LMError: When called: the LM did not answer.
        NoLMError: When called: the grouper has no LM.
    """

    def __init__(self, lm: LM | str | None = None, *, instruction: str = INSTRUCTION) -> None:
        super().__init__()
        self.predict = Predict(_signature(instruction))
        self.predict.requires_grad_(requires_grad=False)
        if lm is not None:
            self.to(lm)

    async def forward(self, gradient: Gradient) -> Gradient:
        """The gradient with one critique for each group, then its traces."""
        places: dict[tuple[str, str], list[Critique]] = {}
        for critique in gradient.cluster().critiques:
            places.setdefault((critique.path, critique.target), []).append(critique)
        merged = await aio.each(self._merge, [*places.values()])
        return sum(merged, Gradient(gradient.traces)).cluster()

    async def _merge(self, critiques: Sequence[Critique]) -> Gradient:
        texts = [plain(critique.text) for critique in critiques]
        answered = next((critique.lm for critique in critiques if critique.lm is not None), None)
        groups = await self.group(texts, answered)
        return Gradient(critiques).cluster(similarity=same_group(texts, groups))

    async def group(self, texts: Sequence[str], lm: LM | None = None) -> list[list[int]]:
        """Which texts ask for the same, by index: one list for each group; a text that the reply leaves out is alone.

        Cost: one LM call; none for fewer than two texts.

        Args:
            texts: The critiques of one target.
            lm: The LM to ask if neither the grouper nor the context has one.

        Raises:
            NoLMError: Nobody has a language model.
        """
        lm = self._lm or current().critic or lm
        if len(texts) < 2 or is_narrow(self.predict, lm):
            return []
        if lm is None:
            raise NoLMError("the grouper has no language model: nn.Grouper('openai/gpt-4o') or .to(lm)")
        shown = {str(number): text for number, text in enumerate(texts, 1)}
        with no_grad():
            reply = fields_of(await self.predict.acall(critiques=shown, lm=lm))
        return [[number - 1 for number in group] for group in reply["groups"]]


def _signature(instruction: str) -> Signature:
    return Signature(
        [
            Field("critiques", dict[str, str], "the critiques by number", "input"),
            Field(
                "groups",
                list[list[int]],
                "the numbers of the critiques that ask for the same, group by group",
                "output",
            ),
        ],
        instruction,
        name="Group",
    )
