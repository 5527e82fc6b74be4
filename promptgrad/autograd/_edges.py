"""Which call fed which, computed from a tape on demand.

*exact* edges come from the same object, or a `Text` derived from it. *content* edges are found by the words of a text
(`_content`). A call that nothing uses gets one more: *control* if the program's code read its fields, else *order*, to
the first later call with an input that nothing explains, else to the output. Inputs of the forward, constants of its
code and numbers that may count its calls are explained, and so are texts made of their words. Any other number may come
from a call that wrote one.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any, NamedTuple

from promptgrad.autograd._content import Explained, Index, spans, words
from promptgrad.autograd._node import AccumulateGrad, GradFn, Join, Node
from promptgrad.autograd._program import Program
from promptgrad.autograd._record import is_record
from promptgrad.autograd._tape import Tape
from promptgrad.autograd._text import Text
from promptgrad.autograd._values import leaves
from promptgrad.errors import is_outage


@dataclass(frozen=True)
class ForwardOutput:
    """What a forward returned, as the target of edges."""

    tape: Tape | None = None

    def __repr__(self) -> str:
        return "<Output>"


@dataclass(frozen=True)
class Edge:
    """From what produced a value to what used it.

    Attributes:
        source: What produced it.
        target: The call, join or output that used it.
        field: The input field of the target; None for outputs and joins.
        kind: "exact", "content", "control" or "order".
        ambiguous: Whether another producer would have explained a content edge as well.
    """

    source: GradFn
    target: "GradFn | ForwardOutput"
    field: str | None
    kind: str
    ambiguous: bool = False

    def __repr__(self) -> str:
        field = f".{self.field}" if self.field else ""
        return f"<{self.kind} {self.source!r} -> {self.target!r}{field}{' (ambiguous)' if self.ambiguous else ''}>"


def edges(tape: Tape) -> tuple[Edge, ...]:
    """The edges into the calls of a tape and into its output, in the order of their targets.

    Cost: no LM call; linear in the words recorded. Computed once for each finished tape.
    """
    if tape._edges is not None:
        return tape._edges
    found = tuple(_Search(tape).run()) if not tape.freed else ()
    if tape.finished:
        tape._edges = found
    return found


_BY_VALUE = (str, int, float, bool, type(None), bytes, complex)
_NO_RECORDS = (*_BY_VALUE, list, tuple, dict, set, frozenset)


def origin(value: Any) -> GradFn | None:
    """The producer of a value, if the value remembers it, as a `Text` and a `Record` do."""
    if isinstance(value, Text):
        return value.grad_fn
    if isinstance(value, _NO_RECORDS):
        return None
    return value.__record__()[0] if is_record(value) else None


def exact_sources(value: Any) -> Iterator[GradFn]:
    """The producers of the parts of a value, as far as the parts remember them, in order and once each."""
    seen: dict[GradFn, None] = {}
    for part, _ in leaves(value):
        fn = origin(part)
        if fn is not None and fn not in seen:
            seen[fn] = None
            yield fn


def joined_sources(fn: GradFn) -> Iterator[GradFn]:
    """The vertex itself or, for a join, all that it joins, however deep."""
    stack, seen = [fn], {fn: None}
    while stack:
        top = stack.pop()
        if isinstance(top, Join):
            for source in reversed(top.sources):
                if source not in seen:
                    seen[source] = None
                    stack.append(source)
        else:
            yield top


_PLAIN_NUMBERS = (int, float)


class _Unexplained(NamedTuple):
    """An input that nothing explains."""

    target: Node
    field: str
    numbers_only: bool


class _Search:
    """One pass over a tape in order of time: finished calls are indexed, and the index explains those that start."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.index: Index[GradFn] = Index(_comes_after)
        self.objects: dict[int, tuple[Any, GradFn]] = {}
        self.used: dict[GradFn, None] = {}
        self.unexplained: list[_Unexplained] = []
        self.explained = Explained(_known_texts(tape), map(str, range(len(tape.nodes) + 1)))
        self.telling: dict[GradFn, set[tuple[str, ...]]] = {}

    def run(self) -> list[Edge]:
        nodes = [node for node in self.tape.nodes if node.is_finished]
        events: list[tuple[int, int, GradFn]] = [(node.started, 1, node) for node in nodes]
        producers: list[GradFn] = [*(node for node in nodes if node.error is None), *self.tape.leaves]
        raised = [node for node in nodes if node.error is not None and not is_outage(node.error)]
        events += [(fn.finished, 0, fn) for fn in (*producers, *raised)]
        events.sort(key=lambda event: event[:2])
        into: dict[GradFn, list[Edge]] = {}
        for _, starts, fn in events:
            if not starts:
                self.produced(fn)
            elif isinstance(fn, Node):
                into[fn] = self.consumed(fn)
        output = ForwardOutput(self.tape)
        into_output = list(self.explain(self.tape.output, output, None, 1 << 63))
        for edge in self.leftovers([*producers, *raised], output):
            if isinstance(edge.target, Node):
                into[edge.target].append(edge)
            else:
                into_output.append(edge)
        return [edge for node in nodes for edge in into[node]] + into_output

    def produced(self, fn: GradFn) -> None:
        if isinstance(fn, AccumulateGrad):
            self.index.add(fn, str(fn.value))
            return
        if not isinstance(fn, Node):
            return
        if fn.error is not None:  # the program caught it and may show it to a later call
            self.index.add(fn, str(fn.error))
            return
        for field, value in fn.outputs.items():
            for part, is_leaf in leaves(value):
                if isinstance(part, str):
                    self.index.add(fn, part)
                elif isinstance(part, _BY_VALUE):
                    if isinstance(part, _PLAIN_NUMBERS) and not isinstance(part, bool) and field in fn.touched:
                        self.index.add(fn, str(part))
                elif not (is_leaf and _shared(part)):
                    self.objects[id(part)] = (part, fn)

    def consumed(self, node: Node) -> list[Edge]:
        found: list[Edge] = []
        for field, value in node.inputs.items():
            raw = node._raw.get(field, value)
            known = self.objects.get(id(raw))
            if known is not None and known[0] is raw and not isinstance(raw, _BY_VALUE):
                self.use(known[1])
                found.append(Edge(known[1], node, field, "exact"))
            else:
                found += self.explain(value, node, field, node.started)
        return found

    def explain(self, value: Any, target: Node | ForwardOutput, field: str | None, before: int) -> Iterator[Edge]:
        """The edges of one input: exact ones first, then those by content."""
        exact: dict[GradFn, None] = {}
        content: dict[GradFn, bool] = {}
        texts = numbers = False  # whether there are unexplained ones
        for part, is_leaf in leaves(value):
            fn = origin(part)
            if fn is None and not isinstance(part, _BY_VALUE):
                known = self.objects.get(id(part))
                fn = known[1] if known is not None and known[0] is part else None
            if fn is not None and fn.finished < before:
                exact[fn] = None
                if isinstance(part, Text):
                    content.update(self.beside(part, fn))
            elif isinstance(part, str):
                matches, clear = self.search(part)
                for producer, ambiguous in matches.items():
                    content[producer] = content.get(producer, True) and ambiguous
                texts |= not clear
            elif isinstance(part, _BY_VALUE):
                if isinstance(part, _PLAIN_NUMBERS) and not isinstance(part, bool):
                    found = words(str(part))
                    match = None if self.explained.covers(found) else self.index.whole(found)
                    if match is not None:
                        content[match.producer] = True
                    else:
                        numbers |= not self.explained.knows(found)
            elif is_leaf:
                texts = True
        for fn in exact:
            self.use(fn)
            yield Edge(fn, target, field, "exact")
        for fn, ambiguous in content.items():
            if fn not in exact:
                self.use(fn)
                yield Edge(fn, target, field, "content", ambiguous)
        if (texts or numbers) and isinstance(target, Node):
            self.unexplained.append(_Unexplained(target, field or "", numbers_only=not texts))

    def search(self, text: str) -> tuple[dict[GradFn, bool], bool]:
        """The producers recognised in a text without provenance, and whether they or the inputs explain it."""
        found = words(text)
        if self.explained.covers(found):
            return {}, True
        rest = self.explained.mask(found)
        matches = self.index.find(rest)
        return matches, bool(matches) or self.explained.knows(rest)

    def beside(self, text: Text, fn: GradFn) -> dict[GradFn, bool]:
        """The other producers recognised in a text of known provenance: a plain string may have been added to it."""
        matches: dict[GradFn, bool] = {}
        sources: dict[GradFn, None] = {}
        for span in spans(self.explained.mask(words(text))):
            match = self.index.span(span)
            if match is None:
                continue
            sources = sources or dict.fromkeys(joined_sources(fn))
            if match.producer not in sources and not any(span in self.spans_of(source) for source in sources):
                matches[match.producer] = matches.get(match.producer, True) and match.ambiguous
        return matches

    def spans_of(self, fn: GradFn) -> set[tuple[str, ...]]:
        """Every three words in a row in the texts of a producer."""
        found = self.telling.get(fn)
        if found is None:
            found = self.telling[fn] = {span for text in texts_of(fn) for span in spans(words(text))}
        return found

    def use(self, fn: GradFn) -> None:
        """Mark a producer, and all that it joins, as used."""
        stack = [fn]
        while stack:
            top = stack.pop()
            if top not in self.used:
                self.used[top] = None
                if isinstance(top, Join):
                    stack.extend(top.sources)

    def leftovers(self, producers: list[GradFn], output: ForwardOutput) -> Iterator[Edge]:
        """One edge for each producer that nothing uses."""
        for _, fn in self.tape.detached:
            if fn is not None:
                self.use(fn)
        used = {id(fn.parameter) for fn in self.used if isinstance(fn, AccumulateGrad)}
        for_all = [one for one in self.unexplained if not one.numbers_only]
        for fn in sorted(producers, key=lambda fn: (fn.order, 0) if isinstance(fn, Node) else (-1, fn.finished)):
            if fn in self.used or (isinstance(fn, AccumulateGrad) and id(fn.parameter) in used):
                continue
            read = not isinstance(fn, Node) or bool(fn.touched) or fn.error is not None  # a caught failure is a branch
            places = self.unexplained if _wrote_a_number(fn) else for_all
            place = bisect_right(places, fn.finished, key=lambda one: one.target.started)
            while place < len(places) and _side_by_side(fn, places[place].target):
                place += 1
            kind = "control" if read else "order"
            if place < len(places):
                yield Edge(fn, places[place].target, places[place].field, kind)
            else:
                yield Edge(fn, output, None, kind)


