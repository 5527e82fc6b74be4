"""What a forked child must not touch: connections that belong to its parent."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

_kept: list[object] = []


class Inheritable(Protocol):
    """Something that must be told, in a forked child, to begin anew."""

    def after_fork(self) -> None:
        """Give what belongs to the parent to `keep_forever`, and begin anew."""
        ...


_inheritable: weakref.WeakSet[Inheritable] = weakref.WeakSet()


def tell_after_fork(thing: Inheritable) -> None:
    """Have `after_fork` of a thing called in every forked child, as long as the thing lives."""
    _inheritable.add(thing)


def keep_forever(thing: object) -> None:
    """Never finalize an object, not even at exit.

    Closing an inherited connection would act on what child and parent share: the sockets' place in the parent's
    epoll set, for one.
    """
    _kept.append(thing)
    try:
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    except (ImportError, AttributeError):  # not CPython: the list keeps it until the child ends
        return


def _after_fork() -> None:
    for thing in list(_inheritable):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
