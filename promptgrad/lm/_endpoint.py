"""`Endpoint`: the address that requests go to."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from promptgrad.lm._secret import Secret

KEYED = frozenset(
    {
        "api.openai.com",
        "api.anthropic.com",
        "api.cerebras.ai",
        "api.deepseek.com",
        "api.fireworks.ai",
        "api.groq.com",
        "api.mistral.ai",
        "api.perplexity.ai",
        "api.together.xyz",
        "api.x.ai",
        "generativelanguage.googleapis.com",
        "openrouter.ai",
    }
)
"""Hosts that answer nobody without a key."""


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
        here: True if it is this machine, which is never reached through a proxy.
    """

    url: str
    target: str
    host: str
    login: Secret | None
    password: Secret | None
    private: bool
    here: bool

    @classmethod
    def of(cls, base_url: str, api_version: str | None = None) -> Endpoint:
        """Split an address.

        Raises:
            ValueError: It is not an http address. The message does not show what may be a secret.
        """
        address = str(base_url).strip()
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port  # noqa: F841 - a port that is no number raises
        except ValueError:
            parts, host = urlsplit(""), ""
        odd = "@" in parts.path or parts.path.startswith("//") or any(map(str.isspace, address))
        if parts.scheme not in {"http", "https"} or not host or odd:
            raise ValueError(f"base_url must look like http://host:port/v1, not {_without_secrets(address)!r}")
        if parts.query or parts.fragment:
            raise ValueError("base_url must end where /chat/completions begins; give keys as api_key= or headers=")
        netloc = parts.netloc.rpartition("@")[2]
        path = parts.path.rstrip("/").removesuffix("/chat/completions")
        url = urlunsplit((parts.scheme, netloc, path, "", ""))
        login = password = None
        if parts.username is not None:
            password = Secret(unquote(parts.password or ""))
            pair = f"{unquote(parts.username)}:{password.reveal()}"
            login = Secret(base64.b64encode(pair.encode()).decode("ascii"))
        here = _is_here(host)
        target = f"{url}/chat/completions" + (f"?api-version={quote(api_version, safe='')}" if api_version else "")
        return cls(url, target, host, login, password, here or parts.scheme == "https", here)

    def proxy(self) -> str | None:
        """Find the proxy that the environment sets; once for a session, since all requests go to one host."""
        from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

        if self.here:
            return None
        proxies = getproxies_environment()
        if not proxies or proxy_bypass_environment(self.host, proxies):
            return None
        return proxies.get(urlsplit(self.url).scheme)


def _is_here(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def _without_secrets(address: str) -> str:
    """What can be shown of a text that is not an address: nothing before an @, after a ? or of the user."""
    shown = address.rpartition("@")[2].partition("?")[0].partition("#")[0]
    return f"...@{shown}" if "@" in address else shown
