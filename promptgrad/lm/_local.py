"""`Local`: a Hugging Face causal language model in this process."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad._seed import seed_or_default
from promptgrad.autograd import is_grad_enabled
from promptgrad.errors import ContextWindowError, InputError, LMError, MissingExtraError
from promptgrad.lm._completion import Completion, TokenLogprob, Usage
from promptgrad.lm._parts import TextPart
from promptgrad.lm._request import Message, Prefix, Request, canonical_json
from promptgrad.lm._stream import TokenTeller
from promptgrad.lm._transport import Transport

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Mapping, Sequence

    import torch

    from promptgrad.lm._decode import Decoder, Decoding
    from promptgrad.lm._worker import Worker

MAX_TOKENS = 256
"""Longest reply where neither the request nor the model says."""

PREFIX_BYTES = 256 * 2**20
"""Memory for keys and values of prompts' beginnings."""

_SAMPLED_FROM = 64 * 2**20  # bytes of weights from which on a fingerprint looks at samples only


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


class Local(Transport):
    """A causal language model of transformers, computed in this process, in one thread of its own.

    Requests that come together are answered together, in batches that others join and leave while they run. What
    the prompts' prefixes have in common is computed once. A reply depends on its request alone: its random numbers come
    from the messages, the replicate and the seeds, so the same request gets the same reply, whatever else is in the
    batch (up to rounding in the last digits); ask for another `replicate` to get another one. `response_format` is not
    enforced, and messages hold text alone. `stream` gives each token as it is chosen.

    With `requires_grad_()` on, and gradients enabled, replies carry a trace through which `loss.backward()` reaches the
    weights. Loaded by path, the weights are frozen until then; a model object is taken as it is.

    Nothing is loaded before the first use. Needs the extra `local`.

    Cost: no money. A call costs one pass over the prompt and one for each token of the reply.

    Args:
        model: Folder or name of a model, or a model object.
        tokenizer: Folder or name of a tokenizer, or a tokenizer; by default the model's own.
        name: What the LM is called; by default the folder's name.
        device: Where a model loaded by path computes.
        dtype: Type of its numbers; by default float32 on the CPU, and as saved elsewhere.
        threads: Threads of torch on the CPU, for the whole process; None leaves torch's setting as it is.
        max_batch: Most replies under way.
        seed: Added to the seeds of requests; by default that of `promptgrad.manual_seed`.
        adapter: Name of the adapter that writes prompts for it.
        options: Sampling options for requests that leave them open: `temperature`, `max_tokens`, `top_p`, `top_k`,
            `stop`, `logprobs`. Without a temperature, that of the model's generation config, or 0 if that does not
            sample.

    Raises:
        MissingExtraError: At the first use: torch or transformers is not installed.
        LMError: At the first use: the model cannot be loaded.
        ValueError: `max_batch` is below one, or the folder is not there.
    """

    in_place = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        name: str = "",
        device: str = "cpu",
        dtype: Any = None,
        threads: int | None = None,
        max_batch: int = 64,
        seed: int | None = None,
        adapter: str = "chat",
        **options: Any,
    ) -> None:
        if max_batch < 1 or (threads is not None and threads < 1):
            raise ValueError("max_batch and threads must be at least 1")
        self._source = str(model) if isinstance(model, (str, os.PathLike)) else None
        if self._source is not None and _looks_like_path(self._source) and not Path(self._source).is_dir():
            raise ValueError(f"there is no folder {self._source!r} to load a model from")
        super().__init__(name or _name_of(model, self._source), adapter=adapter, options=options)
        self.device = device
        self.dtype = dtype
        self.threads = threads
        self.max_batch = max_batch
        self.seed = seed
        self._model: Any = model if self._source is None else None
        self._tokenizer: Any = None if isinstance(tokenizer, (str, os.PathLike)) else tokenizer
        self._tokenizer_source = str(tokenizer) if isinstance(tokenizer, (str, os.PathLike)) else self._source
        self._lock = threading.RLock()
        self._engine: _Engine | None = None
        self._fingerprint: tuple[int, str] = (0, "")

    @property
    def model(self) -> Any:
        """The model; loaded now if it is not yet."""
        return self._load().model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer; loaded now if it is not yet."""
        return self._load().tokenizer

    def requires_grad_(self, requires_grad: bool = True) -> Local:  # noqa: FBT001, FBT002 - as torch has it
        """Say whether the weights want gradients: all of them, or those of a LoRA if the model has one."""
        for name, weight in self.model.named_parameters():
            lora = hasattr(self.model, "peft_config")
            weight.requires_grad_(requires_grad and (not lora or "lora_" in name))
        return self

    def weights(self) -> list[torch.nn.Parameter]:
        """Return the weights that want gradients, for `torch.optim`."""
        if self._model is None and self._engine is None:
            return []  # loaded by path, and not loaded yet: frozen
        return [weight for weight in self.model.parameters() if weight.requires_grad]

    def _is_trained(self) -> bool:
        """Whether the weights are not those of a folder: a model object, or changed since they were loaded."""
        engine = self._engine
        return self._source is None or (engine is not None and engine.version() != engine.loaded_version)

    def traces(self) -> bool:
        """Whether a reply made here and now would carry a trace to the weights."""
        engine = self._engine
        if engine is None:
            return is_grad_enabled() and bool(self.weights())
        return is_grad_enabled() and engine.requires_grad()

    def with_model(self, model: Any, name: str = "") -> Local:
        """Return a local LM with another model object, and the tokenizer and settings of this one."""
        options = {key: value for key, value in self.options.items() if key != "extra"}
        made = Local(
            model,
            self.tokenizer,
            name=name or self.name,
            threads=self.threads,
            max_batch=self.max_batch,
            seed=self.seed,
            adapter=self.adapter,
            **options,
        )
        made.options = dict(self.options)
        return made

    def version(self) -> int:
        """Return a number that changes whenever a weight is changed in place; 0 before the model is loaded."""
        engine = self._engine
        return 0 if engine is None else engine.version()

    def identity(self) -> str:
        """Return name, options, seed, and a fingerprint of the weights as they are now."""
        seed = seed_or_default(self.seed)
        return f"local {self.name} {self._weights_fingerprint()} {seed} {canonical_json(self.options)}"

    def _weights_fingerprint(self) -> str:
        engine = self._engine
        if engine is None and self._source is None:
            engine = self._load()
        version = 0 if engine is None else engine.version()
        known, text = self._fingerprint
        if not text or known != version:
            changed = engine is not None and version != engine.loaded_version
            if self._source is not None and not changed:
                text = _fingerprint_files(self._source)
            elif engine is not None:
                text = _fingerprint_weights(engine.model)
            self._fingerprint = (version, text)
        return text

    def encode(self, request: Request) -> list[int]:
        """Return the token ids of a request's prompt, as the model reads them.

        Raises:
            InputError: A message holds more than text.
        """
        refuse_parts(self.name, request.messages)
        return self._load().encode(request.messages)

    async def sample(self, request: Request, *, logprobs: bool = False) -> Generation:
        """Answer one request with its tokens and, if asked for, their log-probabilities. Books and journals nothing.

        Raises:
            ContextWindowError: The prompt leaves no room for a reply.
            InputError: A message holds more than text. Nothing is loaded then.
            LMError: The model cannot be loaded, the chat template refuses the messages, or the computation failed.
            ValueError: An option that a local model does not know.
        """
        refuse_parts(self.name, request.messages)
        engine = self._engine
        if engine is None:
            engine = await aio.in_thread(self._load)
        request = self.with_defaults(request) if self.options else request
        return await engine.generate(request, seed_or_default(self.seed), logprobs=logprobs)

    async def _send(self, request: Request, key: str) -> Completion:
        started = perf_counter()
        refuse_parts(self.name, request.messages)
        engine = self._engine
        if engine is None:
            engine = await aio.in_thread(self._load)
        traced, asked = self.traces(), dict(request.extra).get("logprobs") == "true"
        made = await engine.generate(request, seed_or_default(self.seed), logprobs=traced or asked)
        usage = Usage(1, len(made.prompt_ids), len(made.ids), 0.0, 0, perf_counter() - started)
        trace = None
        if traced:
            from promptgrad.lm._local_trace import LocalTrace

            temperature = engine.temperature(request) or 1.0
            trace = LocalTrace(self, made.prompt_ids, made.ids, made.logprobs, temperature, engine.version())
        tokens = zip(made.ids, made.logprobs, strict=True) if asked else ()
        logprobs = tuple([TokenLogprob(engine.name_token(token), score) for token, score in tokens])
        return Completion(made.text, usage, self.name, made.finish_reason, logprobs=logprobs, trace=trace)

    def _record(self, completion: Completion) -> dict[str, Any]:
        reply = completion.to_dict()
        if completion.trace is not None:
            reply["trace"] = completion.trace.to_dict()
        return reply

    def _restore(self, request: Request, reply: Mapping[str, Any]) -> Completion:
        completion = Completion.from_dict(reply)
        if "trace" not in reply or not self.traces():
            return completion
        from promptgrad.lm._local_trace import LocalTrace

        trace = LocalTrace.from_dict(self, reply["trace"])
        return replace(completion, trace=trace)

    def _load(self) -> _Engine:
        with self._lock:
            if self._engine is None:
                self._engine = _Engine(self)
            return self._engine

    def close(self) -> None:
        """Let the compute thread end. The model stays loaded."""
        if self._engine is not None:
            self._engine.worker.close()

    def __repr__(self) -> str:
        where = "" if self._source is None else f", {self._source!r}"
        return f"Local({self.name!r}{where})"


class _Engine:
    """What a `Local` has once its model is loaded."""

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
        from promptgrad.lm._worker import Worker

        try:
            self.tokenizer = lm._tokenizer or _load_tokenizer(transformers, lm)
            self.model = lm._model if lm._model is not None else _load_model(torch, transformers, lm)
        except Exception as error:  # transformers, tokenizers and safetensors each have kinds of their own
            raise LMError(f"cannot load local model {lm.name!r}: {error}") from error
        self.name = lm.name
        self.model.eval()
        self._config = getattr(self.model, "generation_config", None)
        self._torch, self._threads = torch, lm.threads
        ends = getattr(self._config, "eos_token_id", None)
        ends = ends if isinstance(ends, (list, tuple)) else [ends]
        ends = frozenset(end for end in [*ends, self.tokenizer.eos_token_id] if end is not None)
        pad = self.tokenizer.pad_token_id
        self.ends = ends
        self.limit: int | None = getattr(self.model.config, "max_position_embeddings", None)
        self.decoder: Decoder = Decoder(
            self.model, ends, pad if pad is not None else next(iter(ends), 0), lm.max_batch, PREFIX_BYTES
        )
        self.version, self.requires_grad = self.decoder.version, self.decoder.requires_grad
        self.loaded_version = self.version()
        self._under_way: dict[int, tuple[Decoding, aio.Signal[None]]] = {}
        self._prefixes: OrderedDict[Prefix, list[int]] = OrderedDict()
        self.worker: Worker[Decoding] = Worker(self._work, f"promptgrad-local-{lm.name}")

    def temperature(self, request: Request) -> float:
        if request.temperature is not None:
            return float(request.temperature)
        config = self._config
        if config is None or not config.do_sample:
            return 0.0
        return 1.0 if config.temperature is None else float(config.temperature)

    async def generate(self, request: Request, seed: int, *, logprobs: bool) -> Generation:
        from promptgrad.lm._decode import Decoding
        from promptgrad.lm._sampling import Sampling

        prompt = self.encode(request.messages)
        most = request.max_tokens or getattr(self._config, "max_new_tokens", None) or MAX_TOKENS
        if self.limit is not None:
            if len(prompt) >= self.limit:
                raise ContextWindowError(
                    f"the prompt has {len(prompt)} tokens, and local model {self.name!r} reads at most {self.limit} "
                    "together with its reply: use fewer or shorter demos or inputs"
                )
            most = min(most, self.limit - len(prompt))
        drawn = Request(request.prefix, request.tail, seed=request.seed, replicate=request.replicate)
        number = int(drawn.digest(f"sample {seed}")[:16], 16)
        sampling = Sampling(self.temperature(request), request.top_p, _top_k(request), number)
        is_over = self._stopper(request.stop)
        teller = None
        if request.listener is not None:
            teller = is_over = TokenTeller(request.listener, self.decode, request.stop, is_over)
        arrived: aio.Signal[None] = aio.Signal()
        job = Decoding(
            prompt,
            self._common(request.prefix, prompt),
            most,
            sampling,
            logprobs,
            is_over,
            lambda job: self._settle(job),
        )
        self._under_way[id(job)] = (job, arrived)
        self.worker.submit(job)
        try:
            await arrived
        except BaseException:
            job.dropped = True
            self._under_way.pop(id(job), None)
            raise
        ids = tuple(job.ids)
        text = self.decode(ids[:-1] if ids and ids[-1] in self.ends else ids)
        places = [place for stop in request.stop if (place := text.find(stop)) >= 0]
        if places:
            text = text[: min(places)]
        if teller is not None:
            teller.finish(text)
        return Generation(text, tuple(prompt), ids, tuple(job.scores), job.reason)

    def encode(self, messages: Sequence[Message], *, reply: bool = True) -> list[int]:
        """Return the ids of a prompt, up to where the reply begins."""
        tokenizer = self.tokenizer
        if tokenizer.chat_template is None:
            lines = [f"{m.role}: {m.text}" for m in messages]
            text = "\n".join([*lines, "assistant:"] if reply else [*lines, ""])
            ids: list[int] = tokenizer(text)["input_ids"]
            return ids
        told = [{"role": m.role, "content": m.text} for m in messages]
        try:
            text = tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=reply)
        except Exception as error:  # jinja's own kinds, which need not be importable here
            raise LMError(f"the chat template of local model {self.name!r} refuses the messages: {error}") from error
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def name_token(self, token: int) -> str:
        """Return a token as text, with what `decode` leaves out."""
        text: str = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return text

    def _common(self, prefix: Prefix, prompt: list[int]) -> int:
        """Return how many tokens of the prompt every prompt with this prefix begins with."""
        if not prefix.messages:
            return 0
        ids = self._prefixes.get(prefix)
        if ids is None:
            try:
                ids = self.encode(prefix.messages, reply=False)
            except LMError:  # some templates want a user's message
                ids = []
        if prompt[: len(ids)] != ids:
            same = 0
            while same < min(len(ids), len(prompt)) and ids[same] == prompt[same]:
                same += 1
            ids = ids[:same]
        self._prefixes[prefix] = ids
        while len(self._prefixes) > 1024:
            self._prefixes.popitem(last=False)
        return len(ids)

    def _stopper(self, stops: tuple[str, ...]) -> Callable[[list[int]], bool] | None:
        if not stops:
            return None
        window = max(map(len, stops)) + 8

        def is_over(ids: list[int]) -> bool:
            tail = self.decode(ids[-window:])
            return any(stop in tail for stop in stops)

        return is_over

    def _settle(self, job: Decoding) -> None:
        found = self._under_way.pop(id(job), None)
        if found is not None:
            found[1].set(None)

    def _work(self, jobs: deque[Decoding]) -> None:
        try:
            if self._threads is not None:
                self._torch.set_num_threads(self._threads)
            self.decoder.run(jobs, lambda: self.worker.closing)
        except Exception as error:  # noqa: BLE001 - it is raised in those who wait
            jobs.clear()
            for key, (job, arrived) in list(self._under_way.items()):
                self._under_way.pop(key, None)
                job.dropped = True
                failure = LMError(f"local model {self.name!r} failed: {type(error).__name__}: {error}")
                failure.__cause__ = error
                arrived.fail(failure)


def refuse_parts(name: str, messages: Sequence[Message]) -> None:
    """Refuse messages that hold more than text.

    Raises:
        InputError: One does.
    """
    for number, message in enumerate(messages, 1):
        if isinstance(message.content, str):
            continue
        for part in message.content:
            if not isinstance(part, TextPart):
                raise InputError(
                    f"local model {name!r} takes text alone, and message {number} ({message.role}) holds "
                    f"{part}: use an LM of a provider or a server (HTTP, LiteLLM) for it"
                )


def _load_tokenizer(transformers: Any, lm: Local) -> Any:
    source = lm._tokenizer_source or getattr(lm._model, "name_or_path", "")
    if not source:
        raise ValueError("a model object without a folder needs a tokenizer: Local(model, tokenizer)")
    return transformers.AutoTokenizer.from_pretrained(source, local_files_only=Path(source).is_dir())


def _load_model(torch: Any, transformers: Any, lm: Local) -> Any:
    source = lm._source
    dtype = lm.dtype or (torch.float32 if str(lm.device) == "cpu" else "auto")
    noisy = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, local_files_only=Path(str(source)).is_dir()
        )
    finally:
        if noisy:
            transformers.utils.logging.enable_progress_bar()
    return model.to(lm.device).requires_grad_(requires_grad=False)


def _top_k(request: Request) -> int | None:
    extra = dict(request.extra)
    top_k = extra.pop("top_k", None)
    extra.pop("logprobs", None)
    if extra:
        raise ValueError(
            f"a local model has no option {', '.join(extra)}; it knows temperature, top_p, top_k, stop, logprobs"
        )
    return None if top_k is None else int(top_k)


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "~", os.sep)) or os.sep in source.replace("/", "", 1)


def _name_of(model: Any, source: str | None) -> str:
    if source is not None:
        return Path(source).name
    return Path(getattr(model, "name_or_path", "") or type(model).__name__).name


def _fingerprint_files(source: str) -> str:
    """Digest the files of a model's folder: all of small ones, samples of large ones."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    digest = blake2b(digest_size=8)
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".json", ".jinja", ".safetensors", ".model", ".txt"}:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= _SAMPLED_FROM:
                digest.update(file.read())
            else:
                for part in range(256):
                    file.seek(part * (size - 4096) // 255)
                    digest.update(file.read(4096))
    return digest.hexdigest()


def _fingerprint_weights(model: Any) -> str:
    """Digest a model's weights: all of small ones, samples of large ones."""
    import torch

    digest = blake2b(digest_size=8)
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    stride = 1 if size <= _SAMPLED_FROM else max(1, size // _SAMPLED_FROM)
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        sampled = weight.detach().reshape(-1)[::stride].contiguous().cpu()
        digest.update(sampled.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
