"""An error in the words that a language model may read: without addresses of servers, and without secrets."""

from __future__ import annotations

import re

from promptgrad._patterns import late_pattern
from promptgrad.errors import LMError, ToolServerError

ADDRESS = "[address]"
"""What stands for the address of a server."""

SECRET = "***"
"""What stands for a secret."""

MOST = 20_000
"""Characters of a text that is told; what follows is left out."""

_HIDDEN = (
    late_pattern(r"\b(?P<kept>Bearer|Basic)(?P<more>\s{1,4})[A-Za-z0-9._~+/=-]{8,}"),
    late_pattern(
        r"(?i)\b(?P<kept>(?:api|access|secret)[_-]?key|password|passwd|[a-z]{1,40}_token|client_secret)"
        r"(?P<more>['\"]\s{0,4}:\s{0,4}['\"]|\s{0,4}=\s{0,4}['\"]?)[^\s'\"&,;)}\]]+"
    ),
    late_pattern(r"\b(?P<kept>sk|pk|ghp|gho|xox[abp]|glpat|hf)(?P<more>[-_])[A-Za-z0-9_-]{12,}"),
    late_pattern(r"\b(?P<kept>AKIA)(?P<more>)[A-Z0-9]{12,}"),
    late_pattern(r"\b(?P<kept>eyJ)(?P<more>)[\w-]{8,400}\.eyJ[\w-]{8,}(?:\.[\w-]*)?"),
)
_URL = late_pattern(r"\b[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s'\"<>|`)\]}]*[^\s'\"<>|`)\]}.,;:]")
_HOST = late_pattern(r"//(?:[^/@]*@)?(\[[^\]]*\]|[^/:?#]*)")
_PRIVATE = late_pattern(
    r"(?i)^(?:[^.]*|\[.*\]|[\d.]+|.*\.(?:local|localhost|internal|intranet|lan|corp|home|svc|cluster|arpa))$"
)
_LOGIN = late_pattern(r"(?<=://)[^/@\s]+@")
_PLACE = late_pattern(
    r"(?i)\b(?:localhost|\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}\b|(?<![\w.])\[[0-9a-f]{0,4}(?::[0-9a-f.]{0,15}){2,8}\](?::\d{1,5})?"
)
_NAMED = late_pattern(
    r"(?i)(?P<kept>\bhost(?:name)?(?:=|\s(?!(?:is|was|not|names?|mismatch|unreachable|key)\b))['\"]?)[\w.-]{0,253}\w(?:['\"]?,?\s?port[=\s]\s?\d{1,5}|['\"]?:\d{1,5})?"
    r"|\b[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}:\d{2,5}\b|\b\d{1,3}(?:\.\d{1,3}){3}\b"
)
_OF_SERVER = late_pattern(
    r"(?i)certificate|\bx509\b|\bhost|connect|resol(?:ve|ution)|lookup|not known|NOTFOUND|EAI_AGAIN|\bdns\b"
)
"""What an error says that is about reaching a server, by its name or with the certificate that holds its names."""
_DOTTED = late_pattern(r"(?<![\w.@/(-])(?:\*\.)?(?:[a-z0-9_-]{1,63}\.){1,8}[a-z]{2,63}\b(?!\.?[\w(])")
"""The name of a server there. A class of Python ends with a word in capitals, "urllib3.connection.HTTPSConnection"."""
_QUOTED = late_pattern(
    r"(?i)(?P<kept>\b(?:valid for|match(?:es)?(?: either of)?|resolve|lookup|host name|server at):?\s)"
    r"(?P<quote>['\"])[\w.:-]{1,253}(?P=quote)"
)
"""A name that may be a single word, in quotes behind what tells that it is one."""


def error_text(error: BaseException) -> str:
    """An error by its name and message, as a language model is shown it.

    The model may be anybody's, and what it is shown stays in prompts and journals: so what belongs to this network or
    account is left out. Of errors of language models, of servers of tools and of the system's connections every address
    is; of any other error those that only this network knows, and logins, since an address may be what it is about.
    Tokens, keys and passwords that look like ones are left out of all.
    """
    said = error_message(error)
    return type(error).__name__ if said is None else f"{type(error).__name__}: {said}"


def error_message(error: BaseException) -> str | None:
    """The message of an error, as `error_text` has it; None where it cannot be made."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the error is of foreign code, and so is its `__str__`
        return None
    return text_about(text, error)


def text_about(text: str, error: BaseException) -> str:
    """A text about an error, such as its traceback, as `error_text` has its message."""
    return without_addresses(text, every=_is_of_transport(error))


def without_addresses(text: str, *, every: bool = False) -> str:
    """A text without secrets, and without addresses of this network; a very long one is cut.

    Args:
        text: The text.
        every: Whether to leave out all other addresses of servers too.
    """
    if len(text) > MOST:
        rest = f"... ({len(text) - MOST} characters more)"
        return without_addresses(text[:MOST], every=every) + rest
    for pattern in _HIDDEN:
        text = pattern.sub(_veiled, text)
    if "://" in text:
        text = _URL.sub(lambda found: _url(found[0], every=every), text)
    text = _PLACE.sub(ADDRESS, text)
    if not every:
        return text
    text = _NAMED.sub(_named, text)
    if _OF_SERVER.search(text):
        text = _DOTTED.sub(ADDRESS, _QUOTED.sub(rf"\g<kept>\g<quote>{ADDRESS}\g<quote>", text))
    return text


def _veiled(found: re.Match[str]) -> str:
    return f"{found['kept']}{found['more']}{SECRET}"


def _url(url: str, *, every: bool) -> str:
    host = _HOST.search(url)
    return ADDRESS if every or host is None or _PRIVATE.match(host[1]) else _LOGIN.sub("", url)


def _named(found: re.Match[str]) -> str:
    return f"{found['kept']}{ADDRESS}" if found["kept"] else ADDRESS


def _is_of_transport(error: BaseException) -> bool:
    """Whether an error is about a connection, of which each package has classes of its own."""
    if isinstance(error, (LMError, ToolServerError, ConnectionError, TimeoutError)):
        return True
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & _OF_CONNECTIONS)


_OF_CONNECTIONS = frozenset(
    {
        *("HTTPError", "URLError", "RequestException", "ClientError", "TransportError", "HTTPStatusError", "APIError"),
        *("gaierror", "herror", "SSLError", "WebSocketException", "HTTPException", "NewConnectionError", "MCPError"),
    }
)
"""Names of the classes above the errors of connections: of urllib, requests, aiohttp, httpx, openai and others."""
