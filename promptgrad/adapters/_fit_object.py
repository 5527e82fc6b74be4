"""Objects fitted to the fields of a model, dataclass, TypedDict or named tuple, each key to the field that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, get_origin, get_type_hints

from promptgrad.adapters._field_names import FieldNames, is_near
from promptgrad.adapters._kinds import has_validator, is_list, members, own_validators
from promptgrad.adapters._labels import names_other
from promptgrad.adapters._taken_back import stands_for, words_of
from promptgrad.adapters._words import BOOLEAN_WORDS, spellings

Fit = Callable[[Any], Any]
_MOST_OTHERS = 50
"""Most keys without a field that are looked at."""


class Misfit(ValueError):
    """A value has no reading as its type, or more than one.

    Attributes:
        choices: The values that it may mean, where there are several.
    """

    def __init__(self, reason: str, choices: Sequence[Any] = ()) -> None:
        super().__init__(reason)
        self.choices = tuple(choices)


def fit_at(place: Any, fit: Fit, item: Any) -> Any:
    """A part of a value, fitted.

    Raises:
        Misfit: It has no reading; the reason says where it stands.
    """
    try:
        return fit(item)
    except Misfit as misfit:
        raise Misfit(f"at {place}: {misfit}") from None


class ObjectFit:
    """Fits the fields of a pydantic model, dataclass, TypedDict or named tuple; made when first used.

    Args:
        kind: The type.
        fitter: Gives the function that fits a value to a type.
    """

    def __init__(self, kind: type, fitter: Callable[[Any], Fit | None]) -> None:
        self._kind = kind
        self._fitter = fitter
        self._kinds: dict[str, Any] = {}
        self._fits: dict[str, Fit | None] | None = None
        self._names = FieldNames(())
        self._has_aliases = False

    def _prepared(self) -> dict[str, Fit | None]:
        if self._fits is None:
            kinds: dict[str, Any] = {}
            model_fields = getattr(self._kind, "model_fields", None)
            whole, own = own_validators(self._kind)
            if model_fields is not None and not whole:
                for name, field in model_fields.items():
                    alias = field.validation_alias or field.alias
                    self._has_aliases |= alias is not None
                    left_alone = name in own or "*" in own or has_validator(field.metadata)
                    kinds[alias if isinstance(alias, str) else name] = None if left_alone else field.annotation
            elif not whole:
                hints = get_type_hints(self._kind)
                has_own = dataclasses.is_dataclass(self._kind)
                known = [entry.name for entry in dataclasses.fields(self._kind)] if has_own else hints
                kinds = {name: hints[name] for name in known}
            self._names = FieldNames(
                kinds, [name for name, kind in kinds.items() if kind is not None and _is_list(kind)]
            )
            self._kinds = kinds
            self._fits = {name: None if kind is None else self._fitter(kind) for name, kind in kinds.items()}
        return self._fits

    def lacks(self, value: Any) -> bool:
        """Whether an object has none of the keys, or not one that it needs."""
        if not isinstance(value, dict):
            return False
        fits = self._prepared()
        there = {
            name
            for key in value
            if isinstance(key, str)
            for name in (self._named(key, value), *self._names.all_of(key))
        }
        if fits and there.isdisjoint(fits):
            return bool(value)
        model_fields = getattr(self._kind, "model_fields", None)
        if model_fields is None:
            return False
        return any(
            field.is_required() and there.isdisjoint((name, field.alias or name))
            for name, field in model_fields.items()
        )

    def _is_open(self) -> bool:
        return bool(getattr(self._kind, "model_config", {}).get("extra") == "allow")

    def _named(self, key: str, value: Mapping[Any, Any]) -> str:
        """The field that a key of an object stands for; the key itself if it stands for none."""
        if key in self._prepared():
            return key
        near = self._names.all_of(key)
        if len(near) == 1 and not (self._is_open() and near[0] in value):
            return near[0]
        return key if near or self._is_open() or self._has_aliases else self._names.sole(key, value)

    def in_order(self, value: Any) -> Any:
        """A named tuple that is written as a list."""
        fits = list(self._prepared().values())
        if not isinstance(value, list) or len(value) > len(fits):
            return value
        return [
            item if fit is None else fit_at(number, fit, item)
            for number, (item, fit) in enumerate(zip(value, fits, strict=False))
        ]

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fits = self._prepared()
        made: dict[Any, Any] = {}
        for key, given in value.items():
            name = self._named(key, value) if isinstance(key, str) else key
            item = given if name == key else self._names.item_of(name, key, given)
            fit = fits.get(name)
            if name in made and made[name] != item:
                raise Misfit(f"has the key {name!r} twice")
            made[name] = item if fit is None else fit_at(name, fit, item)
        if fits and not (self._is_open() or self._has_aliases):
            reason = stands_for(made, fits) or self._may_be_another(made)
            if reason:
                raise Misfit(reason)
        return made

    def _may_be_another(self, made: Mapping[Any, Any]) -> str:
        """Why a key that is no field may be one that is missing, or another item of one that is there; else empty.

        A key that was not asked for may be a field that is missing if its name is near, or its value is one of that
        field: `disabled` stands for `active`, or for its contrary. What is named after a field that is there is about
        that one; texts explain, and numbers count something.
        """
        lacking = [name for name, kind in self._kinds.items() if name not in made and kind is not None]
        there = [name for name in self._kinds if name in made]
        others = (key for key in made if isinstance(key, str) and key not in self._kinds and made[key] is not None)
        for key in islice(others, _MOST_OTHERS):
            value, several = made[key], self._names.list_of(key)
            if several in made and isinstance(made[several], list) and value not in (*made[several], made[several]):
                return f"has {key!r} beside {several!r}, with another value: give all of them in {several!r}"
            if names_other(f"{key.replace('_', ' ')}:") or any(words_of(name) <= words_of(key) for name in there):
                continue
            for name in lacking:
                if is_near(key, name) or self._takes(name, value):
                    return f"has no {name!r}, and {key!r}, which may stand for it: give {name!r}"
        return ""

    def _takes(self, name: str, value: Any) -> bool:
        """Whether a value is plainly one of a field: true or false, one of its choices, a list, an object."""
        kinds = [get_origin(kind) or kind for kind in members(self._kinds[name])]
        if isinstance(value, bool):
            return bool in kinds
        if isinstance(value, str) and bool in kinds:
            return value.strip().casefold() in BOOLEAN_WORDS or is_near(value, name)
        if isinstance(value, list):
            return any(is_list(kind) for kind in kinds)
        if isinstance(value, dict):
            fits = map(self._fitter, members(self._kinds[name]))
            return any(isinstance(fit, ObjectFit) and not fit.lacks(value) for fit in fits)
        words = {word for kind in members(self._kinds[name]) for word in spellings(kind) or ()}
        return isinstance(value, str) and value.strip().casefold() in {word.casefold() for word in words}


def _is_list(annotation: Any) -> bool:
    return all(is_list(get_origin(kind) or kind) for kind in members(annotation) if kind is not type(None))
