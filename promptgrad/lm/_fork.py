"""Resources that a forked child must not use: connections that belong to its parent."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

_kept: list[object] = []


class Inheritable(Protocol):
    """An object that must be reset in a forked child."""

    def after_fork(self) -> None:
        """Pass the parent's resources to `keep_forever`, and start without any."""
        ...


_inheritable: weakref.WeakSet[Inheritable] = weakref.WeakSet()


def reset_after_fork(thing: Inheritable) -> None:
    """Call `after_fork` of an object in every forked child, as long as the object lives."""
    _inheritable.add(thing)


def keep_forever(thing: object) -> None:
    """Never finalize an object, not even at exit.

    Closing an inherited connection would act on state that child and parent share, such as the sockets' entries in the
    parent's epoll set.
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
