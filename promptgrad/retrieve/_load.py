"""`load`: an index from its folder."""

from __future__ import annotations

import os
from typing import Any

from promptgrad.errors import DataError
from promptgrad.retrieve import _bm25, _dense, _hybrid, _rerank  # noqa: F401 - a kind is known when its file is loaded
from promptgrad.retrieve._folder import read_folder
from promptgrad.retrieve._retriever import Retriever, read_member


def load(folder: str | os.PathLike[str], *, verify: bool = True, **functions: Any) -> Retriever:
    """Read an index that `index.save(folder)` wrote. Arrays and passages are mapped into memory, not read.

    A folder holds no code: whatever function or model the index was made with is passed again, by the name of the
    argument, and must have the name that it had.

    Args:
        folder: The folder.
        verify: Compare all files with what was written, which reads them once; False compares their sizes.
        functions: `embedder` (and `query_embedder`), `module`, `tokenizer`, `stemmer`, as far as the index has them.
            Where several indexes have embedders, `embedder` is a mapping from their names.

    Raises:
        DataError: There is no index, it is damaged or of a later version, or was made with other functions.
        TypeError: A function is given that no index has.
    """
    strange = functions.keys() - {"embedder", "query_embedder", "module", "tokenizer", "stemmer"}
    if strange:
        raise TypeError(f"load takes the functions of an index by name, not {', '.join(sorted(strange))}")
    kind, settings, data = read_folder(folder, verify=verify)
    try:
        index: Retriever = read_member(data, kind, settings, functions)
    except (KeyError, TypeError, ValueError, OSError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the index in {folder} cannot be read: {type(error).__name__}: {error}") from error
    return index