def _comes_after(old: GradFn, new: GradFn) -> bool:
    """Whether the producer that finished later is also the later one in the program: branches finish in any order."""
    if isinstance(old, Node) and isinstance(new, Node) and old.mark[0] != new.mark[0]:
        return new.order > old.order
    return True


def _side_by_side(one: GradFn, other: Node) -> bool:
    """Whether two calls were made in branches of the same place, so that neither waits for the other."""
    if not isinstance(one, Node) or one.mark[0] == other.mark[0]:
        return False
    pairs = zip(one.mark[0], other.mark[0], strict=False)
    return any(mine != theirs for mine, theirs in pairs)


def texts_of(fn: GradFn) -> Iterator[str]:
    """The texts of a parameter or a call."""
    if isinstance(fn, AccumulateGrad):
        yield str(fn.value)
    elif isinstance(fn, Node):
        for part, _ in leaves(list(fn.outputs.values())):
            if isinstance(part, str):
                yield part


def _wrote_a_number(fn: GradFn) -> bool:
    """Whether a producer's value holds a number, perhaps within a text."""
    value = fn.value if isinstance(fn, AccumulateGrad) else list(fn.outputs.values()) if isinstance(fn, Node) else None
    for part, _ in leaves(value):
        if isinstance(part, str):
            if any(map(str.isdigit, part)):
                return True
        elif isinstance(part, _PLAIN_NUMBERS) and not isinstance(part, bool):
            return True
    return False


