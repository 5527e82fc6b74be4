"""JSON values fitted to a type before pydantic checks them: each part by the reader of its own type, however deep.

`fitter(annotation)` gives a function from JSON values to JSON values. It converts what has one reading ("3.5 billion"
to a number, "Yes" to true, the name of an enum's member to its value) and refuses what pydantic would convert although
nobody meant it, such as true to 1. What it does not know, it leaves to pydantic.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import cache, partial
from typing import Annotated, Any, Literal, get_args, get_origin

from promptgrad._patterns import late_pattern
from promptgrad.adapters._fit_object import Fit, Misfit, ObjectFit, fit_at
from promptgrad.adapters._kinds import (
    MOMENTS,
    bare,
    has_fields,
    has_validator,
    is_list,
    is_mapping,
    is_moment,
    is_named_tuple,
    is_structure,
    members,
)
from promptgrad.adapters._nearly_json import Exact
from promptgrad.adapters._numbers import read_number
from promptgrad.adapters._units import odd_items
from promptgrad.adapters._words import BOOLEAN_WORDS, is_nothing, mentions, read_boolean, read_choice, spellings

_NUMBERS = (int, float, Decimal)
_GROUPED = late_pattern(r"(?<![\d.,])(-?[1-9]\d{0,2})\.000(?![\d.,])", re.ASCII)
_UNCLEAR_SPAN = late_pattern(r"\s*[-+]?(?:\d+:\d\d\s*\Z|P(?:\d+Y)?\d+M)", re.IGNORECASE)
"""Hours and minutes, or minutes and seconds; months, which have no one length and may be meant as minutes."""
_FROM_TO = late_pattern(r"(?<![\d:])(\d{1,2}:\d\d)\s*[-\N{EN DASH}\N{MINUS SIGN}]\s*(\d{1,2}:\d\d)\Z")
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def fitter(annotation: Any) -> Fit | None:
    """The function that fits values to a type; None where there is nothing to do."""
    try:
        return _fitter(annotation)
    except TypeError:  # not hashable
        return _make(annotation)


@cache
def _fitter(annotation: Any) -> Fit | None:
    return _make(annotation)


def _make(annotation: Any) -> Fit | None:
    if get_origin(annotation) is Annotated and has_validator(get_args(annotation)[1:]):
        return None
    annotation = bare(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in MOMENTS:
        return partial(_fit_moment, annotation)
    if annotation in _NUMBERS:
        return partial(fit_number, annotation)
    if annotation is bool:
        return fit_boolean
    if origin is Literal or (isinstance(annotation, type) and issubclass(annotation, enum.Enum)):
        options = spellings(annotation)
        return None if options is None else partial(_fit_choice, options, getattr(annotation, "__name__", ""))
    if len(members(annotation)) > 1:
        return partial(_fit_union, members(annotation))
    if origin is tuple and args:
        if len(args) == 2 and args[1] is ...:
            return _checked(args[0], _fit_items(fitter(args[0])))
        return _fit_places([fitter(arg) for arg in args])
    if is_list(origin) and args:
        return _checked(args[0], _fit_items(fitter(args[0])))
    if is_mapping(origin) and args:
        return _checked(args[-1], _fit_pairs(fitter(args[0]), fitter(args[1]) if len(args) == 2 else None))
    if is_named_tuple(annotation):
        by_name = ObjectFit(annotation, fitter)
        return lambda value: by_name(value) if isinstance(value, dict) else by_name.in_order(value)
    if isinstance(annotation, type) and has_fields(annotation):
        return ObjectFit(annotation, fitter)
    return None


def fit_number(kind: Any, value: Any) -> Any:
    """A number for `int`, `float` or `Decimal`.

    Raises:
        Misfit: It has no reading, or more than one.
    """
    if isinstance(value, bool):
        raise Misfit(f"Input should be a valid number, not {str(value).lower()}")
    if kind is int:
        _refuse_grouped(value)
    if isinstance(value, Exact):
        if kind is Decimal and 1e-300 < abs(value) < 1e300:
            return format(Decimal(value.text), "f")
        if math.isinf(value):
            raise Misfit(f"Input should be a finite number, and {value.text} is too large")
    if not isinstance(value, str) or (value in _NOT_FINITE and kind is float):
        return value
    values, reason = read_number(value)
    fitting = [number for number in map(partial(_as_number, kind), values) if number is not None]
    if len(fitting) == 1:
        return fitting[0]
    what = "integer" if kind is int else "number"
    raise Misfit(f"Input should be a valid {what}: {value[:80]!r} {reason or 'is not one'}", fitting)


def _refuse_grouped(value: Any) -> None:
    """Refuse "12.000" as a whole number: nobody writes 12 so, and half of the world twelve thousand."""
    text = value.text if isinstance(value, Exact) else value
    found = _GROUPED.search(text) if isinstance(text, str) and len(text) < 2_000 else None
    if found is not None:
        few = int(found[1])
        raise Misfit(f"Input should be a valid integer: {text[:80]!r} may be {few} or {few}000", (few, few * 1000))


def _as_number(kind: Any, value: Decimal) -> int | float | str | None:
    if kind is Decimal:
        return format(value, "f")
    if kind is float and not math.isfinite(float(value)):
        return None
    if value == value.to_integral_value():
        return int(value)
    return None if kind is int else float(value)


def _fit_moment(kind: Any, value: Any) -> Any:
    """A date or time as it is, unless it is a bare number, which pydantic takes for seconds since 1970."""
    if kind is timedelta and isinstance(value, str) and _UNCLEAR_SPAN.match(value):
        raise Misfit(f"Input should be a duration such as PT1H30M, and {value[:80]!r} may be several")
    span = _FROM_TO.search(value) if isinstance(value, str) and len(value) < 60 else None
    if span is not None and span[1].zfill(5) < span[2].zfill(5):
        raise Misfit(f"Input should be one time: {value!r} may be a time with its zone, or from one to another")
    try:
        number = isinstance(value, (str, int, float)) and not isinstance(value, bool) and float(value)
    except (ValueError, OverflowError):
        return value
    if number is not False:
        raise Misfit(f"Input should be a date or time in ISO 8601, not the number {value}")
    return value


def fit_boolean(value: Any) -> Any:
    """True or false.

    Raises:
        Misfit: A text says neither, or both.
    """
    if not isinstance(value, str):
        return value
    found = read_boolean(value)
    if len(found) != 1:
        raise Misfit(f"Input should be true or false, not {value[:80]!r}", found)
    return found[0]


def _fit_choice(options: Mapping[str, Any], title: str, value: Any) -> Any:
    if isinstance(value, bool) and not any(value is option for option in options.values()):
        raise Misfit(f"must be one of {', '.join(map(repr, options))}, not {str(value).lower()}")
    if isinstance(value, int) and all(isinstance(option, str) for option in options.values()):
        value = str(value)
    if not isinstance(value, str):
        return value
    or_truth = not BOOLEAN_WORDS.keys().isdisjoint(map(str.casefold, options))
    nothing = None in options.values() and value not in options and is_nothing(value, or_truth=or_truth)
    if nothing and not mentions(value, options):
        return None
    found = read_choice(value, options, title)
    if len(found) != 1:
        raise Misfit(f"must be one of {', '.join(map(repr, options))}, not {value[:80]!r}", found)
    return found[0]


def _fit_union(kinds: Sequence[Any], value: Any) -> Any:
    if value is None or (isinstance(value, str) and str in kinds):
        return value
    if isinstance(value, bool):
        return _fit_truth(kinds, value)
    if isinstance(value, str):
        return _one_of(kinds, value)
    if not isinstance(value, (list, dict)):
        moments = [kind for kind in kinds if is_moment(kind)]
        if moments and all(is_moment(kind) or is_structure(kind) or kind in (str, type(None)) for kind in kinds):
            return _fit_moment(moments[0], value)
        if int in kinds and not {float, Decimal} & {*kinds}:
            _refuse_grouped(value)
        texts = isinstance(value, int) and all(_reads(kind) and kind not in _NUMBERS for kind in kinds)
        return _one_of(kinds, str(value)) if texts and bool not in kinds else value
    found = []
    reason: Misfit | None = None
    for kind in kinds:
        fit = fitter(kind)
        if not is_structure(kind) or not _holds(kind, value) or (isinstance(fit, ObjectFit) and fit.lacks(value)):
            continue
        try:
            found.append(value if fit is None else fit(value))
        except Misfit as misfit:
            reason = misfit
    if not found and reason is not None and all(_reads(kind) or kind is str for kind in kinds):
        raise reason
    return found[0] if len(found) == 1 or (found and all(one == found[0] for one in found)) else value


def _fit_truth(kinds: Sequence[Any], value: bool) -> Any:  # noqa: FBT001
    """True or false where one of the types takes it; it is no number, and pydantic would make it one."""
    for kind in kinds:
        if kind is bool or (not _reads(kind) and kind is not str):
            return value
        fit = fitter(kind)
        if fit is not None and kind not in _NUMBERS and not is_structure(kind):
            try:
                return fit(value)
            except Misfit:
                continue
    raise Misfit(f"Input should be {' or '.join(map(_name, kinds))}, not {str(value).lower()}")


def _takes_truth(kind: Any) -> bool:
    """Whether a type is that of true and false, or has choices that are called so."""
    return kind is bool or not BOOLEAN_WORDS.keys().isdisjoint(map(str.casefold, spellings(kind) or ()))


def _name(kind: Any) -> str:
    return "null" if kind is type(None) else getattr(kind, "__name__", None) or str(kind)


def _one_of(kinds: Sequence[Any], text: str) -> Any:
    """The one reading of a text among the types that read texts."""
    if text.lstrip().startswith(("[", "{")) and any(map(is_structure, kinds)):
        return text  # a list or object, written as a text
    found: list[Any] = []
    as_number = False
    reason: Misfit | None = None
    nothing = type(None) in kinds and is_nothing(text, or_truth=any(map(_takes_truth, kinds)))
    for kind in kinds:
        fit = fitter(kind)
        if fit is None or is_structure(kind) or (nothing and is_moment(kind)):
            continue
        try:
            value = fit(text)
        except Misfit as misfit:
            reason = misfit if reason is None or misfit.choices else reason
            if misfit.choices:
                found += misfit.choices
            continue
        if not any(value == other and isinstance(value, bool) is isinstance(other, bool) for other in found):
            found.append(value)
            as_number = as_number or kind in _NUMBERS
    if nothing and not found:
        if any(mentions(text, spellings(kind) or {}) for kind in kinds):
            raise Misfit(f"says that there is none, and then another: {text[:80]!r}")
        return None
    if len(found) == 1 and _says_more(kinds, text, as_number=as_number):
        raise Misfit(f"holds more than {found[0]!r}: {text[:80]!r}")
    if len(found) > 1:
        raise Misfit(f"may be read as {' or '.join(map(repr, found[:3]))}: {text[:80]!r}", found)
    if not found and reason is not None and all(_reads(kind) or is_moment(kind) for kind in kinds):
        raise reason
    return found[0] if found else text


def _says_more(kinds: Sequence[Any], text: str, *, as_number: bool) -> bool:
    """Whether a text in which one type reads a value has words or digits of another type: "5 (low)", "yes, 5"."""
    options = {word: word for kind in kinds for word in (BOOLEAN_WORDS if kind is bool else spellings(kind) or ())}
    with_digits = {word: word for word in options if any(map(str.isdigit, word))}
    if as_number:
        return mentions(text, {word: word for word in options if word not in with_digits})
    return not with_digits and any(kind in _NUMBERS for kind in kinds) and any(map(str.isdigit, text))


def _reads(kind: Any) -> bool:
    """Whether only the readers here know the texts of a type."""
    is_choice = get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum))
    return kind is type(None) or kind is bool or kind in _NUMBERS or is_choice or is_structure(kind)


def _holds(kind: Any, value: Any) -> bool:
    return is_named_tuple(kind) or is_list(get_origin(kind) or kind) is isinstance(value, list)


def _checked(kind: Any, fit: Fit | None) -> Fit:
    """Fits a list or an object, and refuses items that are not those of one list; see `odd_items`."""
    kinds = members(kind)
    has_numbers = str not in kinds and any(one in _NUMBERS for one in kinds)

    def apply(value: Any) -> Any:
        if isinstance(value, (list, dict)) and (reason := odd_items(value, has_numbers=has_numbers)):
            raise Misfit(reason)
        return value if fit is None else fit(value)

    return apply


def _fit_items(fit: Fit | None) -> Fit | None:
    if fit is None:
        return None
    return lambda value: (
        [fit_at(number, fit, item) for number, item in enumerate(value)] if isinstance(value, list) else value
    )


def _fit_places(fits: Sequence[Fit | None]) -> Fit | None:
    if not any(fits):
        return None

    def apply(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(fits):
            return value
        return [
            item if fit is None else fit_at(number, fit, item)
            for number, (fit, item) in enumerate(zip(fits, value, strict=True))
        ]

    return apply


def _fit_pairs(key_fit: Fit | None, fit: Fit | None) -> Fit | None:
    if fit is None and key_fit is None:
        return None

    def apply(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        made: dict[Any, Any] = {}
        for key, item in value.items():
            name = key if key_fit is None else fit_at(key, key_fit, key)
            if name in made:
                raise Misfit(f"has the key {key!r} twice")
            made[name] = item if fit is None else fit_at(key, fit, item)
        return made

    return apply
