"""`Local`: a Hugging Face language model in this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad._seed import seed_or_default
from promptgrad.autograd import is_grad_enabled
from promptgrad.lm._base import make_known
from promptgrad.lm._completion import Completion, TokenLogprob, Usage
from promptgrad.lm._grammar import can_constrain
from promptgrad.lm._json_grammar import response_grammar
from promptgrad.lm._local_engine import PREFIX_BYTES, Generation, LocalEngine
from promptgrad.lm._local_known import LocalKnown
from promptgrad.lm._local_load import near_folder
from promptgrad.lm._local_tools import OPTIONS, call_grammar, tools_of
from promptgrad.lm._options import hear, take
from promptgrad.lm._parts import Content
from promptgrad.lm._request import Request
from promptgrad.lm._text_only import refuse_parts

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from promptgrad.lm._adapted import Adapted
    from promptgrad.lm._local_lora import LocalLora
    from promptgrad.lm._local_plan import LocalPlan


_KNOWN = {"temperature", "max_tokens", "top_p", "top_k", "stop", "seed", "logprobs", "response_format", "replicate"}
_KNOWN |= {"grammar", "enable_thinking", "chat_template_kwargs", *OPTIONS}


class Local(LocalKnown):
    """A language model of transformers, computed in this process, in one thread of its own.

    Causal models (Llama, Qwen, Mistral, Gemma, ...) and sequence-to-sequence models (T5, BART), whose encoder reads the
    prompt. Messages are written by the chat template; without one as lines with roles, and for an encoder that reads a
    single task as their texts alone.

    Concurrent requests are answered together, in batches that others join and leave while they run (none joins one of a
    sequence-to-sequence model). Shared prefixes of prompts are computed once. A reply depends only on its request: its
    random numbers come from the messages, the replicate and the seeds, so the same request gets the same reply,
    whatever else is in the batch (up to rounding in the last digits); set another `replicate` to get another one.
    Messages hold text, calls of tools and their results. `stream` gives each token as it is chosen.

    Tools (`tools=`) are declared by the chat template, which also writes calls, results and earlier thoughts. A reply
    is read by the tokenizer's response template, and without one as `<tool_call>{"name": ..., "arguments": ...}`, which
    most chat templates ask for. Where a tool has to be called (`tool_choice`), the reply is held to that form. A
    template without a place for tools is an `InputError`.

    With the extra `constrained` (llguidance), replies are held to the form that is asked for while they are written: to
    `response_format`, and to what the adapter knows of the outputs' types (`Request.grammar`). So a typed reply that
    came to its end is read. Thoughts before it are free. What cannot be held is said once and left free.

    With `requires_grad_()` on, and gradients enabled, replies carry a trace through which `loss.backward()` reaches the
    weights. Loaded by path, the weights are frozen until then; a model object is used as it is.

    Nothing is loaded before the first use. Needs the extra `local`.

    Cost: no money. A call costs one pass over the prompt and one for each token of the reply. A new form is compiled in
    some milliseconds, the vocabulary once for each model.

    Args:
        model: Folder or name of a model, or a model object.
        tokenizer: Folder or name of a tokenizer, or a tokenizer; by default the model's own.
        name: Name of the LM; by default the folder's name.
        device: Device of a model loaded by path; "auto" takes the first GPU (cuda, then mps), else the CPU.
        dtype: Type of its numbers; by default float32 on the CPU, and as saved on other devices.
        quantize: "4bit" keeps the weights of linear layers in 4 bits (nf4), by bitsandbytes: an eighth of float32's
            memory, slower on a CPU, and other replies. Such a model is trained with a LoRA beside it: `lm.lora(name)`.
        threads: Threads of torch on the CPU, for the whole process; None leaves torch's setting as it is.
        max_batch: Most replies in progress.
        seed: Added to the seeds of requests; by default that of `promptgrad.manual_seed`.
        adapter: Name of the adapter that writes prompts for it.
        constrain: Whether replies are held to a form. None does so where llguidance is installed and the form is
            supported; True refuses what cannot be held, before anything is computed; False leaves them free.
        without: `["system"]` for a model whose chat template has no system role; else it is learnt from its error.
        options: Sampling options for requests that leave them open: `temperature`, `max_tokens`, `top_p`, `top_k`,
            `stop`, `logprobs`, `response_format`, `grammar`; `enable_thinking` and `chat_template_kwargs`, which the
            chat template reads. Without a temperature, that of the model's generation config, or 0 if it does not
            sample.

    Raises:
        BadRequestError: When called, with `constrain=True`: the form of the reply is not supported.
        MissingExtraError: At the first use: torch or transformers is not installed, bitsandbytes for 4 bits, or
            llguidance for `constrain=True`.
        LMError: At the first use: the model cannot be loaded.
        TypeError: An option is not known.
        ValueError: `max_batch` is below one, or the folder is not there.
    """

    in_place = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        name: str = "",
        device: str = "auto",
        dtype: Any = None,
        quantize: str | None = None,
        threads: int | None = None,
        max_batch: int = 64,
        seed: int | None = None,
        adapter: str = "chat",
        constrain: bool | None = None,
        without: Iterable[str] = (),
        **options: Any,
    ) -> None:
        if options:
            options = hear("lm.Local", options, ("dtype", "device"))
            dtype = take(options, "dtype", dtype)
            device = take(options, "device", device, "auto")
            unknown = sorted(set(options) - _KNOWN - {"extra"})
            if unknown:
                known = ", ".join(sorted(_KNOWN))
                raise TypeError(f"lm.Local has no option {', '.join(map(repr, unknown))}; it knows {known}")
        if quantize not in (None, "4bit"):
            raise ValueError(f"quantize is '4bit' or None, not {quantize!r}")
        if max_batch < 1 or (threads is not None and threads < 1):
            raise ValueError("max_batch and threads must be at least 1")
        self._source = str(model) if isinstance(model, (str, os.PathLike)) else None
        if self._source == "" or (self._source is None and not hasattr(model, "named_parameters")):
            raise ValueError(f"a local model is a folder, a name, or a model object of transformers, not {model!r}")
        if self._source is not None and _looks_like_path(self._source) and not Path(self._source).is_dir():
            raise ValueError(f"there is no folder {self._source!r} to load a model from{near_folder(self._source)}")
        if quantize and self._source is None:
            raise ValueError("a model object is used as it is: give quantize='4bit' with the folder or name of a model")
        super().__init__(name or _name_of(model, self._source), adapter=adapter, options=options)
        self.device = device
        self.dtype = dtype
        self.quantize = quantize
        self.threads = threads
        self.max_batch = max_batch
        self.seed = seed
        self.constrain = constrain
        self.constrains = can_constrain() if constrain is None else constrain
        self.without = tuple(without)
        self._model: Any = model if self._source is None else None
        self._tokenizer: Any = None if isinstance(tokenizer, (str, os.PathLike)) else tokenizer
        self._tokenizer_source = str(tokenizer) if isinstance(tokenizer, (str, os.PathLike)) else self._source
        self._lock = threading.RLock()
        self._engine: LocalEngine | None = None
        self._lora: Adapted | None = None
        self._adapters: dict[str, LocalLora] = {}
        self._fingerprint: tuple[int, str] = (0, "")
        self._known_as: tuple[int, str, bool] = (0, "", True)

    @property
    def model(self) -> Any:
        """The model; loaded now if it is not yet."""
        return self._load().model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer; loaded now if it is not yet."""
        return self._load().tokenizer

    def requires_grad_(self, requires_grad: bool = True) -> Local:  # noqa: FBT001, FBT002 - as torch has it
        """Set whether the weights require gradients: all of them, or those of a LoRA if the model has one."""
        for name, weight in self.model.named_parameters():
            lora = hasattr(self.model, "peft_config")
            weight.requires_grad_(requires_grad and (not lora or "lora_" in name))
        return self

    def _lora_from(self, folder: Path, title: str, name: str) -> Local:
        """Load a LoRA of saved program: under no name of this model, so that what has the name stays as it is."""
        read: LocalLora = make_known("LocalLora", self, title, str(folder))
        return read.with_model(read.model, name)

    def named_weights(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Return the weights that require gradients with the names that the model gives them."""
        if self._model is None and self._engine is None:
            return []  # loaded by path, and not loaded yet: frozen
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]

    def weights(self) -> list[torch.nn.Parameter]:
        """Return the weights that require gradients, for `torch.optim`."""
        return [weight for _, weight in self.named_weights()]

    def _is_trained(self) -> bool:
        """True if the weights are not those of a folder: a model object, or changed since they were loaded."""
        engine = self._engine
        return self._source is None or (engine is not None and engine.version() != engine.loaded_version)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._source is not None and self._is_trained():
            raise TypeError(
                f"{self!r} has weights that are not those of its folder, and a pickle would lose them: save the "
                "program, promptgrad.save(model, 'folder'), and load it in the other process"
            )
        return super().__reduce_ex__(protocol)

    def plan(self, *, context: int | None = None, rows: int | None = None) -> LocalPlan:
        """Estimate the memory that the model takes, from its configuration alone; nothing is loaded.

        Args:
            context: Tokens of a prompt with its reply; by default as many as the model reads.
            rows: Replies in progress; by default `max_batch`.

        Raises:
            MissingExtraError: torch or transformers is not installed.
            LMError: The configuration cannot be read.
        """
        from promptgrad.lm._local_plan import plan_of

        return plan_of(self, context, rows, PREFIX_BYTES)

    @property
    def media(self) -> frozenset[str]:
        """Nothing: it takes text alone."""
        return frozenset()

    def stats(self) -> dict[str, Any]:
        """Return speed and memory so far; those of a LoRA are its base's. Empty before the first use.

        `input_tokens` are those that went through the model (shared beginnings once), `seconds` those of computation,
        `kv_bytes` the most that keys and values of replies in progress took, `peak_bytes` the most of the GPU, or of
        this whole process on a CPU.
        """
        return {} if self._engine is None else self._engine.stats()

    def traces(self) -> bool:
        """True if a reply made here and now would carry a trace to the weights."""
        engine = self._engine
        if engine is None:
            return is_grad_enabled() and bool(self.weights())
        return is_grad_enabled() and engine.requires_grad()

    def with_model(self, model: Any, name: str = "") -> Local:
        """Return a local LM with another model object, and the tokenizer and settings of this one."""
        made = Local(model, self.tokenizer, name=name or self.name, **self._settings())
        made.options = dict(self.options)
        return made

    def _settings(self) -> dict[str, Any]:
        """Arguments for a local LM that shall be used as this one is."""
        same = "device", "dtype", "threads", "max_batch", "seed", "constrain", "without"  # it is quantized already
        options = {key: value for key, value in self.options.items() if key != "extra"}
        return {**{name: getattr(self, name) for name in same}, "adapter": self.adapter, **options}

    @property
    def base(self) -> Local:
        """The local LM whose weights, thread and batches are used: that below a LoRA, else this one."""
        return self

    @property
    def title(self) -> str:
        """Name of its LoRA; "" without one."""
        return ""

    def save_lora(self, folder: str | os.PathLike[str]) -> None:
        """Write the LoRA of this LM as peft does, as safetensors and JSON; `lm.lora(name, folder)` loads it.

        Raises:
            ValueError: It has none.
        """
        raise ValueError(f"{self.name!r} has no LoRA: lm.lora(name) makes one, and finetune.sft trains it")

    def lora(
        self, name: str, source: str | os.PathLike[str] | Mapping[str, Any] | None = None, **options: Any
    ) -> LocalLora:
        """Return this model with a LoRA: an LM of its own on the weights, thread and batches of this one.

        A program may use a different one in each module, `program.hop1.to(lm.lora("a"))`; requests of several are
        answered in one batch, and nothing of the base is copied. `finetune` trains those that a program runs on. The
        first call with a name makes the LoRA, later ones return it; what a new one begins with depends on its name
        alone, and changes no reply until it is trained. The weights of the base are frozen, as peft does.

        Cost: a reply takes two small products more for each linear layer, and its prompt's beginning is kept apart.
        Source: Hu et al. 2021, arXiv 2106.09685; many in a batch, Sheng et al. 2023, arXiv 2311.03285.

        Args:
            name: Its name, of letters, digits, ".", "_" and "-".
            source: Folder that peft, or `TuneResult.save`, wrote; None for a new LoRA. Options may be given here too.
            options: Of a new one: `r` (8), `alpha` (16), `dropout` (0), `target_modules` ("all-linear", names or a
                regular expression).

        Raises:
            ValueError: The name is in use for another one, the folder holds no LoRA, or an option is not known.
            LMError: The LoRA in the folder is not one of this model; at the first use where the model is neither loaded
                nor in a folder.
        """
        if isinstance(source, Mapping):
            options, source = {**source, **options}, None
        given = source is not None or options
        made: LocalLora = make_known("LocalLora", self, name, None if source is None else str(source), **options)
        if name not in self._adapters:
            made.check()
        with self._lock:
            known = self._adapters.setdefault(name, made)
        if known is not made and given and known.made_of != made.made_of:
            raise ValueError(f"{self.name!r} has another LoRA of the name {name!r}: take another name")
        if known is made:
            model = self._model if self._engine is None else self._engine.model
            if model is not None:  # else it is frozen when it is loaded
                model.requires_grad_(requires_grad=False)
        return known

    def version(self) -> int:
        """Return a number that changes whenever a weight is changed in place; 0 before the model is loaded."""
        engine = self._engine
        return 0 if engine is None else engine.version()

    def _grammar(self, request: Request) -> str | None:
        """The grammar that a reply is held to; None for a free one."""
        if not self.constrains:
            return None
        if request.grammar is None and request.response_format is None:
            return call_grammar(request, self.tokenizer) if tools_of(request) else None
        return request.grammar or response_grammar(request.response_format or "")

    async def sample(self, request: Request, *, logprobs: bool = False) -> Generation:
        """Answer one request with its tokens and, on demand, their log-probabilities, outside budget and journal.

        Raises:
            ContextWindowError: The prompt leaves no room for a reply.
            InputError: A message holds more than text. Nothing is loaded then.
            LMError: The model cannot be loaded, the chat template refuses the messages, or the computation failed.
            ValueError: A local model does not know an option.
        """
        refuse_parts(self.name, request.messages)
        engine = self._engine
        if engine is None:
            engine = await aio.in_thread(self._load)
        request = self.with_defaults(request) if self.options else request
        return await self._generate(engine, request, logprobs=logprobs)

    async def _generate(self, engine: LocalEngine, request: Request, *, logprobs: bool) -> Generation:
        self._refuse_if_elsewhere()
        grammar, insists = self._grammar(request), self.constrain is True
        seed, lora = seed_or_default(self.seed), self._lora
        return await engine.generate(request, seed, logprobs=logprobs, lora=lora, grammar=grammar, insists=insists)

    async def _send(self, request: Request, key: str) -> Completion:
        started = perf_counter()
        refuse_parts(self.name, request.messages)
        engine = self._engine
        if engine is None:
            engine = await aio.in_thread(self._load)
        traced, asked = self.traces(), dict(request.extra).get("logprobs") == "true"
        made = await self._generate(engine, request, logprobs=traced or asked)
        usage = Usage(1, len(made.prompt_ids), len(made.ids), 0.0, 0, perf_counter() - started)
        trace = None
        if traced:
            from promptgrad.lm._local_trace import LocalTrace

            temperature = engine.temperature(request) or 1.0
            made_with = temperature, self.version()
            trace = LocalTrace(self, made.prompt_ids, made.ids, made.logprobs, *made_with, request)
        tokens = zip(made.ids, made.logprobs, strict=True) if asked else ()
        logprobs = tuple([TokenLogprob(engine.name_token(token), score) for token, score in tokens])
        content: Content = made.text
        if tools_of(request):
            content = engine.content(made, request)
        return Completion(content, usage, self.name, made.finish_reason, logprobs=logprobs, trace=trace)

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

        trace = LocalTrace.from_dict(self, reply["trace"], request)
        return replace(completion, trace=trace)

    def _load(self) -> LocalEngine:
        with self._lock:
            if self._engine is None:
                self._engine = LocalEngine(self)
            return self._engine

    def close(self) -> None:
        """Let the compute thread end. The model stays loaded."""
        if self._engine is not None:
            self._engine.worker.close()

    def __repr__(self) -> str:
        where = "" if self._source is None else f", {self._source!r}"
        return f"Local({self.name!r}{where}, device={str(self._device())!r})"

    def _device(self) -> Any:
        """The device that computes; the one that was asked for while nothing is loaded."""
        model = self._model if self._engine is None else self._engine.model
        return self.device if model is None else next(model.parameters()).device


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "~", os.sep)) or os.sep in source.replace("/", "", 1)


def _name_of(model: Any, source: str | None) -> str:
    if source is not None:
        return Path(source).name
    return Path(getattr(model, "name_or_path", "") or type(model).__name__).name