def _shared(part: Any) -> bool:
    """Whether an object is shared by all code: an enum member, a class, a function, an empty tuple."""
    return callable(part) or hasattr(type(part), "__members__") or (type(part) is tuple and not part)


def _known_texts(tape: Tape) -> Iterator[str]:
    for part, _ in leaves(list(tape.inputs.values())):
        if isinstance(part, str) and origin(part) is None:
            yield part
        elif isinstance(part, _PLAIN_NUMBERS):
            yield str(part)
    yield from (text for text, _ in tape.detached)
    if tape.program is not None:
        values = {str(fn.value) for fn in tape.leaves}  # a constant that became a parameter is that parameter's
        yield from (text for text in _constants(tape.program) if text not in values)


_code_texts: dict[type, tuple[str, ...]] = {}


def _constants(program: Program) -> Iterator[str]:
    """Strings and numbers in the code of the program's modules, and in their plain attributes."""
    for module in program.modules():
        for value in vars(module).values():
            if type(value) in (str, int, float):
                yield str(value)
        for kind in type(module).__mro__:
            if kind.__module__.startswith("promptgrad."):
                continue
            texts = _code_texts.get(kind)
            if texts is None:
                codes = [fn.__code__ for fn in vars(kind).values() if hasattr(fn, "__code__")]
                own = [value for name, value in vars(kind).items() if not name.startswith("__")]
                plain = [str(value) for value in own if type(value) in (str, int, float)]
                texts = _code_texts[kind] = (*_strings(codes), *plain)
            yield from texts


def _strings(codes: list[CodeType]) -> Iterator[str]:
    while codes:
        code = codes.pop()
        for constant in code.co_consts:
            inside = sorted(constant, key=repr) if isinstance(constant, frozenset) else constant
            for item in inside if isinstance(inside, (tuple, list)) else (constant,):
                if type(item) in (str, int, float):
                    yield str(item)
                elif isinstance(item, CodeType):
                    codes.append(item)
