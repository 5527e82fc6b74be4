"""The decode loop of sequence-to-sequence models: the encoder reads a prompt once, the decoder writes the reply."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from promptgrad.lm._decode import Begun, Decoder, DecodeRows


class Seq2SeqDecoder(Decoder):
    """Makes replies with one sequence-to-sequence model (T5, BART), in batches.

    Equal prompts of a batch are read once. A batch is finished before the next one begins; complete rows leave it. A
    row's mask is that of its prompt.
    """

    def __init__(self, model: Any, ends: frozenset[int], pad: int, most_rows: int, prefix_bytes: int) -> None:
        super().__init__(model, ends, pad, most_rows, prefix_bytes)
        self._plain = False  # rows cannot join a batch in progress, and no prefix is kept

    def _begin(self, begun: list[Begun]) -> DecodeRows:
        """Read the prompts, and choose the first tokens."""
        jobs = [one.job for one in begun]
        prompts: dict[tuple[object, ...], int] = {}
        places = [prompts.setdefault((job.lora, *job.prompt), len(prompts)) for job in jobs]
        different = [jobs[places.index(number)] for number in range(len(prompts))]
        device = self.model.device
        longest = max(len(job.prompt) for job in different)
        ids = [job.prompt + [self.pad] * (longest - len(job.prompt)) for job in different]
        seen = [[1] * len(job.prompt) + [0] * (longest - len(job.prompt)) for job in different]
        mask = torch.tensor(seen, device=device)
        with self.loras.through([job.lora for job in different]):
            read = self.model.get_encoder()(input_ids=torch.tensor(ids, device=device), attention_mask=mask)
        chosen = torch.tensor(places, device=device)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        rows = DecodeRows(jobs, cache, mask[chosen], torch.zeros(len(jobs), dtype=torch.long, device=device))
        rows.states = read.last_hidden_state[chosen]
        self._write(rows, torch.tensor([self._accepts.starts] * len(jobs), device=device))
        return rows

    def _step(self, rows: DecodeRows) -> None:
        self._write(rows, rows.tokens[:, None])

    def _write(self, rows: DecodeRows, ids: torch.Tensor) -> None:
        with self.loras.through([job.lora for job in rows.jobs]):
            out = self.model(
                decoder_input_ids=ids,
                encoder_outputs=BaseModelOutput(last_hidden_state=rows.states),
                attention_mask=rows.mask,
                **self._accepts.cache(rows.cache),
            )
        self._take(rows, out.logits[:, -1].float())

    def _thin(self, rows: DecodeRows) -> DecodeRows | None:
        thinned = super()._thin(rows)
        if thinned is not None and thinned is not rows:
            kept = {id(job): row for row, job in enumerate(rows.jobs)}
            thinned.states = rows.states[torch.tensor([kept[id(job)] for job in thinned.jobs], device=rows.mask.device)]
        return thinned
