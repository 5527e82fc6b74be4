"""Values and answers as a critic or judge sees them."""

import json
from collections.abc import Mapping
from typing import Any

from promptgrad.adapters import get_adapter
from promptgrad.content import Citation, Document, History, References, Turn
from promptgrad.data import Example
from promptgrad.lm import current
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction, fields_of
from promptgrad.signature import with_sorted_sets


def is_narrow(predict: Predict, lm: Any) -> bool:
    """Whether a call would be answered by a model that knows only its own tasks, see `Adapter.narrow`."""
    named = predict.adapter or current().adapter or getattr(lm, "adapter", None)
    return named is not None and get_adapter(named).narrow


def plain(value: Any) -> Any:
    """A value as it is shown to a language model: records become dicts, `Text` becomes `str`, sets sorted lists."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Prediction):
        return {name: plain(item) for name, item in fields_of(value).items()}
    if isinstance(value, (Mapping, Example)):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=json.dumps)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, History):
        return plain(value.__record__()[1]["turns"])
    if isinstance(value, Turn):
        return plain(value.__record__()[1])
    if isinstance(value, (Document, Citation)):
        return plain(value.to_dict())
    dump = getattr(value, "model_dump", None)
    if dump is None:
        return repr(value)  # of an image: its kind and size, as the LM that reads this may take text alone
    return with_sorted_sets(value, dump(mode="json", context=References()))
