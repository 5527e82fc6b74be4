"""`not_a_file`: what would be waited for without end if it were read as a file."""

import os
import stat

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def not_a_file(path: "str | os.PathLike[str]") -> str:
    """Why a path cannot be read as a file: "it is a named pipe, not a file". Empty if it can, or is not there."""
    try:
        kind = _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return ""
    return "" if kind is None else f"it is {kind}, not a file"
