"""`Predict`, the layer of this library: one typed call of a language model."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, cast

from promptgrad import aio
from promptgrad._numbers import check_count
from promptgrad.adapters import Adapter, Compiled, continued, get_adapter, is_history
from promptgrad.autograd import Node, Parameter, Selector, ademos_for, attach, current_tape, demos_for
from promptgrad.errors import CutReplyError, InputError, NoLMError, ParseError
from promptgrad.lm import LM, Completion, Message, Request, current, resolve_lm
from promptgrad.nn._call import Ask, Call, around, joined
from promptgrad.nn._field_descriptions import FieldDescriptions, described
from promptgrad.nn._fits_signature import FitsSignature
from promptgrad.nn._history import HistoryCall
from promptgrad.nn._inputs import TakenInputs, check_fields
from promptgrad.nn._module import Module
from promptgrad.nn._noted import note
from promptgrad.nn._predict_arguments import as_demos, check_spelling, sampling
from promptgrad.nn._prediction import Prediction, make_prediction
from promptgrad.nn._program import begin_node, path_in_call
from promptgrad.nn._replies import read_reply, unparsable
from promptgrad.nn._state import encode
from promptgrad.nn._tool_use import with_tool_types
from promptgrad.nn._turns import as_turns, with_turns
from promptgrad.nn._two_step import extract, make_extractor
from promptgrad.signature import Field, Signature, make_signature

_NOT_INPUTS = ("lm", "config", "turns")


class Predict(Module, in_place=True, one_call=True):
    """Call a language model: inputs by name in, a `Prediction` out.

    `nn.Predict("question, context: list[str] -> answer: float")`. The call `predict(question=..., context=...)`, or
    `predict("...")` where there is one input, renders the signature through an adapter, calls the LM, and parses and
    validates its reply. `str` values in the outputs are `Text` with the graph node as `grad_fn`.

    A reply that does not parse is repaired where its meaning is plain. If it is not, the model is asked again with
    the reason, at most `retries` times; the count is in `prediction.reasks` and `inspect_history()`.

    A reply that ran out of tokens or that a filter stopped is an error at once: it is neither mended nor asked for
    again, since the next one would end in the same place.

    Besides the inputs, a call takes `lm=` (an LM for this call), `config=` (a dict of sampling options, with
    `replicate` among them) and `turns=` (`nn.Turns`: a conversation that goes on after the prompt), unless the
    signature has an input of that name.

    On a local model, `predict.soft_prompt = nn.SoftPrompt(20)` puts trained vectors before the prompt.

    Cost: one LM call, and one more per re-ask.

    Args:
        signature: Inputs and outputs: a text, a `Signature`, or a class that defines one.
        instruction: What to do, in place of the signature's own. It becomes the parameter `.instruction`.
        demos: Examples to show, as `Example` or dict, or a selector that chooses them for each call, such as
            `nn.Neighbours`. They become the parameter `.demos`.
        lm: The LM, as with `.to(lm)`.
        adapter: Name of an adapter, or an adapter; else that of the context, else the default of the LM.
        types: Types by name, for a signature given as text.
        retries: How often to ask again.
        allow_cut: Accept a reply that ran out of tokens, with a warning, where what was cut is a text.
        describe: Whether the descriptions of the fields are trained: of all of them, or of those that are named. They
            are the parameters `.descriptions["..."]`, of the kind "description".
        **lm_options: Sampling options such as `temperature` and `max_tokens`, laid over those of the LM.

    Raises:
        SignatureError: `signature` is not a valid signature, or has a field that no call can have: bytes, two
            conversations, or one among the outputs.
        ConstraintError: A demo does not fit the signature.
        InputError: When called: an input is missing, unknown or of the wrong type.
        ParseError: When called: the last reply does not parse either.
        CutReplyError: When called: a reply ran out of tokens.
        ContentFilterError: When called: a filter of the provider stopped a reply.
        NoLMError: When called: there is no LM. The message names all ways to set one.
        LMError: When called: the LM did not answer.
    """

    instruction: Parameter
    demos: Parameter
    _places: ClassVar[tuple[str, ...]] = ("soft_prompt",)

    def __init__(
        self,
        signature: str | Signature | type[Signature],
        *,
        instruction: str | None = None,
        demos: Iterable[Any] | Selector = (),
        lm: LM | str | None = None,
        adapter: Adapter | str | None = None,
        types: Mapping[str, Any] | None = None,
        retries: int = 1,
        allow_cut: bool = False,
        describe: bool | Iterable[str] = False,
        **lm_options: Any,
    ) -> None:
        super().__init__()
        check_spelling(lm_options)
        check_count("retries", retries, 0)
        made = self._complete_signature(make_signature(signature, instruction, with_tool_types(signature, types)))
        check_fields(made)
        hidden = [name for name in made.outputs if hasattr(Prediction, name)]
        if hidden:
            aio.warn(
                f"the output {hidden[0]!r} is called like a method of Prediction: read it as prediction[{hidden[0]!r}]",
                UserWarning,
            )
        self._signature = made
        self.instruction = Parameter(made.instruction, kind="instruction")
        self.adapter = None if adapter is None else get_adapter(adapter)
        more: Iterable[str] = ()
        if self.adapter is not None:
            self.adapter.format(made)  # whether it can write the signature is known now
            more = () if self.adapter.first_outputs is None else self.adapter.first_outputs(made)
        self.demos = Parameter(as_demos(demos), kind="demos", constraints=(FitsSignature(made, more),))
        if (texts := FieldDescriptions.of(made, describe)) is not None:
            self.descriptions = texts
        if more:
            self.extract = make_extractor(Predict, self.adapter, made, retries)
        self.retries = retries
        self.allow_cut = allow_cut
        self.options: dict[str, Any] = sampling(lm_options)
        self._taken = TakenInputs(made)
        if lm is not None:
            self.to(lm)

    @staticmethod
    def _complete_signature(signature: Signature) -> Signature:
        return signature

    @property
    def signature(self) -> Signature:
        """The signature, with the instruction and the descriptions that the parameters hold now."""
        own, instruction = self._described(), self.instruction.data
        return own if instruction == own.instruction else own.with_instruction(instruction)

    def _described(self) -> Signature:
        return described(self._signature, self._modules.get("descriptions"))

    def lm_of_call(self, lm: LM | None = None) -> LM:
        """The LM that a call asks, where it names none: that of the module or the context, with the soft prompt.

        Raises:
            NoLMError: There is none, or it is not local and the module has a soft prompt.
        """
        soft = self._parameters.get("soft_prompt")
        found = resolve_lm(lm, self._lm)
        return found if soft is None else cast(LM, soft.data.on(found))

    async def forward(self, /, *args: Any, **inputs: Any) -> Prediction:
        """Ask the language model."""
        taken, modules = self._taken, self._modules
        parameters: Mapping[str, Any] = self._parameters
        if args or inputs.keys() != taken.names:
            call = self._sort_arguments(args, inputs)
        else:
            call = Call(self, taken.signature, inputs, self.options)
        call.values = taken.checked(self, call.inputs)
        settings = current()
        call.lm = lm = resolve_lm(call.lm, self._lm) if "soft_prompt" not in parameters else self.lm_of_call(call.lm)
        adapter = get_adapter(self.adapter or settings.adapter or lm.adapter)
        if settings.replicate and "replicate" not in call.options:
            call.options = {**call.options, "replicate": settings.replicate}
        if surroundings := around():
            call.companions = await joined(call, surroundings)
        tape = current_tape()
        node: Node | None = None
        if tape is not None:
            seen = call.inputs if call.turns is None else with_turns(call.inputs, call.turns)
            node = begin_node(self, tape, seen, replicate=call.options.get("replicate", 0))
            instruction = node.read(parameters["instruction"], "instruction")
            demos = node.read(parameters["demos"], "demos")
        else:
            instruction, demos = parameters["instruction"].data, parameters["demos"].data
        if type(demos) is not tuple:
            demos = await ademos_for(demos, call.inputs)
        after = () if call.turns is None else call.turns.messages
        signature = (
            described(call.signature, modules["descriptions"], node) if "descriptions" in modules else call.signature
        )
        compiled = adapter.compile(signature, instruction, demos)
        compiled, request = compiled.ask(call.values, call.options, held=lm.constrains, after=after)
        if node is not None:
            node.output_fields = compiled.outputs
        record = HistoryCall(request, compiled, lm)
        try:
            ask: Ask = lm.ask
            for companion in call.companions:
                ask = companion.begin(compiled, ask)
            played = None if node is None or node.tape.player is None else node.tape.player(node, lm, request)
            if isinstance(played, dict):
                outputs = played
            else:
                completion = compiled.answer(await ask(request) if played is None else played)
                record.completion = completion
                try:
                    if completion.finish_reason == "stop":
                        outputs = self._parse(compiled, completion)
                    else:
                        outputs = read_reply(self, compiled, completion)
                except ParseError as error:
                    outputs = await self._ask_again(call, ask, adapter, compiled, record, completion, error)
            outputs = attach(outputs, node)
            for companion in call.companions:
                companion.end(outputs, record.usage)
        except Exception as error:
            for companion in call.companions:
                companion.fail(error, record.usage)
            note(self, node, lm, record, None, error)
            raise
        note(self, node, lm, record, outputs, None)
        made = make_prediction(outputs, node, record)
        return made if adapter.first_outputs is None else await self._second_step(made, adapter, lm)

    async def _second_step(self, said: Prediction, adapter: Adapter, lm: LM) -> Prediction:
        """The outputs in the reply of a first step; its own extractor was made with the adapter, and is trained."""
        extractor = self._modules.get("extract") if self.adapter is adapter else None
        return await extract(
            extractor, lambda: make_extractor(Predict, adapter, self._signature, self.retries), said, lm
        )

    def _parse(self, compiled: Compiled, completion: Completion) -> dict[str, Any]:
        """The outputs in a reply; a subclass may accept fewer replies."""
        return compiled.read(completion)

    async def _ask_again(
        self,
        call: Call,
        ask: Ask,
        adapter: Adapter,
        compiled: Compiled,
        record: HistoryCall,
        completion: Completion,
        error: ParseError,
    ) -> dict[str, Any]:
        """Ask with the reason why the last reply does not parse, until one does or the tries are used up."""
        while True:
            hopeless = record.reasks >= self.retries or isinstance(error, CutReplyError)
            again = () if hopeless else adapter.repair_messages(completion, error)
            if not again or record.request is None:
                for asked, _ in record.exchanges:
                    call.lm.forget(asked)
                raise unparsable(self._called(), call.lm, completion, record, error) from error
            request = record.request.replace(tail=continued(record.request.tail, again))
            earlier = record.reasked
            record.reasked = (*earlier, (request, None))
            for companion in call.companions:
                companion.again(error.reason)
            completion = compiled.answer(await ask(request))
            record.reasked = (*earlier, (request, completion))
            try:
                return read_reply(self, compiled, completion)
            except ParseError as next_error:
                error = next_error

    def _sort_arguments(self, args: tuple[Any, ...], given: dict[str, Any]) -> Call:
        """A call that does not consist of all inputs by name and nothing else."""
        fields = self._signature.inputs
        inputs = dict(given)
        aside = {name: inputs.pop(name) for name in _NOT_INPUTS if name in inputs and name not in fields}
        if args:
            if len(args) > 1 or len(fields) != 1:
                names = ", ".join(f"{name}=..." for name in fields)
                raise InputError(
                    f"{self._called()} takes its inputs by name, ({names}): only a sole input may be passed without"
                )
            (name,) = fields
            if name in inputs:
                raise InputError(f"{self._called()} got its input {name!r} twice, by position and by name")
            inputs[name] = args[0]
        missing = [name for name in fields if name not in inputs]
        unknown = [name for name in inputs if name not in fields]
        if missing or unknown:
            raise InputError(self._misfit(missing, unknown))
        options = self.options
        config = aside.get("config")
        if config is not None:
            if not isinstance(config, Mapping):
                raise InputError(f"config= is a dict of sampling options, not {type(config).__name__}")
            check_spelling(config)
            changes = sampling(config)
            if "extra" in changes:
                changes["extra"] = tuple(sorted({**dict(options.get("extra", ())), **dict(changes["extra"])}.items()))
            options = {**options, **changes}
        return Call(self, self._signature, inputs, options, aside.get("lm"), as_turns(aside.get("turns")))

    def _misfit(self, missing: list[str], unknown: list[str]) -> str:
        parts = []
        if missing:
            parts.append(f"is missing the input{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}")
        for name in unknown:
            near = difflib.get_close_matches(name, missing or list(self._signature.inputs), 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            if name in self._signature.outputs:
                hint = " (it is an output)"
            elif name in ("temperature", "max_tokens", "top_p", "stop", "seed", "replicate"):
                hint = f" (a sampling option is passed as config={{{name!r}: ...}})"
            parts.append(f"has no input {name!r}{hint}")
        return f"{self._called()} {', and '.join(parts)}"

    def _called(self) -> str:
        path = path_in_call(self)
        return f"{path} ({self._signature!r})" if path else f"{type(self).__name__}({self._signature!r})"

    def _adapter_here(self) -> Adapter:
        """The adapter that the next call uses; the chat adapter where no LM is set."""
        named: Any = self.adapter or current().adapter
        if named is None:
            try:
                named = resolve_lm(None, self._lm).adapter
            except NoLMError:
                named = "chat"
        return get_adapter(named)

    def request(self, *args: Any, **inputs: Any) -> Request:
        """The messages that a call with these inputs sends, exactly, in their compiled form. No LM is called.

        Raises:
            InputError: As the call.
        """
        values = self._sort_arguments(args, inputs).inputs
        demos = demos_for(self.demos.data, values)
        compiled = self._adapter_here().compile(self._described(), self.instruction.data, demos)
        return Request(compiled.prefix, compiled.request_tail(self._taken.checked(self, values)))

    def messages(self, *args: Any, **inputs: Any) -> tuple[Message, ...]:
        """The messages that a call with these inputs sends, exactly. No LM is called.

        Inside a forward this reads the parameters as the program does, since the program may decide by a prompt.

        Raises:
            InputError: As the call.
        """
        return self.request(*args, **inputs).messages

    def render(self, *args: Any, **inputs: Any) -> list[dict[str, str]]:
        """The messages that a call with these inputs sends, for reading. No LM is called.

        Texts are exactly what is sent; images and other parts that are not text are shown by their kind and size, such
        as `<image png, 12 kB>`.

        Raises:
            InputError: As the call.
        """
        return [{"role": m.role, "content": m.preview} for m in self.messages(*args, **inputs)]

    def _export(self) -> dict[str, Any]:
        adapter = self._adapter_here()
        instruction, chosen = self.instruction.read().value, self.demos.read().value
        demos = () if isinstance(chosen, Selector) else chosen  # those of a selector depend on the inputs
        signature = self._described()
        compiled = adapter.compile(signature, instruction, demos)
        shadow = Signature(
            [
                field.replace(annotation=str, constraints={}) if field.role == "input" else field
                for field in signature.fields.values()
                if not is_history(field.annotation)  # whose turns come between these messages
            ],
            instruction,
            name=self._signature.name,
        )
        slots = {name: f"{{{name}}}" for name in shadow.inputs}
        messages = compiled.prefix.messages + adapter.compile(shadow, instruction, demos).request_tail(slots)
        exported: dict[str, Any] = {
            "messages": [m.to_dict() for m in messages],
            **self._field_types(),
            "adapter": adapter.name,
            "options": {name: value for name, value in self.options.items() if name != "extra"},
        }
        if compiled.response_format is not None:
            exported["response_format"] = compiled.response_format
        if chosen is not demos:
            exported["demos"] = encode("demos", self.demos, self._signature.fields)
        return exported

    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(self._signature.inputs)

    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(self._signature.outputs)

    def _signature_fields(self) -> Mapping[str, Field]:
        return self._signature.fields

    def _field_types(self) -> dict[str, dict[str, str]]:
        return {
            "inputs": {name: field.type_name for name, field in self._signature.inputs.items()},
            "outputs": {name: field.type_name for name, field in self._signature.outputs.items()},
        }

    def extra_repr(self) -> str:
        """Signature, instruction in short, number of demos, LM."""
        text, demos = (
            self.instruction.read().value,
            self.demos.read().value,
        )  # for display: the graph notes no read
        shown = repr(text if len(text) <= 60 else text[:57] + "...")
        parts = [repr(self._signature), f"instruction={shown}"]
        if isinstance(demos, Selector):
            parts.append(f"demos={demos!r}")
        elif demos:
            parts.append(f"demos={len(demos)}")
        if self._lm is not None:
            parts.append(f"lm={self._lm.name!r}")
        return ", ".join(parts)

    def _shown_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return iter(())
