"""Grammars of replies, enforced token by token while a local model writes: the work is llguidance's.

A `Grammars` has the vocabulary of one model, in llguidance's form, and the grammars that were compiled for it. It makes
a `Constraint` for each reply: the decoder asks it which tokens may come next, and tells it which one came.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from promptgrad._patterns import late_pattern
from promptgrad.errors import BadRequestError, MissingExtraError

if TYPE_CHECKING:
    import torch

_MOST_COMPILED = 256
_THINKING = ("<think>", "</think>")
_WORD = late_pattern(rb"[^ ]+ ?| ")
_LONGEST = 200  # bytes of a token; llguidance's tree of tokens has 8 bits for its depth
_PARALLEL = 500_000  # tokens of all rows from which on threads share the work; waking them takes longer below


@cache
def can_constrain() -> bool:
    """True if llguidance is installed. It is not loaded."""
    return find_spec("llguidance") is not None


class Constraint:
    """What one reply may hold: the state of its grammar behind the tokens so far.

    A model that thinks does so freely: the grammar begins behind its `</think>`.

    Attributes:
        matcher: The state, as llguidance has it.
        fault: Why the grammar was left; "" if it was not.
    """

    __slots__ = ("_close", "_free", "_open", "_started", "fault", "matcher")

    def __init__(self, matcher: Any, thinking: tuple[int, int] | None, prompt: Sequence[int]) -> None:
        self.matcher = matcher
        self._open, self._close = thinking or (-1, -1)
        self._free = False
        self._started = False
        self.fault = ""
        if thinking is not None:
            ends = [place for place, token in enumerate(prompt) if token in thinking]
            self._free = bool(ends) and prompt[ends[-1]] == self._open

    @property
    def is_free(self) -> bool:
        """True while the model thinks, so that any token may come."""
        return self._free

    @property
    def may_think(self) -> int:
        """Token with which thoughts may begin here; -1 for none."""
        return -1 if self._started else self._open

    def advance(self, token: int) -> None:
        """Note the token that came; one that ends the reply is not told."""
        if self._free:
            self._free = token != self._close
            self._started = not self._free
        elif not self._started and token == self._open:
            self._free = True
        else:
            self._started = True
            if not self.matcher.consume_token(token):
                self.fault = self.matcher.get_error().partition("\n")[0] or f"it does not take the token {token}"


class Grammars:
    """The grammars of one model.

    Args:
        tokenizer: Its tokenizer.
        size: The number of its logits.
        ends: Tokens that end a reply.
        name: Name of the model, for messages.

    Raises:
        MissingExtraError: llguidance is not installed.
        BadRequestError: The texts of the tokens cannot be told.
    """

    def __init__(self, tokenizer: Any, size: int, ends: Iterable[int], name: str) -> None:
        try:
            import llguidance
            import llguidance.numpy as masks
        except ImportError as error:
            raise MissingExtraError(
                f"to hold a reply to a grammar needs llguidance ({error}): pip install -e '.[constrained]' in a "
                "checkout of promptgrad",
                extra="constrained",
            ) from error
        self.name = name
        self._matchers: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._make, self._fill, self._fill_all = (
            llguidance.LLMatcher,
            masks.fill_next_token_bitmask,
            masks.fill_next_token_bitmask_par,
        )
        self._executor = llguidance.LLExecutor()
        self._ends = sorted(ends)
        self._size = size
        self._vocabulary = _vocabulary(llguidance, tokenizer, size, self._ends, name)
        found = [tokenizer.convert_tokens_to_ids(sign) for sign in _THINKING]
        known = [isinstance(token, int) and token != tokenizer.unk_token_id for token in found]
        self._thinking = (found[0], found[1]) if all(known) else None

    def knows(self, grammar: str) -> bool:
        """True if a grammar is compiled."""
        return grammar in self._matchers

    def constraint(self, grammar: str, prompt: Sequence[int] = ()) -> Constraint:
        """Return what holds a reply to a grammar, which is compiled the first time.

        Args:
            grammar: The grammar, in llguidance's dialect of Lark.
            prompt: Tokens of the prompt, which may end within thoughts.

        Raises:
            BadRequestError: The grammar is not valid, is not supported, or no token of this model begins it.
        """
        with self._lock:
            matcher = self._matchers.get(grammar)
            if matcher is not None:
                self._matchers.move_to_end(grammar)
        if matcher is None:
            matcher = self._compile(grammar)
            with self._lock:
                self._matchers[grammar] = matcher
                while len(self._matchers) > _MOST_COMPILED:
                    self._matchers.popitem(last=False)
        return Constraint(matcher.deep_copy(), self._thinking, prompt)

    def _compile(self, grammar: str) -> Any:
        text = self._make.grammar_from_lark(grammar)
        fault: str = self._make.validate_grammar(text, self._vocabulary)
        if not fault:
            matcher = self._make(self._vocabulary, text, log_level=0)
            fault = matcher.get_error() if matcher.is_error() else ""
            begins = bool(fault) or matcher.is_accepting() or self._allowed([(0, matcher)], 1, self._size).any()
            if not begins or (matcher.is_stopped() and not matcher.is_accepting()):
                fault = fault or "no token of its vocabulary begins such a reply"
        if fault:
            shown = grammar if len(grammar) <= 300 else f"{grammar[:300]}..."
            raise BadRequestError(
                f"local model {self.name!r} cannot hold its reply to this form: {fault.strip()}\nLeave out what is not "
                f"supported, or set constrain=False. The grammar was: {shown}",
                status=400,
                body=fault,
            )
        return matcher

    def _allowed(self, rows: Sequence[tuple[int, Any]], count: int, size: int) -> Any:
        """1 for the tokens that may come next, 0 for others. Shape: (count, size)."""
        import numpy

        bits = numpy.zeros((count, (self._vocabulary.vocab_size + 31) // 32), numpy.int32)
        if len(rows) * self._size < _PARALLEL:
            for row, matcher in rows:
                self._fill(matcher, bits, row)
        else:
            self._fill_all(self._executor, [(matcher, row) for row, matcher in rows], bits)
        known = self._vocabulary.vocab_size
        allowed = numpy.unpackbits(bits.view(numpy.uint8), axis=1, count=known, bitorder="little")
        return allowed if known == size else numpy.pad(allowed[:, :size], ((0, 0), (0, max(size - known, 0))))

    def mask(self, logits: torch.Tensor, rows: Sequence[tuple[int, Constraint]]) -> torch.Tensor:
        """Return logits in which tokens that may not come next are minus infinity.

        Args:
            logits: Shape (rows, vocabulary).
            rows: Some of the rows, with what holds them.
        """
        import torch

        held = [(index, constraint) for index, constraint in rows if not constraint.is_free]
        if not held:
            return logits
        matchers = [(row, constraint.matcher) for row, (_, constraint) in enumerate(held)]
        allowed = self._allowed(matchers, len(held), logits.shape[-1])
        for row, (_, constraint) in enumerate(held):
            if constraint.may_think >= 0:
                allowed[row, constraint.may_think] = 1
            elif constraint.fault or not allowed[row].any():
                allowed[row, self._ends] = 1
                constraint.fault = constraint.fault or "no token of its vocabulary may come next"
        barred = torch.from_numpy(allowed == 0).to(logits.device)
        if len(held) == len(logits):
            return logits.masked_fill(barred, float("-inf"))
        masked = logits.clone()
        places = torch.tensor([index for index, _ in held], device=logits.device)
        masked[places] = logits[places].masked_fill(barred, float("-inf"))
        return masked


def _vocabulary(llguidance: Any, tokenizer: Any, size: int, ends: Sequence[int], name: str) -> Any:
    """The texts of all tokens, as llguidance takes them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.decoder is not None:
        from llguidance import LLTokenizer

        try:
            return LLTokenizer(_without_long(backend.to_str()), n_vocab=size, eos_token=list(ends))
        except ValueError as error:
            raise BadRequestError(
                f"the tokenizer of local model {name!r} cannot be held to a grammar: {error}",
                status=400,
                body=str(error),
            ) from error
    if backend is None or not ends:
        raise BadRequestError(
            f"the tokenizer of local model {name!r} cannot be held to a grammar: it takes a fast one "
            "(transformers.PreTrainedTokenizerFast) with a token that ends a reply",
            status=400,
        )
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Words(tokenizer, size, ends)), eos_token=list(ends))


