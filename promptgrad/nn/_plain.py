"""Values and answers as a critic or judge sees them."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from promptgrad.adapters import get_adapter
from promptgrad.autograd import Node
from promptgrad.content import Audio, Citation, Document, File, History, Image, MediaPlaces, Turn
from promptgrad.data import Example
from promptgrad.lm import LM, current
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction, fields_of
from promptgrad.signature import with_sorted_sets

if TYPE_CHECKING:
    from promptgrad.nn._attempt import LoggedCall


def is_narrow(predict: Predict, lm: Any) -> bool:
    """Whether a call would be answered by a model that knows only its own tasks, see `Adapter.narrow`."""
    named = predict.adapter or current().adapter or getattr(lm, "adapter", None)
    return named is not None and get_adapter(named).narrow


def seen_by(lm: LM | None, nodes: Iterable["Node | LoggedCall"] = ()) -> frozenset[str]:
    """The kinds of media that a critic or judge is shown as they are; of all others it gets the captions.

    Args:
        lm: Its language model.
        nodes: The calls that it judges. A model of which nothing is known sees what it saw in one of them.
    """
    if lm is None:
        return frozenset()
    if lm.media is not None:
        return lm.media
    own = [node for node in nodes if isinstance(node.lm, LM) and node.lm.transport is lm.transport]
    held = (part for node in own for value in node.inputs.values() for part in _parts(value))
    return frozenset(part.kind for part in held)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, (Image, Audio, File)):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _parts(item)
    elif isinstance(value, History):
        for turn in value:
            yield from _parts(turn.content)
    elif hasattr(type(value), "model_fields"):
        yield from _parts(vars(value))


def plain(value: Any, media: Collection[str] = ()) -> Any:
    """A value as it is shown to a language model: records become dicts, `Text` becomes `str`, sets sorted lists.

    Args:
        value: The value.
        media: Kinds of media that stay as they are; others become their captions.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Prediction):
        return {name: plain(item, media) for name, item in fields_of(value).items()}
    if isinstance(value, (Mapping, Example)):
        return {str(name): plain(item, media) for name, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=json.dumps)
    if isinstance(value, (list, tuple)):
        return [plain(item, media) for item in value]
    if isinstance(value, (Image, Audio, File)):
        return value if value.kind in media else repr(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, History):
        return plain(value.__record__()[1]["turns"], media)
    if isinstance(value, Turn):
        return plain(value.__record__()[1], media)
    if isinstance(value, (Document, Citation)):
        return plain(value.to_dict())
    dump = getattr(value, "model_dump", None)
    if dump is None:
        return repr(value)
    places = MediaPlaces()
    data = with_sorted_sets(value, dump(mode="json", context=places))
    return places.filled(data, lambda part: plain(part, media))
