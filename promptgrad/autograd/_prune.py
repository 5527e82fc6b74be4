"""What is worth a visit: the part of the graph from which a wanted text parameter can be reached."""

from collections.abc import Iterable, Sequence

from promptgrad.autograd._critic import Target
from promptgrad.autograd._edges import Edge, texts_of
from promptgrad.autograd._node import AccumulateGrad, GradFn, Join, Node
from promptgrad.autograd._parameter import Parameter
from promptgrad.autograd._rules import rule_of, targets_of_join
from promptgrad.autograd._tape import Tape
from promptgrad.autograd._walk import Walk


class Wanted:
    """The choice of the parameters that get a gradient."""

    def __init__(self, inputs: Iterable[Parameter] | Parameter | None) -> None:
        given = [inputs] if isinstance(inputs, Parameter) else inputs
        self._only = None if given is None else dict.fromkeys(given)
        for item in self._only or ():
            if not isinstance(item, Parameter):
                raise TypeError(f"inputs are parameters, such as model.solve.instruction, not {item!r}")
        if self._only is not None and not self._only:
            raise ValueError("inputs is empty, so no gradient is wanted: leave it out, or name parameters")

    @property
    def named(self) -> tuple[Parameter, ...]:
        """The parameters that were asked for by name."""
        return tuple(self._only or ())

    def __call__(self, parameter: Parameter) -> bool:
        return parameter.requires_grad and (self._only is None or parameter in self._only)


class Subgraph:
    """The vertices from which a wanted text parameter can be reached, for one failed forward.

    Attributes:
        order: The vertices, every source before what uses it.
        into: The edges into each of them, from others of them.
        truncated: How many calls `truncate` leaves out.
        places: The vertices, visited or not, whose texts or demos require a gradient and so may be to blame.

    Args:
        starts: The vertices that the losses criticise.
        wanted: The parameters that get a gradient.
        truncate: Go back only through this many of the last calls of each module.
    """

    def __init__(self, starts: Iterable[GradFn], wanted: Wanted, truncate: int | None = None) -> None:
        self._wanted = wanted
        self._targets: dict[GradFn, tuple[Target, ...]] = {}
        self.into: dict[GradFn, list[Edge]] = {}
        walk = Walk()
        walk.add(starts)
        order = walk.vertices()
        self.places = tuple(fn for fn in order if _is_place(fn))
        left_out = _too_early(order, truncate)
        self.truncated = len(left_out)
        for fn in order:
            if fn in left_out:
                continue
            edges = [edge for edge in walk.into(fn) if edge.source in self.into]
            if edges or self.own(fn) or (isinstance(fn, AccumulateGrad) and wanted(fn.parameter)):
                self.into[fn] = edges
        self.order = list(self.into)

    def sources(self, fn: GradFn) -> Iterable[GradFn]:
        """What a vertex was made of, each once."""
        return dict.fromkeys(edge.source for edge in self.into[fn])

    def users(self) -> dict[GradFn, int]:
        """How many vertices used the value of each."""
        count = dict.fromkeys(self.order, 0)
        for fn in self.order:
            for source in self.sources(fn):
                count[source] += 1
        return count

    def own(self, fn: GradFn) -> tuple[Target, ...]:
        """The wanted texts that a call read."""
        if not isinstance(fn, Node):
            return ()
        found: dict[str, Target] = {}
        for read in fn.reads:
            parameter = read.parameter
            if parameter.kind.is_text and self._wanted(parameter):
                path = fn.tape.path_of(parameter)
                name = read.name or path.rpartition(".")[2] or parameter.kind
                if name in found and found[name].parameter is not parameter:
                    name = path or f"{name}_{len(found)}"
                found.setdefault(name, Target(name, parameter.kind, read.value, parameter))
        return tuple(found.values())

    def demos(self, fn: GradFn) -> tuple[Target, ...]:
        """The wanted demos of an LM call, which a critic may blame as well; they alone are not a reason to ask it."""
        return tuple(
            Target("demos", "demos", read.value, read.parameter)
            for read in (fn.reads if isinstance(fn, Node) and rule_of(fn) is None else ())
            if read.parameter.kind.is_demos and read.value and self._wanted(read.parameter)
        )

    def targets(self, fn: GradFn) -> tuple[Target, ...]:
        """What may be blamed for a value: texts and demos that the call read, and what fed it; the parts of a join."""
        if fn not in self._targets:
            if isinstance(fn, Node):
                own = self.own(fn) + self.demos(fn)
                self._targets[fn] = own + _inputs(fn, self.into[fn], own)
            else:
                self._targets[fn] = targets_of_join(fn, texts_of) if isinstance(fn, Join) else ()
        return self._targets[fn]


def _is_place(fn: GradFn) -> bool:
    """Whether a parameter that requires a gradient may be to blame for what a vertex did."""
    if isinstance(fn, AccumulateGrad):
        return fn.parameter.requires_grad
    return isinstance(fn, Node) and any(
        read.parameter.requires_grad and (read.parameter.kind.is_text or (read.parameter.kind.is_demos and read.value))
        for read in fn.reads
    )


def _too_early(order: Sequence[GradFn], truncate: int | None) -> dict[GradFn, None]:
    """The calls that `truncate` leaves out: those before the last few of their module in their forward."""
    if truncate is None:
        return {}
    calls = [fn for fn in order if isinstance(fn, Node)]
    count: dict[tuple[Tape, str], int] = {}
    for node in (node for tape in dict.fromkeys(fn.tape for fn in calls) for node in tape.nodes):
        count[node.tape, node.path] = count.get((node.tape, node.path), 0) + 1
    return {fn: None for fn in calls if fn.index < count[fn.tape, fn.path] - truncate}


def _inputs(node: Node, edges: Sequence[Edge], own: Sequence[Target]) -> tuple[Target, ...]:
    taken = {target.name for target in own}
    fields = dict.fromkeys(edge.field or "" for edge in edges)
    return tuple(
        Target(f"input.{field}" if field in taken else field, "input", node.inputs.get(field)) for field in fields
    )
