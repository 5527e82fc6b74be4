"""`pocket`: the language model that comes with promptgrad."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from promptgrad.lm._local import Local


def pocket(**options: Any) -> Local:
    """Return the embedded model: 1.1 million weights that know one small world (`promptgrad.data.pocket`).

    It runs here, on one thread of the CPU, without a key or network; replies are greedy unless asked otherwise.
    Without options it is one object for the process, whose weights are loaded once; to train it, work on a copy:
    `lm.with_model(copy.deepcopy(lm.model), "mine")`. Needs the extra `local`.

    Args:
        options: Sampling options for requests that leave them open.
    """
    return _make(**options) if options else _shared()


@lru_cache(maxsize=1)
def _shared() -> Local:
    return _make()


def _make(**options: Any) -> Local:
    from promptgrad.data.pocket import model_path

    return Local(model_path(), name="pocket", adapter="pocket", threads=1, **{"temperature": 0.0, **options})
