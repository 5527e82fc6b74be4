"""`saliency`: which words of an instruction the loss of a local model hangs on; `token_swaps`: what to put there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from promptgrad import aio
from promptgrad.autograd._advantages import advantages
from promptgrad.autograd._loss import Loss
from promptgrad.autograd._parameter import Parameter
from promptgrad.autograd._salient import SalientTrace, Swap, TokenSaliency
from promptgrad.autograd._tape import paths_in
from promptgrad.errors import GraphError

_BAR = 24


@dataclass(frozen=True)
class WordSaliency:
    """One word of a text, and what the loss owes it.

    Attributes:
        word: The word, with the marks that stand at it.
        share: Its part of all attributions of the text, by size, in [0, 1].
        attribution: Gradient times embedding, summed over its tokens, in nats: above 0 the loss falls, in first order,
            as the word fades, below 0 it rises.
        norm: Norm of the gradient over its tokens: how much the loss would change with any other word here.
        tokens: Its tokens.
    """

    word: str
    share: float
    attribution: float
    norm: float
    tokens: tuple[TokenSaliency, ...]


@dataclass(frozen=True)
class Saliency:
    """The words of a text with their shares; `print` shows them as bars, a notebook in colour.

    Attributes:
        name: The parameter's path.
        text: Its value in the forwards of the loss.
        words: The words, in order.
        replies: Number of replies that the loss is about.
    """

    name: str
    text: str
    words: tuple[WordSaliency, ...]
    replies: int

    def top(self, count: int = 5) -> tuple[WordSaliency, ...]:
        """The words with the largest shares, largest first."""
        return tuple(sorted(self.words, key=lambda word: -word.share)[:count])

    def __repr__(self) -> str:
        most = max((word.share for word in self.words), default=0.0) or 1.0
        width = max((len(word.word) for word in self.words), default=0)
        lines = [f"Saliency of {self.name}, {self.replies} replies: share, attribution in nats"]
        for word in self.words:
            bar = "#" * round(_BAR * word.share / most)
            lines.append(f"  {word.word:<{width}}  {word.share:4.0%}  {word.attribution:+.2e}  {bar}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        import html

        most = max((word.share for word in self.words), default=0.0) or 1.0
        spans = []
        for word in self.words:
            colour = "220,60,40" if word.attribution > 0 else "30,100,200"
            title = f"{word.share:.1%}, {word.attribution:+.2e} nats"
            style = f"background:rgba({colour},{0.6 * word.share / most:.2f})"
            spans.append(f'<span style="{style}" title="{title}">{html.escape(word.word)}</span>')
        return f"<div><b>{html.escape(self.name)}</b>: {' '.join(spans)}</div>"


async def asaliency(loss: Loss, parameter: Parameter) -> Saliency:
    """Find which words of a text the loss of a local model hangs on.

    The exact gradient of the loss with respect to the embeddings of the text's tokens, as they stand in the prompts, is
    multiplied by these embeddings, and summed over the replies of the loss, over the places where the text stands, and
    over the tokens of each word. Of a loss of right replies (`nn.NLLLoss`) it is the gradient of its value; of a scored
    loss that of the surrogate that `backward` gives to the weights: the likelihood of the sampled replies times their
    advantages, so it takes rollouts that differ, `model.map(batch, n=4)`, and traces, `lm.requires_grad_()`. That one
    reaches every module of the runs, also one whose outputs have no label and are the input of others. Call it
    before `loss.backward()`, which frees the record. No `.grad` changes.

    The text is looked for in what all calls share, instruction and demos, apart from the inputs of the call; white
    space may differ. Words are what white space separates.

    Cost: no LM call; a forward and a backward pass of the local model over the prompts and replies of the loss.
    Source: gradient x input, Shrikumar et al. 2016, arXiv 1605.01713; for words, Li et al. 2016, arXiv 1506.01066.

    Args:
        loss: The loss.
        parameter: An instruction or another text that the program's prompts show.

    Raises:
        TypeError: The parameter is no text.
        GraphError: The loss is about no reply of a local model whose call read the parameter; no reply has an advantage
            or a trace; the record was freed; or the text does not stand in the prompts, because an adapter or a chat
            template writes something else; or the model has an encoder of its own for prompts.
        InputError: The tokenizer cannot say where tokens stand in a text.
        AsyncUsageError: `saliency` was called inside a coroutine that promptgrad runs: use `await asaliency(...)`.
    """
    text, replies, tokens = await _asked(loss, parameter, "saliencies")
    words = text.split()
    whole = [sum(token.attribution for token in tokens if token.word == number) for number in range(len(words))]
    size = sum(map(abs, whole))
    found = []
    for number, word in enumerate(words):
        own = tuple(token for token in tokens if token.word == number)
        norm = sum(token.norm**2 for token in own) ** 0.5
        found.append(WordSaliency(word, abs(whole[number]) / size if size else 0.0, whole[number], norm, own))
    return Saliency(_name(loss, parameter), text, tuple(found), replies)


saliency = aio.blocking(asaliency, in_place=True)


async def atoken_swaps(loss: Loss, parameter: Parameter, count: int = 16) -> tuple[Swap, ...]:
    """The replacements of single tokens of a text that lower the loss most in first order, most promising first.

    A token is replaced by one of its kind: the beginning of a word by the beginning of a word, letters by letters.
    Placeholders in braces stay.
    At most a quarter of them replace the same token. The estimate is coarse: measure the loss with each.

    Cost: as `saliency`, and one product of the gradient with the model's embeddings.
    Source: HotFlip, Ebrahimi et al. 2018, arXiv 1712.06751; for prompts, Shin et al. 2020 (AutoPrompt), arXiv
    2010.15980. Differs: the loss is that of the whole program, and replacements stay words.

    Args:
        loss: The loss, as for `saliency`.
        parameter: An instruction or another text that the program's prompts show.
        count: Most replacements.

    Raises:
        TypeError: As `saliency`.
        GraphError: As `saliency`.
        InputError: As `saliency`.
        ValueError: `count` is below 1.
        AsyncUsageError: As `saliency`: use `await atoken_swaps(...)`.
    """
    if count < 1:
        raise ValueError(f"count is at least 1, not {count}")
    _, _, swaps = await _asked(loss, parameter, "swaps", count)
    return tuple(swaps)


token_swaps = aio.blocking(atoken_swaps, in_place=True)


async def _asked(loss: Loss, parameter: Parameter, what: str, *more: Any) -> tuple[str, int, Sequence[Any]]:
    """The text, the number of prompts that it stands in, and what the traces of the loss say of it."""
    if not isinstance(parameter, Parameter) or not parameter.kind.is_text:
        raise TypeError(f"it takes a Parameter that is a text, such as model.instruction, not {parameter!r}")
    text, pairs = _pairs(loss, parameter)
    kind: Any = type(pairs[0][0])
    if not issubclass(kind, SalientTrace) or any(type(trace) is not kind for trace, _ in pairs):
        raise GraphError(f"the gradients of {kind.__name__} do not reach the words of a prompt")
    asked: Callable[..., Any] = getattr(kind, what)
    found, said = await aio.in_thread(asked, pairs, text, *more)
    if not found:
        raise GraphError(
            f"the text of {_name(loss, parameter)} does not stand in the prompts of this loss, so no gradient belongs "
            f"to it: {text[:60]!r}. An adapter or the chat template writes something else (see module.render(...)), "
            "or the loss is about another module"
        )
    return text, found, said


def _pairs(loss: Loss, parameter: Parameter) -> tuple[str, list[tuple[Any, float]]]:
    """The value that the calls of a loss read, and the replies that hang on it with their advantages."""
    if any(tape.freed for tape in loss.tapes):
        raise GraphError(
            "backward() freed what this loss recorded: ask before it, or write backward(retain_graph=True)"
        )
    text, pairs, reached = str.__str__(parameter.data), [], False
    for node, trace, advantage in advantages(loss._terms):
        reached = True
        if node is not None:
            values = [read.value for read in node.reads if read.parameter is parameter]
            if not values:
                continue
            text = values[0]
        pairs.append((trace, advantage))
    if pairs:
        return text, pairs
    name = _name(loss, parameter)
    if reached:
        raise GraphError(f"no call that this loss is about read {name}")
    if any(node.weight_traces for tape in loss.tapes for node in tape.nodes):
        raise GraphError(
            "all rollouts of each example have the same score, so no reply is better than another and the gradient is "
            "0: run several, model.map(batch, n=4), with a temperature, or use nn.NLLLoss on the right replies"
        )
    raise GraphError(
        "no reply of this loss has a gradient: it takes a program on a local model (promptgrad.lm.Local) and either "
        "nn.NLLLoss, or lm.requires_grad_() before the forward, so that its own replies are traced"
    )


def _name(loss: Loss, parameter: Parameter) -> str:
    return paths_in(loss.tapes).get(parameter) or parameter.name or str(parameter.kind)
