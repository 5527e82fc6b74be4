"""Rows of a batch as one sequence: a common prefix, whole prompts behind it, and what follows them, each token once.

Only attention knows what belongs together: each segment attends to itself and to what it goes on from. So the linear
layers see no padding, each token goes through the model once, and one backward pass does all.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptgrad._accepts import Accepts
from promptgrad.lm._prefix_plan import Segment, cut_by_length

if TYPE_CHECKING:
    import torch

_NAME = "promptgrad_tree"
_now = threading.local()
_switch = threading.Lock()
_switched: dict[int, int] = {}
_others: set[type] = set()  # models that say that they take another attention, and did not


class Tree:
    """A prefix and segments behind it, laid out as one sequence.

    Args:
        prefix: What all segments begin with; may be empty.
        segments: The segments, each after the one that it is behind, which is behind the prefix itself.

    Attributes:
        ids: All tokens.
        positions: The position of each in its own row.
        starts: Where each segment begins.
    """

    def __init__(self, prefix: Sequence[int], segments: Sequence[Segment]) -> None:
        self.prefix = len(prefix)
        self.segments = segments
        self.ids = list(prefix)
        self.positions = list(range(len(prefix)))
        self.starts: list[int] = []
        for segment in segments:
            self.starts.append(len(self.ids))
            first = self.prefix + (0 if segment.behind is None else len(segments[segment.behind].ids))
            self.ids += segment.ids
            self.positions += range(first, first + len(segment.ids))

    def options(self, model: Any) -> dict[str, Any]:
        """Options of a forward pass over it, inside of `attended`."""
        import torch

        device = model.device
        return {
            "input_ids": torch.tensor([self.ids], device=device),
            "position_ids": torch.tensor([self.positions], device=device),
            "attention_mask": torch.zeros((1, 1, 1, 1), device=device),  # of four dimensions: no mask is made of it
            "use_cache": False,
            # of experts, whose balance no loss here takes: it would be reckoned by a mask of two dimensions
            **({"output_router_logits": False} if getattr(model.config, "output_router_logits", False) else {}),
        }


@contextmanager
def attended(model: Any, tree: Tree, wanted: Collection[int]) -> Iterator[None]:
    """Let the attention of the model, in this thread, keep the segments of a tree apart.

    Behind its last layer of attention only the `wanted` places have an output of their own. A model that did not ask
    for attention once in every layer, or adds something to its scores, is known afterwards as one that does not take
    trees.
    """
    config = _base(model).config
    _register()
    layout = _Layout(tree, config.num_hidden_layers, frozenset(wanted), model.device)
    with _switch:
        _switched[id(config)] = _switched.get(id(config), 0) + 1
        config._attn_implementation = _NAME
    try:
        _now.layout = layout
        yield
    finally:
        _now.layout = None
        with _switch:
            _switched[id(config)] -= 1
            if not _switched[id(config)]:
                del _switched[id(config)]
                config._attn_implementation = "sdpa"
    if layout.asked != layout.layers:
        _others.add(type(_base(model)))


def takes_trees(model: Any) -> bool:
    """Whether the attention of a model is a function that may be another one, over all that came before."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    base = _base(model)
    config = base.config
    plain = (
        getattr(base, "_supports_attention_backend", False)
        and type(base) not in _others
        and config._attn_implementation in ("sdpa", _NAME)
        and not getattr(config, "sub_configs", None)
        and Accepts(model).positions
    )
    return bool(plain) and {type(layer) for layer in DynamicCache(config=config).layers} == {DynamicLayer}


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)  # for other threads, whose passes are as always


