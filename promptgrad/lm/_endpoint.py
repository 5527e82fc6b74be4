"""`Endpoint`: the address that requests go to."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from promptgrad.lm._secret import Secret

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a server, split into its public and its secret parts.

    Attributes:
        url: The address without user and password; may be shown.
        target: The address that requests are posted to.
        host: The host's name.
        login: User and password in the form of basic authentication; None if the address has none.
        password: The password alone; None if the address has no user.
        private: True if no third party can read a key on the way: https, or this machine.
    """

    url: str
    target: str
    host: str
    login: Secret | None
    password: Secret | None
    private: bool

    @classmethod
    def of(cls, base_url: str) -> Endpoint:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        if parts.scheme not in {"http", "https"} or not host:
            shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
            raise ValueError(f"base_url must look like http://host:port/v1, not {shown!r}")
        if parts.query or parts.fragment:
            raise ValueError("base_url must end where /chat/completions begins; give keys as api_key= or headers=")
        netloc = parts.netloc.rpartition("@")[2]
        url = urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))
        login = password = None
        if parts.username is not None:
            password = Secret(unquote(parts.password or ""))
            pair = f"{unquote(parts.username)}:{password.reveal()}"
            login = Secret(base64.b64encode(pair.encode()).decode("ascii"))
        private = parts.scheme == "https" or host in _LOOPBACK
        return cls(url, f"{url}/chat/completions", host, login, password, private)

    def proxy(self) -> str | None:
        """Find the proxy that the environment sets; once for a session, since all requests go to one host."""
        from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

        proxies = getproxies_environment()
        if not proxies or proxy_bypass_environment(self.host, proxies):
            return None
        return proxies.get(urlsplit(self.url).scheme)
