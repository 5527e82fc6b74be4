"""The engine of a `Local`: its model, loaded, with tokenizer, decoder and the thread that computes."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad._accepts import Accepts, is_seq2seq
from promptgrad.errors import BadRequestError, ContextWindowError, LMError, MissingExtraError
from promptgrad.lm._grammar import Grammars
from promptgrad.lm._habits import Habits, without_system
from promptgrad.lm._local_load import check_folder, load_model, load_tokenizer, peak_memory
from promptgrad.lm._local_tools import (
    OPTIONS,
    CallFeed,
    check_tools,
    of_message,
    read_calls,
    template_messages,
    tools_of,
)
from promptgrad.lm._message import Message, Prefix
from promptgrad.lm._parts import Content
from promptgrad.lm._request import Request
from promptgrad.lm._stream import TokenFeed

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Mapping, Sequence

    from promptgrad.lm._adapted import Adapted
    from promptgrad.lm._decode import Decoder, Decoding
    from promptgrad.lm._grammar import Constraint
    from promptgrad.lm._local import Local
    from promptgrad.lm._worker import Worker

MAX_TOKENS = 256
"""Longest reply where neither the request nor the model sets one."""

_SAID = ("what the system says", "what the user says")

PREFIX_BYTES = 256 * 2**20
"""Memory for keys and values of prompts' beginnings."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One reply of a local model, token by token.

    Attributes:
        text: The reply.
        prompt_ids: Tokens of the prompt.
        ids: Tokens of the reply, with the one that ended it.
        logprobs: Log-probability of each of them, after the temperature; empty unless asked for.
        finish_reason: `stop` or `length`.
    """

    text: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str


class LocalEngine:
    """The loaded model of a `Local`, with its tokenizer and compute thread."""

    def __init__(self, lm: Local) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtraError(
                f"a local model needs torch and transformers ({error}): "
                "pip install -e '.[local]' in a checkout of promptgrad",
                extra="local",
            ) from error
        from promptgrad.lm._decode import Decoder
        from promptgrad.lm._seq2seq import Seq2SeqDecoder
        from promptgrad.lm._worker import Worker

        check_folder(lm._source)
        try:
            self.tokenizer = lm._tokenizer or load_tokenizer(transformers, lm)
            self.model = lm._model if lm._model is not None else load_model(torch, transformers, lm)
        except (MissingExtraError, LMError):
            raise
        except Exception as error:  # transformers, tokenizers and safetensors each have kinds of their own
            raise LMError(f"cannot load local model {lm.name!r}: {error}") from error
        if not Accepts(self.model).caches:
            raise LMError(
                f"local model {lm.name!r} is a {type(self.model).__name__}, which keeps what it has read in a form of "
                "its own: take a model that has a cache of transformers"
            )
        self.name = lm.name
        self._habits = Habits("", lm.name, lm.without)
        self.model.eval()
        self._config = getattr(self.model, "generation_config", None)
        self._torch, self._threads = torch, lm.threads
        ends = getattr(self._config, "eos_token_id", None)
        ends = ends if isinstance(ends, (list, tuple)) else [ends]
        ends = frozenset(end for end in [*ends, self.tokenizer.eos_token_id] if end is not None)
        pad = self.tokenizer.pad_token_id
        self.ends = ends
        self.limit: int | None = getattr(self.model.config, "max_position_embeddings", None)
        self.is_seq2seq = is_seq2seq(self.model)
        self.decoder: Decoder = (Seq2SeqDecoder if self.is_seq2seq else Decoder)(
            self.model, ends, pad if pad is not None else next(iter(ends), 0), lm.max_batch, PREFIX_BYTES
        )
        self.version, self.requires_grad = self.decoder.version, self.decoder.requires_grad
        self.loaded_version = self.version()
        self.seconds = 0.0  # of work, up to the last reply
        self._since = 0.0
        self._making = threading.Lock()
        self._unheld: dict[str, bool] = {}
        self._probed = {False: False, True: False}
        self._under_way: dict[int, tuple[Decoding, aio.Signal[None]]] = {}
        self._prefixes: OrderedDict[tuple[Prefix, str], list[int]] = OrderedDict()
        self.worker: Worker[Decoding] = Worker(self._work, f"promptgrad-local-{lm.name}")

    def temperature(self, request: Request) -> float:
        if request.temperature is not None:
            return float(request.temperature)
        config = self._config
        if config is None or not config.do_sample:
            return 0.0
        return 1.0 if config.temperature is None else float(config.temperature)

    async def generate(
        self,
        request: Request,
        seed: int,
        *,
        logprobs: bool,
        lora: Adapted | None = None,
        grammar: str | None = None,
        insists: bool = False,
    ) -> Generation:
        from promptgrad.lm._decode import Decoding
        from promptgrad.lm._sampling import Sampling

        leading = () if lora is None else lora.leading
        prompt = [*leading, *self.encode(request.messages, template=template_options(request))]
        constraint = None if grammar is None else await self._constraint(grammar, prompt, insists=insists)
        most = request.max_tokens or getattr(self._config, "max_new_tokens", None) or MAX_TOKENS
        if self.limit is not None:
            shared = 0 if self.is_seq2seq else len(prompt)  # encoder and decoder have places of their own
            if len(prompt) >= self.limit + self.is_seq2seq:
                together = "" if self.is_seq2seq else " together with its reply"
                raise ContextWindowError(
                    f"the prompt has {len(prompt)} tokens, and local model {self.name!r} reads at most {self.limit}"
                    f"{together}: use fewer or shorter demos or inputs"
                )
            most = min(most, self.limit - shared)
        drawn = Request(request.prefix, request.tail, seed=request.seed, replicate=request.replicate)
        number = int(drawn.digest(f"sample {seed}")[:16], 16)
        sampling = Sampling(self.temperature(request), request.top_p, _top_k(request), number)
        is_over = self._stopper(request.stop)
        feed = is_over = self._feed(request, is_over)
        arrived: aio.Signal[None] = aio.Signal()
        job = Decoding(
            prompt,
            self._common(request, prompt, len(leading)),
            most,
            sampling,
            logprobs,
            is_over,
            lambda job: self._settle(job),
            lora,
            constraint,
        )
        self._under_way[id(job)] = (job, arrived)
        self.worker.submit(job)
        try:
            await arrived
        except BaseException:
            job.dropped = True
            self._under_way.pop(id(job), None)
            raise
        if job.reason == "nan":
            raise LMError(
                f"local model {self.name!r} computed no numbers (NaN) for token {len(job.ids) + 1} of a reply: its "
                "weights are none, or overflow in their type (dtype='float32'), or were trained at too high a rate"
            ) from FloatingPointError("the logits are NaN")
        if constraint is not None and constraint.fault:
            raise LMError(f"local model {self.name!r} left the grammar of its reply: {constraint.fault}")
        ids = tuple(job.ids)
        text = self.decode(ids[:-1] if ids and ids[-1] in self.ends else ids)
        places = [place for stop in request.stop if (place := text.find(stop)) >= 0]
        if places:
            text = text[: min(places)]
        if isinstance(feed, TokenFeed):
            feed.finish(self._whole(ids) if tools_of(request) else text)
        return Generation(text, tuple(prompt), ids, tuple(job.scores), job.reason)

    def _feed(
        self, request: Request, is_over: Callable[[list[int]], bool] | None
    ) -> TokenFeed | Callable[[list[int]], bool] | None:
        """What passes the reply on as it is written, where a request is listened to; else what looks for its end.

        Of a model with a form of its own for calls (its response template) a reply with tools is told as a whole.
        """
        listener = request.listener
        if listener is None:
            return is_over
        if not tools_of(request):
            return TokenFeed(listener, self.decode, request.stop, is_over)
        if getattr(self.tokenizer, "response_template", None) is not None:
            return is_over
        return TokenFeed(CallFeed(listener, _call_number(request)), self._whole, request.stop, is_over)

    def _whole(self, ids: Sequence[int]) -> str:
        """Ids as text with the signs of calls in it, which may be special tokens."""
        known = [token for token in ids if token not in self.ends]
        text: str = self.tokenizer.decode(known, clean_up_tokenization_spaces=False)
        return text

    def content(self, made: Generation, request: Request) -> Content:
        """The reply to a request with tools, as parts where the model calls one."""
        tools, number = tools_of(request), _call_number(request)
        if getattr(self.tokenizer, "response_template", None) is not None:
            size = self.decoder.loras.vocabulary
            parse, prompt = self.tokenizer.parse_response, [token for token in made.prompt_ids if token < size]
            return of_message(parse(list(made.ids), prefix=prompt, tools=tools), number)
        return read_calls(self._whole(made.ids), number)

    async def _constraint(self, grammar: str, prompt: list[int], *, insists: bool) -> Constraint | None:
        """What holds a reply to a grammar; None where it cannot be held, and nobody insists."""
        if grammar in self._unheld and not insists:
            return None
        try:
            grammars = self.decoder.grammars
            if grammars is None or not grammars.knows(grammar):
                return await aio.in_thread(self._grammars().constraint, grammar, prompt)
            return grammars.constraint(grammar, prompt)
        except (BadRequestError, MissingExtraError) as error:
            if insists:
                raise
            told = bool(self._unheld) and isinstance(error, MissingExtraError)  # the library is missing for all of them
            self._unheld[grammar] = True
            if not told:
                aio.warn(f"{error}\nSuch replies are free. This is said once; constrain=True refuses them", UserWarning)
            return None

    def _grammars(self) -> Grammars:
        with self._making:
            if self.decoder.grammars is None:
                self.decoder.grammars = Grammars(self.tokenizer, self._logits(), self.ends, self.name)
            return self.decoder.grammars

    def _logits(self) -> int:
        """The number of logits of the model."""
        head = self.model.get_output_embeddings()
        size: int = len(self.tokenizer) if head is None else head.weight.shape[0]
        return size

    def encode(
        self, messages: Sequence[Message], *, reply: bool = True, template: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Return the ids of a prompt, up to the start of the reply."""
        text, how = self.written(messages, reply=reply, template=template)
        ids: list[int] = self.tokenizer(text, **how)["input_ids"]
        known = getattr(self.model.get_input_embeddings(), "num_embeddings", None)  # now: it may have been resized
        if known is not None and ids and (odd := max(ids)) >= known:
            raise LMError(
                f"the tokenizer of local model {self.name!r} is not the model's: it writes token {odd} "
                f"({self.name_token(odd)!r}), and the model knows {known}"
            )
        return ids

    def written(
        self, messages: Sequence[Message], *, reply: bool = True, template: Mapping[str, Any] | None = None
    ) -> tuple[str, dict[str, bool]]:
        """Return a prompt as text, and how the tokenizer reads it."""
        tokenizer = self.tokenizer
        check_tools(self.name, tokenizer, messages, (template or {}).get("tools", ()))
        if tokenizer.chat_template is None:
            return self._plain_text(messages, reply=reply), {}
        self._probe(messages)
        lacks = self._habits.lacks
        sent = without_system(tuple(messages)) if "system" in lacks else messages
        plain = template_messages(sent)
        try:
            text = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=reply, **(template or {}))
        except Exception as error:  # jinja's own kinds, which need not be importable here
            if self._habits.learn(str(error), Request(tail=tuple(messages)), lacks):
                return self.written(messages, reply=reply, template=template)
            raise LMError(f"the chat template of local model {self.name!r} refuses the messages: {error}") from error
        return text, {"add_special_tokens": False}

    def _probe(self, messages: Sequence[Message]) -> None:
        """See once whether the chat template writes the messages that it takes: some leave system messages out.

        Raises:
            LMError: It leaves out what the user says.
        """
        system = any(message.role == "system" for message in messages)
        if self._probed[system]:
            return
        said = [{"role": "user", "content": _SAID[1]}]
        said = [{"role": "system", "content": _SAID[0]}, *said] if system else said
        try:
            text = self.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        except Exception:  # noqa: BLE001 - what it refuses, it refuses of the messages too
            text = "".join(_SAID)
        if _SAID[1] not in text:
            raise LMError(f"the chat template of local model {self.name!r} leaves out what the user says")
        if system and _SAID[0] not in text:
            self._habits.learn("system messages are not supported", Request(tail=tuple(messages)), self._habits.lacks)
        self._probed[system] = True

    def _plain_text(self, messages: Sequence[Message], *, reply: bool) -> str:
        """Messages as text for a model without a chat template: an encoder reads a single task without roles."""
        if self.is_seq2seq and [m.role for m in messages if m.role != "system"] == ["user"]:
            return "\n\n".join(m.text for m in messages if m.text)
        lines = [f"{m.role}: {m.text}" for m in messages]
        return "\n".join([*lines, "assistant:"] if reply else [*lines, ""])

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def name_token(self, token: int) -> str:
        """Return a token as text, including special tokens, which `decode` leaves out."""
        text: str = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return text

    def _common(self, request: Request, prompt: list[int], leading: int) -> int:
        """Return the number of tokens that all prompts with the prefix of this one begin with, those of `leading` too.

        Args:
            request: The request.
            prompt: Its tokens.
            leading: How many stand before what the request says.
        """
        prefix = request.prefix
        if self.is_seq2seq:
            return 0
        if not prefix.messages:
            return leading
        template = template_options(request)
        key = prefix, json.dumps(template) if template else ""
        ids = self._prefixes.get(key)
        if ids is None:
            try:
                ids = self.encode(prefix.messages, reply=False, template=template)
            except LMError:  # some templates want a user's message
                ids = []
        if prompt[leading : leading + len(ids)] != ids:
            same = 0
            while same < min(len(ids), len(prompt) - leading) and ids[same] == prompt[leading + same]:
                same += 1
            ids = ids[:same]
        self._prefixes[key] = ids
        while len(self._prefixes) > 1024:
            self._prefixes.popitem(last=False)
        return leading + len(ids)

    def _stopper(self, stops: tuple[str, ...]) -> Callable[[list[int]], bool] | None:
        if not stops:
            return None
        window = max(map(len, stops)) + 8

        def is_over(ids: list[int]) -> bool:
            tail = self.decode(ids[-window:])
            return any(stop in tail for stop in stops)

        return is_over

    def _settle(self, job: Decoding) -> None:
        now = perf_counter()
        self._since, self.seconds = now, self.seconds + now - self._since  # before anybody has the reply
        found = self._under_way.pop(id(job), None)
        if found is not None:
            found[1].set(None)

    def stats(self) -> dict[str, Any]:
        """Return what was computed so far, as numbers by name."""
        decoder, memory, seconds = self.decoder, 0, self.seconds
        if self.model.device.type == "cuda":
            memory = self._torch.cuda.max_memory_allocated(self.model.device)
        return {
            "device": str(self.model.device),
            "requests": decoder.replies,
            "input_tokens": decoder.read,
            "output_tokens": decoder.written,
            "seconds": seconds,
            "tokens_per_second": decoder.written / seconds if seconds else 0.0,
            "weight_bytes": sum(weight.numel() * weight.element_size() for weight in self.model.parameters()),
            "kv_bytes": decoder.most_bytes,
            "prefix_bytes": decoder.prefixes.size,
            "peak_bytes": memory or peak_memory(),
        }

    def _work(self, jobs: deque[Decoding]) -> None:
        self._since = perf_counter()
        try:
            if self._threads is not None:
                self._torch.set_num_threads(self._threads)
            self.decoder.run(jobs, lambda: self.worker.closing)
        except Exception as error:  # noqa: BLE001 - it is raised in the waiting callers
            jobs.clear()
            for key, (job, arrived) in list(self._under_way.items()):
                self._under_way.pop(key, None)
                job.dropped = True
                failure = LMError(f"local model {self.name!r} failed: {type(error).__name__}: {error}")
                failure.__cause__ = error
                arrived.fail(failure)


def _call_number(request: Request) -> str:
    """What the ids of the calls in the reply to a request begin with."""
    return f"call_{request.digest()[:8]}"


def template_options(request: Request) -> dict[str, Any]:
    """Return what a request tells the chat template beside the messages, such as whether the model shall think."""
    extra = dict(request.extra)
    told: dict[str, Any] = json.loads(extra.get("chat_template_kwargs", "{}"))
    if "enable_thinking" in extra:
        told["enable_thinking"] = json.loads(extra["enable_thinking"])
    if tools := tools_of(request):
        told["tools"] = tools
    return told


def _top_k(request: Request) -> int | None:
    extra = dict(request.extra)
    top_k = extra.pop("top_k", None)
    for name in ("logprobs", "enable_thinking", "chat_template_kwargs", *OPTIONS):
        extra.pop(name, None)
    if extra:
        raise ValueError(
            f"a local model has no option {', '.join(extra)}; it knows temperature, top_p, top_k, stop, logprobs, "
            "enable_thinking, chat_template_kwargs, tools, tool_choice"
        )
    return None if top_k is None else int(top_k)