def _without_long(told: str) -> str:
    """A tokenizer in JSON, without the texts of added tokens that are longer than llguidance can take.

    They are signs to it, which no grammar names, so that no held reply has them.
    """
    whole = {**json.loads(told), "padding": None, "truncation": None}
    for token in whole.get("added_tokens") or ():
        if len(token["content"].encode()) > _LONGEST:
            token.update(content=f"<|token {token['id']}|>", special=True)
    return json.dumps(whole)


class _Words:
    """A vocabulary of words that are written with a blank between them, each with the blank behind it.

    So no word is the beginning of another one. llguidance also speaks of beginnings of words, where a grammar leaves no
    choice: they and all bytes are tokens above the model's, where no mask is looked at.
    """

    def __init__(self, tokenizer: Any, size: int, ends: Sequence[int]) -> None:
        special = {*tokenizer.all_special_ids, *ends}
        words = {token: word for word, token in tokenizer.get_vocab().items() if token not in special}
        named = [f"{words[token]} " if token in words else f"<|{token}|>" for token in range(size)]
        whole = {f"{word} ".encode(): token for token, word in words.items()}
        begun = {word[:length]: None for word in whole for length in range(2, len(word))}
        above = [*(bytes([value]) for value in range(256)), *begun]
        self.tokens = [*(name.encode() for name in named), *above]
        self.special_token_ids = [token for token in range(size) if token not in words]
        self.eos_token_id = ends[0]
        self.bos_token_id = None
        self._ids = {**{text: size + place for place, text in enumerate(above)}, **whole}

    def __call__(self, text: str | bytes) -> list[int]:
        ids: list[int] = []
        for word in _WORD.findall(text.encode() if isinstance(text, str) else text):
            token = self._ids.get(word)
            ids += [self._ids[bytes([value])] for value in word] if token is None else [token]
        return ids
