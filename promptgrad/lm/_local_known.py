"""What the weights of a local model are known by: in keys of its replies, and in files of adapters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from promptgrad._seed import seed_or_default
from promptgrad.errors import JournalError
from promptgrad.lm._codec import canonical_json
from promptgrad.lm._fingerprint import fingerprint_files, fingerprint_weights
from promptgrad.lm._local_given import LocalGiven

if TYPE_CHECKING:
    from promptgrad.lm._local_engine import LocalEngine


class LocalKnown(LocalGiven):
    """The part of `Local` that says which weights these are."""

    quantize: str | None
    seed: int | None
    constrain: bool | None
    _source: str | None
    _engine: LocalEngine | None
    _fingerprint: tuple[int, str]
    _known_as: tuple[int, str, bool]

    def identity(self) -> str:
        """Return name, options, seed, and a fingerprint of the weights as they are now, or what they are `known_as`."""
        seed = seed_or_default(self.seed)
        version, text, _ = self._known_as
        weights = text if text and version == self.version() else self._weights_fingerprint()
        if self.quantize:
            weights = f"{weights} {self.quantize}"
        held = "" if self.constrain is None else f" {'constrained' if self.constrain else 'free'}"
        return f"local {self.name} {weights} {seed} {canonical_json(self.options)}{held}"

    def known_as(self, text: str, *, here: bool = True) -> None:
        """Be known by a text, such as a digest of all that was learned, until a weight is changed in place.

        `identity` has it in place of the weights' fingerprint, so a journal finds replies without the weights that gave
        them.

        Args:
            text: The text.
            here: Whether the weights are those that it stands for; else replies are found, and none is made.
        """
        self._load()
        self._known_as = self.version(), text, here

    def adapter_metadata(self, paths: Iterable[str]) -> dict[str, str]:
        """Return what a file of matrices beside these layers says of its base, as metadata of safetensors."""
        from promptgrad.lm._lora import about_base

        return about_base(self.model, paths)

    def _refuse_if_elsewhere(self) -> None:
        version, _, here = self._known_as
        if not here and version == self.version():
            raise JournalError(
                f"a reply that {self.name!r} gave is not on record, and the weights that gave it are not here: remove "
                "the checkpoint that this training goes on from, and it takes its steps again from what is on record"
            )

    def _weights_fingerprint(self) -> str:
        engine = self._engine
        if engine is None and self._source is None:
            engine = self._load()
        version = 0 if engine is None else engine.version()
        known, text = self._fingerprint
        if not text or known != version:
            changed = engine is not None and version != engine.loaded_version
            if self._source is not None and not changed:
                text = fingerprint_files(self._source)
            elif engine is not None:
                text = fingerprint_weights(engine.model)
            self._fingerprint = (version, text)
        return text
