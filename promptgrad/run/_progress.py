"""Progress bars, in terminals and notebooks, and silence everywhere else."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from promptgrad.run._here import here

if TYPE_CHECKING:
    import rich.progress


class Progress:
    """One bar. `advance` may be called from any thread.

    Attributes:
        total: Number of steps, None while unknown.
        done: Steps so far.
        visible: Whether anything is drawn.
    """

    def __init__(self, total: int | None, bars: "rich.progress.Progress | None", description: str) -> None:
        self.total = total
        self.done = 0
        self.visible = bars is not None
        self._bars = bars
        self._lock = threading.Lock()
        self._task: Any = None if bars is None else bars.add_task(description, total=total, note="")

    def advance(self, n: int = 1, note: str = "") -> None:
        """Move on by `n` steps, and show a short note beside the bar."""
        with self._lock:
            self.done += n
        if self._bars is not None:
            self._bars.update(self._task, advance=n)
            if note:
                self.note(note)

    def expect(self, total: int) -> None:
        """Set the number of steps, where it is known only now."""
        self.total = total
        if self._bars is not None:
            self._bars.update(self._task, total=total)

    def note(self, text: str) -> None:
        """Show a short note beside the bar."""
        if self._bars is not None:
            self._bars.update(self._task, note=text)


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _has_widgets() -> bool:
    from importlib.util import find_spec

    return find_spec("ipywidgets") is not None  # without them rich draws nothing there, and warns


def _wanted(enabled: bool | None) -> bool:  # noqa: FBT001 - the option itself
    if enabled is not None:
        return enabled
    if _in_notebook():
        return _has_widgets()
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress(total: int | None, description: str, enabled: bool | None = None) -> Iterator[Progress]:  # noqa: FBT001
    """Show a progress bar on standard error while the block runs; a bar inside another appears below it.

    Args:
        total: Number of steps; None if unknown.
        description: The text before the bar.
        enabled: None shows it in a terminal, or in a notebook that has ipywidgets; True and False decide.
    """
    outer = here.get().bars
    if enabled is False or (outer is None and not _wanted(enabled)):
        yield Progress(total, None, description)
        return
    if outer is not None:
        bar = Progress(total, outer, description)
        try:
            yield bar
        finally:
            outer.remove_task(bar._task)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars
    except ImportError:  # a bar is a convenience: without rich nothing is drawn
        yield Progress(total, None, description)
        return
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
    token = here.set(replace(here.get(), bars=bars))
    try:
        with bars:
            yield Progress(total, bars, description)
    finally:
        here.reset(token)
