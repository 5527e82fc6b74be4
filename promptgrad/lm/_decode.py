"""The decode loop: many replies at once from one causal language model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from promptgrad._accepts import Accepts
from promptgrad.lm._adapted import Adapted
from promptgrad.lm._grammar import Constraint, Grammars
from promptgrad.lm._kv import Pair, PrefixStore, growing_cache, join, kv_bytes, select, stack
from promptgrad.lm._lora_rows import LoraRows
from promptgrad.lm._sampling import Sampling, choose, scaled
from promptgrad.lm._versions import Versions

SHORTEST_PREFIX = 8
"""Least number of tokens whose keys and values are worth keeping."""

PATIENCE = 8
"""Most steps that a newcomer waits for others to join with."""


@dataclass(slots=True)
class Decoding:
    """One reply to be made.

    Args:
        prompt: Token ids.
        prefix: Number of leading tokens that other requests are likely to share.
        most: Most tokens of the reply.
        sampling: The settings by which tokens are chosen.
        scored: True if log-probabilities are wanted.
        is_over: Function of the ids so far, true once they contain a stop text; None without stop texts.
        done: Function that is called with the job when the reply is complete.
        lora: The LoRA or soft prompt that it goes through; None for the model alone.
        constraint: What holds it to a grammar; None leaves it free.
        dropped: True once no caller waits for it any more, or it is complete.
        ids: The reply.
        scores: Log-probabilities of its tokens, after the temperature; those of the model, whatever a grammar forbids.
        reason: Why it ended: `stop` or `length`, or `nan` where the model computed no numbers.
    """

    prompt: list[int]
    prefix: int
    most: int
    sampling: Sampling
    scored: bool
    is_over: Callable[[list[int]], bool] | None
    done: Callable[[Decoding], object]
    lora: Adapted | None = None
    constraint: Constraint | None = None
    dropped: bool = False
    ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    reason: str = "length"
    source: Random | None = None
    waited: int = 0


@dataclass(slots=True)
class Begun:
    """A job that is about to join: the number of its tokens that are known, and their keys and values."""

    job: Decoding
    known: int = 0
    pairs: list[Pair] | None = None

    @property
    def left(self) -> int:
        return len(self.job.prompt) - self.known


class DecodeRows:
    """Replies in progress: their jobs, cache, mask, positions and newest tokens, one row each."""

    def __init__(self, jobs: list[Decoding], cache: Cache, mask: torch.Tensor, positions: torch.Tensor) -> None:
        self.jobs = jobs
        self.cache = cache
        self.mask = mask  # (rows, places), 1 where a token is
        self.positions = positions  # (rows,), of the newest token
        self.tokens = positions.new_zeros(len(jobs))  # (rows,), the newest tokens, not in the cache yet
        self.states = positions  # (rows, places, size), what the encoder of a sequence-to-sequence model read


class Decoder:
    """Makes replies with one model, continuously batched: complete rows leave, newcomers take their place.

    Rows are padded on the left. Where all layers keep plain keys and values, beginnings that occur more than once are
    computed once and kept (`PrefixStore`), and newcomers join a batch in progress; for other models (sliding windows,
    recurrent states) a batch is finished before the next one begins.

    Args:
        model: Any causal language model of transformers.
        ends: Token ids that end a reply.
        pad: Token id for padding.
        most_rows: Most replies in progress.
        prefix_bytes: Most memory for kept beginnings; 0 keeps none.
    """

    def __init__(self, model: Any, ends: frozenset[int], pad: int, most_rows: int, prefix_bytes: int) -> None:
        self.model = model
        self.loras = LoraRows(model)
        self._versions = Versions(model.parameters())
        self._computed_with = self.version()
        self.ends = ends
        self.pad = pad
        self.most_rows = most_rows
        self.replies = self.read = self.written = self.most_bytes = 0
        self.prefixes = PrefixStore(prefix_bytes)
        self.keeps_prefixes = prefix_bytes > 0
        self.grammars: Grammars | None = None
        self._accepts = Accepts(model)
        self._plain = self._accepts.positions and growing_cache(model.config) is not None
        self._attends = not self._has_states_alone()

    def version(self) -> int:
        """Return a number that changes whenever a weight is changed in place."""
        return self._versions.total()

    def _has_states_alone(self) -> bool:
        """Whether no layer looks back at tokens: each has a state, as those of Mamba have."""
        layers = DynamicCache(config=self.model.config).layers
        return bool(layers) and not any(isinstance(layer, CacheLayerMixin) for layer in layers)

    def requires_grad(self) -> bool:
        """True if any weight requires a gradient."""
        return any(weight.requires_grad for weight in self._versions.weights)

    def run(self, waiting: deque[Decoding], stop: Callable[[], bool] = lambda: False) -> None:
        """Make the replies to all waiting jobs; more may be added, by other threads, while it runs.

        Args:
            waiting: Jobs, taken from the left.
            stop: Function that is called before each step; if true, the decoder gives up.
        """
        with torch.inference_mode():
            rows: DecodeRows | None = None
            while (rows is not None or waiting) and not stop():
                if waiting and self._admits(rows, waiting):
                    rows = self._admit(rows, waiting)
                if rows is not None:
                    self._step(rows)
                    rows = self._thin(rows)

    def _admits(self, rows: DecodeRows | None, waiting: deque[Decoding]) -> bool:
        if rows is None:
            return True
        first = waiting[0]
        first.waited += 1
        if not self._plain or len(rows.jobs) >= self.most_rows:
            return False
        return 4 * len(waiting) >= len(rows.jobs) or first.waited > PATIENCE

    def _admit(self, rows: DecodeRows | None, waiting: deque[Decoding]) -> DecodeRows | None:
        free = self.most_rows - (0 if rows is None else len(rows.jobs))
        new: list[Decoding] = []
        while waiting and len(new) < free:
            job = waiting.popleft()
            if not job.dropped:
                job.source = job.sampling.source()
                new.append(job)
        for begun in self._sorted(new):
            self.read += sum(one.left for one in begun)
            more = self._thin(self._begin(begun))
            if more is not None:
                rows = more if rows is None else _joined(rows, more)
        return rows

    def _sorted(self, jobs: list[Decoding]) -> list[list[Begun]]:
        """Find the prefix that each job can reuse, and group jobs with about as many tokens left to read."""
        begun = self._reuse(jobs)
        if not self._plain:  # rows cannot be joined later: one batch of all
            return [begun] if begun else []
        parts: list[list[Begun]] = []
        shortest = 0
        for one in sorted(begun, key=lambda one: one.left):
            if not parts or one.left > 1.5 * shortest + 16:
                parts.append([])
                shortest = one.left
            parts[-1].append(one)
        return parts

    def _reuse(self, jobs: list[Decoding]) -> list[Begun]:
        begun = [Begun(job) for job in jobs]
        if not (self._plain and self.keeps_prefixes):
            return begun
        version = self.version()
        if version != self._computed_with:
            self.prefixes.clear()
            self._computed_with = version
        groups: dict[tuple[int, ...], list[Begun]] = {}
        for one in begun:
            lora, length = one.job.lora, min(one.job.prefix, len(one.job.prompt) - 1)
            if length >= SHORTEST_PREFIX:
                through = (0, 0) if lora is None else (lora.number, lora.version())
                groups.setdefault((*through, *one.job.prompt[:length]), []).append(one)
        for key, members in groups.items():
            ids, pairs = key[2:], self.prefixes.get(key)
            if pairs is None:
                if not self.prefixes.pays(key, len(members)):
                    continue
                cache = growing_cache(self.model.config)
                self.read += len(ids)
                self._forward([members[0].job], torch.tensor([ids], device=self.model.device), None, None, cache)
                pairs = self.prefixes.put(key, cache)
            for one in members:
                one.known, one.pairs = len(ids), pairs
        return begun

    def _begin(self, begun: list[Begun]) -> DecodeRows:
        """Read the prompts, and choose the first tokens."""
        device = self.model.device
        deepest = max(one.known for one in begun)
        longest = max(one.left for one in begun)
        ids, mask, first = [], [], []
        for one in begun:
            known, left = one.known, one.left
            ids.append([self.pad] * (longest - left) + one.job.prompt[known:])
            mask.append([0] * (deepest - known) + [1] * known + [0] * (longest - left) + [1] * left)
            first.append(known + left - longest)
        places = torch.tensor(mask, device=device)
        positions = torch.tensor(first, device=device)[:, None] + torch.arange(longest, device=device)[None]
        if deepest:
            cache = stack([one.pairs for one in begun], [one.known for one in begun])
        else:
            cache = (growing_cache(self.model.config) if self._plain else None) or DynamicCache(
                config=self.model.config
            )
        jobs = [one.job for one in begun]
        logits = self._forward(jobs, torch.tensor(ids, device=device), places, positions.clamp_(min=0), cache)
        rows = DecodeRows(jobs, cache, places, positions[:, -1])
        self._take(rows, logits)
        return rows

    def _step(self, rows: DecodeRows) -> None:
        rows.mask = torch.nn.functional.pad(rows.mask, (0, 1), value=1)
        rows.positions = rows.positions + 1
        seen = rows.mask if self._attends else None  # a state has what was read, and takes a mask as that of new tokens
        logits = self._forward(rows.jobs, rows.tokens[:, None], seen, rows.positions[:, None], rows.cache)
        self._take(rows, logits)

    def _forward(
        self,
        jobs: Sequence[Decoding],
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor | None,
        cache: Cache | None,
    ) -> torch.Tensor:
        more: dict[str, Any] = {**self._accepts.cache(cache), **self._accepts.last(1)}
        if positions is not None and self._accepts.positions:
            more["position_ids"] = positions
        with self.loras.through([job.lora for job in jobs]):
            out = self.model(input_ids=ids, attention_mask=mask, **more)
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def _take(self, rows: DecodeRows, logits: torch.Tensor) -> None:
        """Choose the next token of each row, and find the rows that are complete."""
        jobs = rows.jobs
        samplings, sources = [job.sampling for job in jobs], [job.source for job in jobs]
        held = [(i, job.constraint) for i, job in enumerate(jobs) if job.constraint is not None and not job.dropped]
        masked = logits if not held or self.grammars is None else self.grammars.mask(logits, held)
        rows.tokens, heated, sound = choose(masked, samplings, sources)
        if not sound:
            self._drop_broken(rows, masked)
        scores: Sequence[float] | None = None
        if any(job.scored for job in jobs):
            if masked is not logits:
                heated = scaled(logits, samplings, sources)
            picked = heated.gather(-1, rows.tokens[:, None])[:, 0]
            scores = (picked - heated.logsumexp(-1)).tolist()
        for index, token in enumerate(rows.tokens.tolist()):
            job = jobs[index]
            if job.dropped:
                continue
            job.ids.append(token)
            self.written += 1
            if scores is not None:
                job.scores.append(scores[index])
            if job.constraint is not None and token not in self.ends:
                job.constraint.advance(token)
            if token in self.ends or (job.is_over is not None and job.is_over(job.ids)):
                job.reason = "stop"
            elif len(job.ids) < job.most:
                continue
            self.replies += 1
            job.source = None
            job.dropped = True
            job.done(job)

    def _drop_broken(self, rows: DecodeRows, logits: torch.Tensor) -> None:
        """End the replies for which the model computes no numbers."""
        for job, whole in zip(rows.jobs, logits.amax(-1).isfinite().tolist(), strict=True):
            if not whole and not job.dropped:
                job.reason, job.source, job.dropped = "nan", None, True
                job.done(job)

    def _thin(self, rows: DecodeRows) -> DecodeRows | None:
        """Remove complete rows once there are enough of them to be worth the copy."""
        alive = [index for index, job in enumerate(rows.jobs) if not job.dropped]
        if len(alive) < len(rows.jobs):
            self.most_bytes = max(self.most_bytes, kv_bytes(rows.cache))
        if not alive:
            return None
        if 4 * len(alive) > 3 * len(rows.jobs):
            return rows
        chosen = torch.tensor(alive, device=rows.mask.device)
        mask = rows.mask[chosen]
        first = 0
        if self._plain:
            first = int(mask.any(0).int().argmax())
            select(rows.cache, chosen, first)
        else:
            rows.cache.reorder_cache(chosen)  # recurrent states too, which batch_select_indices passes over
        thinned = DecodeRows([rows.jobs[i] for i in alive], rows.cache, mask[:, first:], rows.positions[chosen])
        thinned.tokens = rows.tokens[chosen]
        return thinned


def _joined(one: DecodeRows, other: DecodeRows) -> DecodeRows:
    places = max(one.mask.shape[1], other.mask.shape[1])
    masks = [torch.nn.functional.pad(rows.mask, (places - rows.mask.shape[1], 0)) for rows in (one, other)]
    joined = DecodeRows(
        one.jobs + other.jobs,
        join(one.cache, other.cache),
        torch.cat(masks),
        torch.cat([one.positions, other.positions]),
    )
    joined.tokens = torch.cat([one.tokens, other.tokens])
    return joined
