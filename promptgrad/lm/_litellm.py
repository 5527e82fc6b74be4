"""`LiteLLM`: every provider that litellm supports."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from importlib import import_module
from time import perf_counter
from typing import Any

from promptgrad import aio
from promptgrad._patterns import late_pattern
from promptgrad.errors import (
    AuthenticationError,
    BadRequestError,
    LMConnectionError,
    LMReplyError,
    LMStatusError,
    MissingExtraError,
)
from promptgrad.lm._advice import advise, out_of_time, unreached, without_names
from promptgrad.lm._citations import GROUNDING, document_numbers, read_citations, takes_documents
from promptgrad.lm._completion import Completion, Usage
from promptgrad.lm._count import read_cached, read_count
from promptgrad.lm._dialect import in_order, read_logprobs, read_message, read_more, write_messages
from promptgrad.lm._endpoint import Endpoint
from promptgrad.lm._habits import Habits, stopped, written_without
from promptgrad.lm._options import hear, near_name, take
from promptgrad.lm._parts import has_addresses, weigh
from promptgrad.lm._prices import Prices, cost, find_prices
from promptgrad.lm._providers import BY_KEY, ITS_ADDRESSES, ITS_KEYS, heard, known_prefixes, own_address
from promptgrad.lm._request import Request
from promptgrad.lm._secret import Secret
from promptgrad.lm._silence import SILENCE, check_silence
from promptgrad.lm._sse import Assembly
from promptgrad.lm._status import read_fault
from promptgrad.lm._straight import keep_clients, straight, watch
from promptgrad.lm._stream import Listener
from promptgrad.lm._text_only import refuse_addresses, refuse_lost
from promptgrad.lm._traffic import Traffic
from promptgrad.lm._transport import Transport

_SECRETS = ("key", "token", "secret", "password", "credential", "auth", "header")
_NO_KEY = late_pattern(
    r"missing credentials|missing [\w ]*api[ _]key|api_key client option must be set|unable to locate credentials"
    r"|default credentials were not found|please (?:set|pass)[^.]{0,40}(?:api[ _]key|token)|no api key"
    r"|api[ _]key is required",
    re.IGNORECASE,
)
_UNSET = late_pattern(r"\b[A-Z]+(?:_[A-Z]+)*_(?:KEY|TOKEN)\b (?:is )?not set")
_UNNAMED = late_pattern(
    r"\b(?:api[_ ]base|base_url) (?:(?:is|must be) (?:required|set|given)|not set)"
    r"|(?:missing|no) (?:api[_ ]base|base_url)\b",
    re.IGNORECASE,
)
_UNREACHED = late_pattern(
    r"cannot connect to host|connection (?:error|refused|reset)|server disconnected|name or service not known"
    r"|nodename nor servname|temporary failure in name resolution",
    re.IGNORECASE,
)
_MODULE = late_pattern(r"No module named '([\w.]+)'")
_REFUSED = range(400, 500)
_NO_ADDRESS = frozenset({"ai21", "custom_openai", "litellm_proxy", "lm_studio", "xinference"})
"""Providers whose servers are the user's own, or gone, and which litellm asks at OpenAI's address if none is given."""
_SETTINGS = frozenset({"base_url", "api_key", "timeout", "headers"})
_GIVEN = frozenset({"api_key", "api_base", "base_url", "mock_response", "extra_headers", "client"})
_QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_MODE": "PRODUCTION",
}


@lru_cache(maxsize=1)
def load_litellm() -> Any:
    """Import litellm without its side effects: it fetches no tables of prices and headers and reads no `.env` file.

    The first import takes some seconds.

    Raises:
        MissingExtraError: litellm is not installed.
    """
    kept = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update(_QUIET)
    try:
        import litellm

        with suppress(ImportError, AttributeError):  # of newer ones, which would fetch it in the first call
            import_module("litellm.anthropic_beta_headers_manager").get_provider_name("anthropic")
    except ImportError as error:
        raise MissingExtraError(f"LiteLLM needs litellm: pip install litellm ({error})") from error
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    watch()
    return litellm


class LiteLLM(Transport):
    """A model of any provider that litellm knows: `anthropic/...`, `gemini/...`, `bedrock/...` and a hundred more.

    litellm is imported at the first call, which costs some seconds and 170 MB; each call then costs some 8 ms of CPU,
    thirty times as much as `HTTP`. Its own retries are switched off in favour of `Retry`. Keys come from the
    environment variables that litellm names, or as `api_key`.

    With a `seed`, replicate `r` sends `seed + r`.

    Cost: one request for each call.

    Args:
        model: The name with its provider, in litellm's spelling.
        api_key: The key; by default the environment's.
        api_base: Address of the server, where the provider lets one choose.
        timeout: The longest silence, in seconds. What was silent for so long is not sent again.
        prices: US dollars for a million input and a million output tokens; by default litellm's.
        name: Name of the LM; `model` if empty.
        adapter: Name of the adapter that writes prompts for it.
        without: What the model is known not to take, as for `HTTP`.
        mark_prefix: Whether to mark the end of each prompt's prefix (instruction and demos) for a provider that keeps
            in its cache what is marked (`cache_control`: Anthropic, also on Bedrock and Vertex). It pays where the same
            prefix of a thousand tokens and more is sent again within minutes.
        settings: Further arguments of `litellm.acompletion`, such as `api_version` or `mock_response`. They are part of
            the LM's identity only as a digest, and shown nowhere, because they may hold secrets.
        options: Sampling options for requests that leave them open, and arguments of litellm, as in `settings`;
            `base_url` is `api_base`. What only the provider knows goes through `extra_body={...}`.

    Raises:
        TypeError: An option is not known.
        ValueError: litellm would not send to the address.
    """

    in_place = True

    def __init__(
        self,
        model: str,
        api_key: str | None = None,
        *,
        api_base: str | None = None,
        timeout: float = SILENCE,
        prices: Prices | None = None,
        name: str = "",
        adapter: str = "chat",
        without: Iterable[str] = (),
        mark_prefix: bool = False,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if options:
            options = hear("lm.LiteLLM", options, _SETTINGS, litellm=True)
            api_base = take(options, "base_url", api_base)
            api_key = take(options, "api_key", api_key)
            timeout = take(options, "timeout", timeout, SILENCE)
            passed, headers = options.pop("settings", None) or {}, options.pop("headers", None)
            settings = {**(settings or {}), **passed, **({"extra_headers": headers} if headers else {})}
        super().__init__(name or model, adapter=adapter, options=options)
        self.model = model
        self.mark_prefix = mark_prefix
        self.timeout = check_silence(timeout)
        self._endpoint = None if api_base is None else Endpoint.of(heard(model, api_base))
        self._api_base = api_base
        self._habits = Habits("" if self._endpoint is None else self._endpoint.url, model, without)
        self._traffic = Traffic()
        self.endpoint = f"{'' if self._endpoint is None else self._endpoint.url} {model}"
        if api_key is not None and not isinstance(api_key, str):
            raise TypeError(f"api_key is a str, not {type(api_key).__name__}")
        self._api_key = None if api_key is None else Secret(api_key)
        self._prices = prices
        self._settings = dict(settings or {})
        self._identity = self._describe()

    def _describe(self) -> str:
        address = "" if self._endpoint is None else self._endpoint.url
        open_settings = {
            name: value for name, value in self._settings.items() if not any(word in name.lower() for word in _SECRETS)
        }
        described = json.dumps([self.options, open_settings], sort_keys=True, default=repr)
        return f"litellm {self.model} {address} {blake2b(described.encode(), digest_size=8).hexdigest()}"

    @property
    def prices(self) -> Prices | None:
        """US dollars for a million input and a million output tokens; None where they are not known."""
        return self._prices or find_prices(self.model)

    def stats(self) -> dict[str, Any]:
        """The requests of this LM: `requests` sent, `answered`, `failed`, and `in_flight` now."""
        return self._traffic.stats()

    async def _send(self, request: Request, key: str) -> Completion:
        self._refuse_proxy()
        refuse_lost(self.model, request.messages)
        refuse_addresses(self.model, request.messages)
        if self._prices is None:
            find_prices(self.model)  # its table is read before anything is sent
        litellm = await aio.in_thread(load_litellm)
        self._refuse_without_key(litellm)
        while True:
            lacks = self._habits.lacks
            asked = request if not lacks else written_without(request, lacks)
            try:
                reply = await aio.on_transport(self._post, litellm, asked, self._arguments(asked, key))
                return stopped(reply, request, lacks)
            except LMStatusError as error:
                if not self._habits.learn(error, request, lacks):
                    raise

    def _refuse_proxy(self) -> None:
        """Refuse to send to this machine, or a key in the clear, through a proxy of the environment."""
        from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

        endpoint = self._endpoint
        if endpoint is None or (endpoint.private and not endpoint.here):
            return
        proxies = getproxies_environment()
        scheme = endpoint.url.partition(":")[0]
        if (scheme in proxies or "all" in proxies) and not proxy_bypass_environment(endpoint.host, proxies):
            raise LMConnectionError(
                f"litellm would send what is for {endpoint.url} through the proxy of the environment, so nothing was "
                f"sent: set NO_PROXY={endpoint.host}"
            )

    def _refuse_without_key(self, litellm: Any) -> None:
        """Say at once that a key is missing; litellm would send the prompt without one to some providers."""
        self._refuse_another(litellm)
        provider = self.model.partition("/")[0]
        given = self._api_key is not None or self._endpoint is not None or not self._settings.keys().isdisjoint(_GIVEN)
        if given or provider not in (BY_KEY | ITS_KEYS.keys()) or litellm.api_key is not None:
            return
        missing = ITS_KEYS.get(provider)
        if missing is None:
            missing = litellm.validate_environment(self.model).get("missing_keys")
        elif getattr(litellm, f"{provider}_key", None) or any(
            map(os.environ.get, (*missing, *ITS_ADDRESSES.get(provider, (f"{provider.upper()}_API_BASE",))))
        ):
            return
        if missing:
            names = " or ".join(missing)
            raise AuthenticationError(
                f"there is no key for {self.model!r}, so nothing was sent: set {names} as an environment variable, or "
                "pass api_key="
            )

    def _refuse_another(self, litellm: Any) -> None:
        """Refuse what litellm would send to OpenAI, or with OpenAI's key, although the name is of another provider."""
        if self._settings.keys() & {"mock_response", "client"} or litellm.api_key is not None:
            return
        given = {name: self._settings.get(name) for name in ("api_base", "base_url", "api_key")}
        base, key = self._api_base or given["api_base"] or given["base_url"], self._api_key or given["api_key"]
        try:
            _, provider, own_key, own_base = litellm.get_llm_provider(
                self.model, self._settings.get("custom_llm_provider"), base, "given" if key else None
            )
        except Exception:  # noqa: BLE001 - it raises many kinds for a name that it does not know, and says so when called
            return
        if provider == "aiohttp_openai":
            raise BadRequestError(
                f"litellm would follow redirects of {self.model!r}, with the prompt, so nothing was sent: write "
                "'openai/...' for the same dialect"
            )
        prefix = provider.upper().replace("-", "_")
        if provider in _NO_ADDRESS and not (own_base or base or litellm.api_base):
            raise BadRequestError(
                f"{self.model!r} names no address, and litellm would send to OpenAI's, so nothing was sent: pass "
                f"base_url=, or set {prefix}_API_BASE"
            )
        if provider in litellm.openai_compatible_providers and (own_base or base) and not (own_key or key):
            raise AuthenticationError(
                f"there is no key for {self.model!r}, and litellm would send OPENAI_API_KEY in its place, so nothing "
                f"was sent: set {prefix}_API_KEY as an environment variable, or pass api_key="
            )

    def _write(self, request: Request) -> list[dict[str, Any]]:
        """The messages, with a mark behind the prefix where the provider's cache needs one."""
        written = write_messages(request.messages, documents=self._cites(request))
        last = len(write_messages(request.prefix.messages)) - 1 if self.mark_prefix else -1
        if last >= 0 and written[last]["content"]:
            content = written[last]["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            written[last]["content"] = [*parts[:-1], {**parts[-1], "cache_control": {"type": "ephemeral"}}]
        return written

    def _cites(self, request: Request) -> bool:
        provider = self._settings.get("custom_llm_provider") or self.model.partition("/")[0]
        return takes_documents(provider, self.model, request)

    def _arguments(self, request: Request, key: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self.model,
            "messages": self._write(request),
            "num_retries": 0,
            "max_retries": 0,
            "timeout": self.timeout,
            **self._settings,
        }
        if self._api_key is not None:
            arguments["api_key"] = self._api_key.reveal()
        if self._api_base is not None:
            arguments["api_base"] = self._api_base
        given = "base_url" if "base_url" in arguments and "api_base" not in arguments else "api_base"
        provider = self._settings.get("custom_llm_provider") or self.model.partition("/")[0]
        address = own_address(provider, arguments.get(given))
        if address is not None:
            arguments[given] = address
        options = request.options()
        replicate = options.pop("replicate", 0)
        if "seed" in options:
            options["seed"] += replicate
        if "grammar" in options:
            raise ValueError("a grammar is for lm.Local, which enforces it: write response_format=")
        if "response_format" in options:
            options["response_format"] = json.loads(options["response_format"])
        if "max_tokens" in options and "max_tokens" in self._habits.lacks:
            options["max_completion_tokens"] = options.pop("max_tokens")
        if "samples" in options:
            options["n"] = options.pop("samples")
        if request.listener is not None:
            options.pop("n", None)  # one reply is heard
        for name, text in options.pop("extra", ()):
            arguments[name] = json.loads(text)
        arguments.update(options)
        if key:
            arguments["extra_headers"] = {**arguments.get("extra_headers", {}), "Idempotency-Key": key}
        return arguments

    async def _post(self, litellm: Any, request: Request, arguments: dict[str, Any]) -> Completion:
        await keep_clients()
        started = perf_counter()
        traffic = self._traffic
        mark, answered = traffic.begin(), False
        try:
            with straight(addresses=has_addresses(request.messages)) as call:
                if request.listener is None:
                    response = await litellm.acompletion(**arguments)
                else:
                    response = await self._listen(litellm, request.listener, arguments)
            answered = True
        except Exception as error:
            failure = call.error or self._failure(litellm, error, traffic.passed_by(mark))
            if failure is None:
                raise
            raise failure from None
        finally:
            traffic.end(answered)
        seconds = perf_counter() - started
        used = getattr(response, "usage", None)
        paid = read_count(getattr(used, "prompt_tokens", None))
        got = read_count(getattr(used, "completion_tokens", None))
        cached = read_cached({} if used is None else used.model_dump(), paid or 0)
        try:
            choice, *others = in_order([one.model_dump() for one in response.choices])
            content, refusal = read_message(choice["message"])
            numbers = document_numbers(request.messages) if self._cites(request) else ()
            told = {name: getattr(response, name, None) for name in ("citations", GROUNDING)}
            citations = read_citations(choice["message"], told, content, numbers)
            logprobs = read_logprobs(choice)
            more = read_more(others)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
            spoilt = LMReplyError(f"the answer of {self.model} has no choices[0].message", body=str(response))
            if paid is not None and got is not None:
                usd = self._cost(litellm, response, paid, got)
                spoilt.billed = {"input_tokens": paid, "output_tokens": got, "usd": usd}
            raise spoilt from None
        if paid is None or got is None or not paid:
            paid = sum(weigh(m.content) for m in request.messages) // 4 + 1
            got = weigh(content) // 4 + 1 + sum(weigh(other.content) // 4 + 1 for other in more)
        return Completion(
            content,
            Usage(1, paid, got, self._cost(litellm, response, paid, got, cached), 0, seconds, cached),
            response.model or self.model,
            choice.get("finish_reason") or "stop",
            refusal=refusal,
            logprobs=logprobs,
            more=more,
            citations=citations,
        )

    async def _listen(self, litellm: Any, listener: Listener, arguments: dict[str, Any]) -> Any:
        """Read a stream to its end."""
        assembly = Assembly(listener)
        stream = await litellm.acompletion(stream=True, **{"stream_options": {"include_usage": True}, **arguments})
        try:
            async for chunk in stream:
                assembly.add(chunk.model_dump())
        finally:
            await stream.aclose()
        return litellm.ModelResponse(**assembly.reply())

    def _cost(self, litellm: Any, response: Any, paid: int, got: int, cached: int = 0) -> float | None:
        if self._prices is None:
            try:
                usd = litellm.completion_cost(completion_response=response, model=self.model)
            except Exception:  # noqa: BLE001 - litellm raises many kinds for a model it has no price for
                usd = None
            if usd:
                return float(usd)
        return cost(self.prices, paid, got, cached)

    def _failure(self, litellm: Any, error: Exception, passed_by: int) -> Exception | None:
        """Translate an error of litellm; None for a fault of a program rather than of a call."""
        known = litellm.exceptions
        status = getattr(error, "status_code", None)
        text, _, trace = self._scrub(str(error)).partition("\nTraceback ")
        where = f"litellm, model {self.model!r}"
        told = without_names(text)
        if isinstance(error, known.Timeout) and not told.startswith("{"):  # else its server says so
            return out_of_time(error, where, self.timeout, passed_by)
        module = _MODULE.search(text)
        if status not in _REFUSED and _UNNAMED.search(text):
            return BadRequestError(f"{where}: {text}; nothing was sent: pass base_url=", body=text)
        if module and status not in _REFUSED:
            return MissingExtraError(f"{where}: this provider needs the package {module[1]!r}: {text.splitlines()[0]}")
        if status not in _REFUSED and (_NO_KEY.search(text) or _UNSET.search(text)):  # litellm has many messages for it
            return AuthenticationError(f"{where}: {text}", body=text)
        if status not in _REFUSED and "\nValueError: " in trace:  # it refuses the call, and would again
            return BadRequestError(f"{where}: {text}", body=text)
        reached = status in _REFUSED or not (
            isinstance(error, known.APIConnectionError) or _UNREACHED.search(text + trace)
        )
        if not reached:
            return unreached(f"{where}: {text}", text + trace, here=self._endpoint is not None and self._endpoint.here)
        if not isinstance(status, int):
            return None
        headers = getattr(error, "litellm_response_headers", None) or {}
        found = read_fault(status, told, headers)
        advice = advise(found, self.model, "the variable that litellm reads for this provider")
        if "LLM Provider NOT provided" in text:
            near = near_name(self.model.partition("/")[0], known_prefixes())
            hint = f": did you mean {near + '/...'!r}?" if near else "; a server of yours needs base_url="
            advice = f" (no provider is called {self.model.partition('/')[0]!r}{hint})"
        return found.kind(f"{where}: {text}{advice}", status=status, body=text, retry_after=found.retry_after)

    def _scrub(self, text: str) -> str:
        secrets = [self._api_key, *(Secret(v) for v in self._settings.values() if isinstance(v, str))]
        if self._endpoint is not None:
            secrets += [self._endpoint.password, self._endpoint.login]
        for secret in secrets:
            if secret is not None:
                text = secret.scrub(text)
        return text
