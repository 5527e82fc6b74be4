"""Gradients of a loss of replies with respect to the embeddings of one text in their prompts."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from promptgrad.autograd import Swap, TokenSaliency
from promptgrad.errors import GraphError
from promptgrad.lm._likelihood import Tokens, reply_logprobs

if TYPE_CHECKING:
    import torch

    from promptgrad.lm._local_trace import LocalTrace, Trainable
    from promptgrad.lm._request import Request

TRIED = 64
"""How many replacements of each token are looked at; most of a vocabulary is not of the same kind."""

_WORD_STARTS = ("Ġ", "▁")
"""How tokenizers mark a token that begins a word."""


class Piece(NamedTuple):
    """One token of a text: its word, where it begins and ends in the word, and its id."""

    word: int
    start: int
    end: int
    token: int


class TextGradient:
    """The gradient of `sum(-advantage * log-likelihood)` at the tokens of a text, summed over prompts and places.

    Attributes:
        text: The text.
        found: Number of prompts that it stands in.
        sums: For each piece, the gradient and the embedding. Shape: (size of an embedding,).
    """

    def __init__(self, pairs: Sequence[tuple[LocalTrace, float]], text: str) -> None:
        self.text = text
        self.words = text.split()
        self.found = 0
        self.sums: dict[Piece, tuple[torch.Tensor, torch.Tensor]] = {}
        of_lm: dict[int, list[tuple[LocalTrace, float]]] = {}
        for trace, advantage in pairs:
            trace.check_version()
            if trace.ids:
                of_lm.setdefault(id(trace.lm), []).append((trace, advantage))
        if len(of_lm) > 1:
            names = ", ".join(repr(own[0][0].lm.name) for own in of_lm.values())
            raise GraphError(
                f"the replies of this loss come from {len(of_lm)} local models ({names}), whose embeddings have "
                "nothing in common: make a loss for each"
            )
        self.lm: Trainable | None = None
        for own in of_lm.values():
            self.lm = own[0][0].lm
            self._add(self.lm, own)

    def _add(self, lm: Trainable, own: Sequence[tuple[LocalTrace, float]]) -> None:
        known: list[tuple[LocalTrace, float, list[tuple[int, Piece]]]] = []
        for trace, advantage in own:
            places = self._places(lm, trace)
            if places:
                known.append((trace, advantage, places))
        self.found += len(known)
        batch = [trace.tokens() for trace, _, _ in known]
        for row, gradient, embedding in embedding_gradients(lm.model, batch, [advantage for _, advantage, _ in known]):
            for place, piece in known[row][2]:
                before = self.sums.get(piece)
                grown = gradient[place] if before is None else before[0] + gradient[place]
                self.sums[piece] = grown, embedding[place]

    def _places(self, lm: Trainable, trace: LocalTrace) -> list[tuple[int, Piece]]:
        """Where in a prompt the tokens of the text are."""
        if trace.request is None or not self.words:
            return []
        written, offsets = lm.offsets(trace.request)
        found = []
        for words in _occurrences(self.words, written, _end_of_shared(written, trace.request)):
            for place, (start, end) in enumerate(offsets):
                for number, (first, last) in enumerate(words):
                    if start < last and end > first:
                        piece = Piece(
                            number, max(start, first) - first, min(end, last) - first, trace.prompt_ids[place]
                        )
                        found.append((place, piece))
                        break
        return found

    def saliencies(self) -> list[TokenSaliency]:
        """Each token with its gradient times its embedding, in the order of the text."""
        found = []
        for piece, (gradient, embedding) in sorted(self.sums.items(), key=lambda item: item[0]):
            part = self.words[piece.word][piece.start : piece.end]
            found.append(
                TokenSaliency(piece.word, piece.start, part, float(gradient @ embedding), float(gradient.norm()))
            )
        return found

    def swaps(self, count: int) -> list[Swap]:
        """The replacements that promise most, at most a quarter of them for one token."""
        import torch

        if self.lm is None or not self.sums:
            return []
        layer = self.lm.model.get_input_embeddings()
        table = layer.weight.detach().float() * float(getattr(layer, "embed_scale", 1.0))
        pieces = sorted(self.sums)
        gradients = torch.stack([self.sums[piece][0] for piece in pieces]).float()
        present = torch.stack([(self.sums[piece][0] * self.sums[piece][1]).sum() for piece in pieces]).float()
        gains = present[:, None] - gradients @ table.T
        most = torch.topk(gains, min(TRIED, gains.shape[1]), dim=1)
        found: list[Swap] = []
        for piece, values, tokens in zip(pieces, most.values.tolist(), most.indices.tolist(), strict=True):
            of_piece = self._of_piece(piece, values, tokens)
            found += [swap for swap, _ in zip(of_piece, range(max(1, count // 4)), strict=False)]
        found.sort(key=lambda swap: (-swap.gain, swap.word, swap.new))
        return list({swap.text: swap for swap in reversed(found)}.values())[::-1][:count]

    def _of_piece(self, piece: Piece, gains: Iterable[float], tokens: Iterable[int]) -> Iterator[Swap]:
        """The replacements of one token by tokens of its kind, in order."""
        assert self.lm is not None  # noqa: S101 - there is no piece otherwise
        tokenizer = self.lm.tokenizer
        word = self.words[piece.word]
        if "{" in word or "}" in word:
            return  # a placeholder
        part = word[piece.start : piece.end]
        special = set(tokenizer.all_special_ids)
        begins = _begins_word(tokenizer, piece.token)
        spans = [match.span() for match in re.finditer(r"\S+", self.text)]
        start, end = spans[piece.word]
        for gain, token in zip(gains, tokens, strict=True):
            if gain <= 0:
                return
            if token in special or token == piece.token or _begins_word(tokenizer, token) != begins:
                continue
            new = tokenizer.decode([token], clean_up_tokenization_spaces=False).strip()
            if new == part or not _alike(part, new):
                continue
            changed = word[: piece.start] + new + word[piece.end :]
            yield Swap(piece.word, word, changed, self.text[:start] + changed + self.text[end:], gain)


def embedding_gradients(
    model: Any, batch: Sequence[Tokens], advantages: Sequence[float]
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Each row with the gradient of its loss at its input embeddings, and these. Shape: (places, size of an embedding).

    Go on to the end. No weight gets a gradient.

    Raises:
        GraphError: The model does not read prompt and reply in one pass.
    """
    import torch

    held: list[torch.Tensor] = []
    me = threading.get_ident()

    def hold(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        if threading.get_ident() != me:
            return output  # replies that are sampled meanwhile, in the model's own thread
        held.append(output.detach().requires_grad_())
        return held[-1]

    handle = model.get_input_embeddings().register_forward_hook(hold)
    try:
        with torch.enable_grad():
            for scored in reply_logprobs(model, batch, shared=False):
                if len(held) != 1 or len(held[0]) != len(scored.rows):
                    raise GraphError(
                        "the words of a prompt have a gradient only in a model that reads prompt and reply in one "
                        f"pass, and {type(model).__name__} embeds them apart, as an encoder and a decoder do"
                    )
                leaf = held.pop()
                own = torch.tensor([advantages[row] for row in scored.rows], device=scored.logprobs.device)
                (gradient,) = torch.autograd.grad(-(own[:, None] * scored.logprobs).sum(), leaf)
                for place, row in enumerate(scored.rows):
                    yield row, gradient[place], leaf[place].detach()
    finally:
        handle.remove()


def _occurrences(words: Sequence[str], written: str, end: int) -> list[list[tuple[int, int]]]:
    """The places of the words in a prompt, for each time that they stand there in a row."""
    first, last = words[0][0], words[-1][-1]
    pattern = r"\s+".join(map(re.escape, words))
    pattern = (r"(?<!\w)" if first.isalnum() else "") + pattern + (r"(?!\w)" if last.isalnum() else "")
    found = []
    for match in re.compile(pattern).finditer(written, 0, end):
        found.append([part.span() for part in re.compile(r"\S+").finditer(written, *match.span())])
    return found


def _end_of_shared(written: str, request: Request) -> int:
    """Where the part of a prompt ends that all calls share; its whole length where there is no such part."""
    end = len(written)
    if request.prefix.messages:
        for message in reversed(request.tail):
            place = written.rfind(message.text.strip(), 0, end)
            end = place if place > 0 else end
    return end


def _begins_word(tokenizer: Any, token: int) -> bool:
    return str(tokenizer.convert_ids_to_tokens(token)).startswith(_WORD_STARTS)


def _alike(old: str, new: str) -> bool:
    """Whether a text may take the place of another one: letters that of letters, and never a blank or a brace."""
    if not new or not new.isprintable() or any(mark.isspace() or mark in "{}[]<>�" for mark in new):
        return False
    return new.isalpha() == old.isalpha()
