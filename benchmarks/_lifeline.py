"""Processes that end with the one that started them, also where that one is killed and can say nothing.

The starting process holds the one end of a pipe, and a thread of the other process waits at the other end: nothing is
ever sent, and the pipe breaks when its holder lets go of it or dies.
"""

from __future__ import annotations

import os
import shutil
import threading
from multiprocessing.connection import Connection, wait


def end_with(line: Connection, folder: str = "") -> None:
    """End this process when the other end of a pipe is gone.

    Args:
        line: The end of it that is here.
        folder: A folder that is removed before.
    """

    def watch() -> None:
        wait([line])
        if folder:
            os.chdir(os.path.dirname(folder))
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def end_with_stdin() -> None:
    """End this process when its standard input ends, as that of `Popen(stdin=PIPE)` does with the other process."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
