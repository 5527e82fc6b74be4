"""What a local model makes of given replies: tokens, traces, likelihoods."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from promptgrad.errors import InputError
from promptgrad.lm._local_engine import template_options
from promptgrad.lm._local_tools import tools_of
from promptgrad.lm._parts import Content
from promptgrad.lm._reply import reply_ids
from promptgrad.lm._request import Request
from promptgrad.lm._text_only import refuse_parts
from promptgrad.lm._transport import Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from promptgrad.lm._local_engine import LocalEngine
    from promptgrad.lm._local_trace import LocalTrace


class LocalGiven(Transport):
    """The part of `Local` that reads prompts and replies instead of writing them."""

    @property
    @abstractmethod
    def model(self) -> Any:
        """The model; loaded now if it is not yet."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer; loaded now if it is not yet."""

    @abstractmethod
    def weights(self) -> list[torch.nn.Parameter]:
        """Return the weights that require gradients, for `torch.optim`."""

    @abstractmethod
    def version(self) -> int:
        """Return a number that changes whenever a weight is changed in place; 0 before the model is loaded."""

    @abstractmethod
    def _load(self) -> LocalEngine: ...

    def _leading(self) -> tuple[int, ...]:
        """Tokens before every prompt, which no text has."""
        return ()

    def _template(self, request: Request) -> dict[str, Any]:
        return template_options(self.with_defaults(request)) if self.options or request.extra else {}

    def encode(self, request: Request) -> list[int]:
        """Return the token ids of a request's prompt, as the model reads them.

        Raises:
            InputError: A message holds more than text.
        """
        refuse_parts(self.name, request.messages)
        ids = self._load().encode(request.messages, template=self._template(request))
        return [*self._leading(), *ids]

    def offsets(self, request: Request) -> tuple[str, list[tuple[int, int]]]:
        """Return a request's prompt as text, and where each of its tokens begins and ends there.

        Raises:
            InputError: The tokenizer cannot tell: it is not one of the fast kind; or a message holds more than text.
        """
        refuse_parts(self.name, request.messages)
        engine = self._load()
        if not getattr(engine.tokenizer, "is_fast", False):
            raise InputError(
                f"the tokenizer of local model {self.name!r} cannot say where its tokens stand in a text: it takes a "
                "fast one (transformers.PreTrainedTokenizerFast)"
            )
        text, how = engine.written(request.messages, template=self._template(request))
        places = engine.tokenizer(text, return_offsets_mapping=True, **how)["offset_mapping"]
        return text, [*((0, 0) for _ in self._leading()), *places]

    def target(self, request: Request, reply: Content) -> LocalTrace:
        """Return the trace of a given reply: what `loss.backward()` needs to make it likelier. Nothing is computed.

        The prompt is exactly that of a call; the reply ends with the end of its turn. Calls of tools in it are written
        as the chat template does.

        Raises:
            InputError: A message holds more than text, or the chat template has no place for tools.
            LMError: The model cannot be loaded, or the chat template refuses the messages.
        """
        from promptgrad.lm._local_trace import LocalTrace

        prompt = self.encode(request)
        ids = reply_ids(self.tokenizer, request.messages, reply, tools_of(request))
        return LocalTrace(self, prompt, ids, (), 1.0, self.version(), request)

    def log_likelihoods(self, request: Request, replies: Sequence[str], *, ended: bool = True) -> list[float]:
        """Return the log-likelihood of each of some replies to a request, in nats, at temperature 1.

        Cost: one forward pass over the prompt and what the replies begin with, and one over the rest of each.

        Args:
            request: The request.
            replies: Texts of replies, or what they begin with.
            ended: Whether they are whole, so that the end of the turn counts.

        Raises:
            InputError: A message holds more than text.
            LMError: The model cannot be loaded, or the chat template refuses the messages.
        """
        from promptgrad.lm._local_trace import LocalTrace

        prompt = self.encode(request)
        ends = self._load().ends
        traces = []
        for reply in replies:
            ids = reply_ids(self.tokenizer, request.messages, reply, tools_of(request))
            if not ended and ids and ids[-1] in ends:
                del ids[-1]
            traces.append(LocalTrace(self, prompt, ids, (), 1.0, self.version(), request))
        return LocalTrace.log_likelihoods(traces)