def _attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """As `sdpa_attention_forward` of transformers; by the tree, where this thread has one."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as attend

    layout: _Layout | None = getattr(_now, "layout", None)
    if layout is None:
        found: tuple[torch.Tensor, None] = attend(module, query, key, value, attention_mask, **options)
        return found
    layout.asked += attention_mask is None or attention_mask.numel() == 1  # else one of the model's own making
    asked = layout.last if layout.asked == layout.layers else layout.every
    prefix = layout.prefix
    common = [each[:, :, :prefix] for each in (key, value)]
    made = []
    if asked.prefix:
        out, _ = attend(module, query[:, :, :prefix], *common, None, **options)
        made.append(out.flatten(0, 1))
    flat = [each[0].transpose(0, 1) for each in (query, key, value)]
    for bundle in asked.bundles:
        own = bundle.places.shape
        queries, *both = (
            each.index_select(0, places.flatten()).unflatten(0, places.shape).transpose(1, 2)
            for each, places in zip(flat, (bundle.asking, bundle.places, bundle.places), strict=True)
        )
        parts = [[each] for each in both]
        if bundle.before is not None:
            for part, each in zip(parts, flat[1:], strict=True):
                before = each.index_select(0, bundle.before.flatten()).unflatten(0, bundle.before.shape)
                part.insert(0, before.transpose(1, 2))
        if prefix:
            for part, each in zip(parts, common, strict=True):
                part.insert(0, each.expand(own[0], -1, -1, -1))
        keys, values = (torch.cat(part, 2) if len(part) > 1 else part[0] for part in parts)
        out, _ = attend(module, queries, keys, values, bundle.mask, **options)
        made.append(out.flatten(0, 1))
    return torch.cat(made).index_select(0, asked.order)[None], None


@dataclass(frozen=True, slots=True)
class _Bundle:
    """Segments whose attention is computed together.

    Attributes:
        asking: The places in the sequence that attend, one row for each segment, filled up with any.
        places: Where the tokens of the segments are, likewise.
        before: Where the tokens are of the segments that they are behind, filled up at the left; None if of none.
        mask: What `asking` attends to of prefix, `before` and `places`; None for what is before each of `places`.
    """

    asking: torch.Tensor
    places: torch.Tensor
    before: torch.Tensor | None
    mask: torch.Tensor | None


class _Asked:
    """What attention is computed for: all places of a tree, or some.

    Attributes:
        prefix: Whether the places of the prefix are among them.
        bundles: The segments, in bundles.
        order: Where the outputs of the sequence's places are in those of prefix and bundles; anywhere for the others.
    """

    def __init__(self, tree: Tree, wanted: Collection[int], device: Any) -> None:
        import torch

        self.prefix = any(place in wanted for place in range(tree.prefix))
        self.bundles: list[_Bundle] = []
        order = list(range(tree.prefix if self.prefix else 0))
        made = len(order)
        order += [0] * (len(tree.ids) - made)
        lengths = [len(segment.ids) for segment in tree.segments]
        steps = [
            [step for step in range(length) if start + step in wanted]
            for start, length in zip(tree.starts, lengths, strict=True)
        ]
        of_prompts = [at for at, segment in enumerate(tree.segments) if segment.behind is None and steps[at]]
        of_others = [at for at, segment in enumerate(tree.segments) if segment.behind is not None and steps[at]]
        for kind in (of_prompts, of_others):
            for rows in cut_by_length(lengths, kind, math.inf):
                self.bundles.append(_bundle(tree, rows, [steps[row] for row in rows], device))
                width = self.bundles[-1].asking.shape[1]
                for number, row in enumerate(rows):
                    for at, step in enumerate(steps[row]):
                        order[tree.starts[row] + step] = made + number * width + at
                made += len(rows) * width
        self.order = torch.tensor(order, device=device)


class _Layout:
    """How attention is computed over a tree.

    Attributes:
        prefix: Tokens of the prefix.
        layers: Layers of attention that the model has.
        asked: In how many layers it was, with nothing added to the scores.
        every: For all places: in each layer but the last one.
        last: For those that are wanted: what else the last layer gives is looked at by nobody.
    """

    def __init__(self, tree: Tree, layers: int, wanted: frozenset[int], device: Any) -> None:
        self.prefix, self.layers, self.asked = tree.prefix, layers, 0
        self.every = _Asked(tree, range(len(tree.ids)), device)
        self.last = _Asked(tree, wanted, device)


def _bundle(tree: Tree, rows: Sequence[int], steps: Sequence[Sequence[int]], device: Any) -> _Bundle:
    """Some segments, of which these steps attend."""
    import torch

    segments = [tree.segments[row] for row in rows]
    lengths = [len(segment.ids) for segment in segments]
    width = max(lengths)
    places = [
        [tree.starts[row] + min(step, length - 1) for step in range(width)]
        for row, length in zip(rows, lengths, strict=True)
    ]
    most = max(map(len, steps))
    filled = [[*each, *[each[-1]] * (most - len(each))] for each in steps]
    asking = [[row[step] for step in each] for row, each in zip(places, filled, strict=True)]
    causal = torch.ones((width, width), dtype=torch.bool, device=device).tril()
    parts = [causal.new_ones((len(rows), width, tree.prefix)), causal[None].expand(len(rows), -1, -1)]
    behind = [segment.behind for segment in segments if segment.behind is not None]
    before = None
    if behind:
        counts = [len(tree.segments[at].ids) for at in behind]
        deep = max(counts)
        before = [
            [tree.starts[at] + max(step - (deep - count), 0) for step in range(deep)]
            for at, count in zip(behind, counts, strict=True)
        ]
        seen = torch.arange(deep, device=device)[None] >= deep - torch.tensor(counts, device=device)[:, None]
        parts.insert(1, seen[:, None].expand(-1, width, -1))
    mask = torch.cat(parts, 2)
    whole = all(len(each) == length for each, length in zip(steps, lengths, strict=True))
    if not whole:
        mask = mask.gather(1, torch.tensor(filled, device=device)[..., None].expand(-1, -1, mask.shape[2]))
    elif not behind:
        mask = mask[:1]
    plain = whole and not behind and not tree.prefix
    return _Bundle(
        torch.tensor(asking, device=device),
        torch.tensor(places, device=device),
        None if before is None else torch.tensor(before, device=device),
        None if plain else mask[:, None],
    )
