"""The providers that names begin with: who speaks OpenAI's dialect, and at which address."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from promptgrad.lm._http import OPENAI_URL

OWN_DIALECT = frozenset(
    {
        "ai21",
        "aleph_alpha",
        "anthropic",
        "anthropic_text",
        "azure",
        "azure_ai",
        "azure_text",
        "bedrock",
        "bedrock_converse",
        "clarifai",
        "cloudflare",
        "cohere",
        "cohere_chat",
        "gemini",
        "github_copilot",
        "huggingface",
        "maritalk",
        "nlp_cloud",
        "oci",
        "oobabooga",
        "palm",
        "petals",
        "predibase",
        "replicate",
        "sagemaker",
        "sagemaker_chat",
        "snowflake",
        "text-completion-openai",
        "triton",
        "vertex_ai",
        "vertex_ai_beta",
        "watsonx",
        "watsonx_text",
    }
)
"""Providers whose dialect is their own, which litellm speaks, also at an address of yours."""

DEAF = frozenset({"replicate"})
"""Providers for which litellm uses no other address than theirs."""
BY_KEY = frozenset(
    [
        *("anthropic", "cerebras", "deepinfra", "deepseek", "fireworks_ai", "gemini", "groq", "mistral", "perplexity"),
        *("together_ai", "xai"),
    ]
)
"""Providers that answer nobody without a key, which litellm takes from the environment alone."""
ITS_KEYS = {
    **dict.fromkeys(("cohere", "cohere_chat"), ("COHERE_API_KEY", "CO_API_KEY")),
    "cometapi": ("COMETAPI_KEY",),
    "compactifai": ("COMPACTIFAI_API_KEY",),
    "datarobot": ("DATAROBOT_API_TOKEN",),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "minimax": ("MINIMAX_API_KEY",),
    "nadir": ("NADIR_API_KEY",),
    "nlp_cloud": ("NLP_CLOUD_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY", "OR_API_KEY"),
    "replicate": ("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"),
    "snowflake": ("SNOWFLAKE_JWT",),
}
"""The variables that litellm reads where what it says of them is less, or nothing."""
ITS_ADDRESSES = {"huggingface": ("HF_API_BASE", "HUGGINGFACE_API_BASE"), "datarobot": ("DATAROBOT_ENDPOINT",)}
"""The variables with an address, where they are not called by the provider: a server of one's own may need no key."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider whose dialect is OpenAI's.

    Attributes:
        prefix: The beginning of its names.
        key: The variable of the environment with its key; None for none.
        addresses: The variables of the environment with its address, the first one that is set counts.
        url: Its address where none is set; empty where only litellm knows it.
        version: The end that its addresses have, and that is added where it is missing.
        free: Whether a call costs nothing where no price is given.
    """

    prefix: str
    key: str | None
    addresses: tuple[str, ...] = ()
    url: str = ""
    version: str = ""
    free: bool = False

    def bare(self, model: str) -> str:
        """The model's name on its server."""
        return model.removeprefix(f"{self.prefix}/")

    def address(self, base_url: str | None) -> str:
        """The address for requests: the one that is given, else the environment's, else its own."""
        if base_url is not None:
            named = base_url
        else:
            named = next(filter(None, (os.environ.get(name, "").strip() for name in self.addresses)), self.url)
            named = _completed(named, self.url) if self.version else named
        named = named.rstrip("/")
        return f"{named}{self.version}" if self.version and not named.endswith(self.version) else named


def _completed(host: str, usual: str) -> str:
    """The address of a host as OLLAMA_HOST names it, perhaps without scheme or port, or with that of all interfaces."""
    if "://" not in host:
        host = f"http://{host}"
        if host.startswith("http://:"):
            host = host.replace("http://:", "http://127.0.0.1:", 1)
        if ":" not in host.removeprefix("http://").rpartition("]")[2]:
            host = f"{host}:{usual.rpartition(':')[2]}"
    return host.replace("://0.0.0.0", "://127.0.0.1", 1)


_OLLAMA = (None, ("OLLAMA_API_BASE", "OLLAMA_HOST"), "http://127.0.0.1:11434", "/v1", True)
_HERE = {
    made.prefix: made
    for made in (
        Provider("openai", "OPENAI_API_KEY", ("OPENAI_BASE_URL", "OPENAI_API_BASE"), OPENAI_URL),
        Provider("hosted_vllm", "HOSTED_VLLM_API_KEY", ("HOSTED_VLLM_API_BASE",), "http://127.0.0.1:8000/v1"),
        Provider("ollama", *_OLLAMA),
        Provider("ollama_chat", *_OLLAMA),
    )
}
"""Those that go over our HTTP with or without an address."""

_AT_AN_ADDRESS = {
    prefix: Provider(prefix, f"{prefix.upper()}_API_KEY")
    for prefix in (
        "cerebras",
        "dashscope",
        "deepinfra",
        "deepseek",
        "groq",
        "litellm_proxy",
        "llamafile",
        "lm_studio",
        "mistral",
        "moonshot",
        "nebius",
        "novita",
        "nvidia_nim",
        "openrouter",
        "sambanova",
        "vllm",
        "xai",
    )
} | {
    "fireworks_ai": Provider("fireworks_ai", "FIREWORKS_API_KEY"),
    "together_ai": Provider("together_ai", "TOGETHERAI_API_KEY"),
    "perplexity": Provider("perplexity", "PERPLEXITYAI_API_KEY"),
    "openai_like": Provider("openai_like", "OPENAI_LIKE_API_KEY"),
    "custom_openai": Provider("custom_openai", "OPENAI_API_KEY"),
}
"""Those that do so at an address that is given; litellm knows their own."""


def heard(model: str, address: str) -> str:
    """An address that litellm sends to for a model.

    Raises:
        ValueError: It would send to the provider, whatever address is given.
    """
    provider = model.partition("/")[0]
    if provider in DEAF:
        raise ValueError(
            f"litellm sends what is for {provider}/... to that provider whatever base_url= says, so it is refused: "
            "leave it out, or, for a server that speaks OpenAI's dialect, pass dialect='openai'"
        )
    return address


def own_address(provider: str, address: str | None) -> str | None:
    """An address of a provider with a dialect of its own as litellm completes it; None to leave it to litellm.

    litellm adds "/v1/messages" for Anthropic, "/models/..." for Gemini and nothing for Cohere, whatever an
    address ends with. People write it with or without the version, as the provider's own libraries and others want it.
    """
    if provider.startswith("claude"):
        provider = "anthropic"
    if address is None and provider == "anthropic":
        names = ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL")
        address = next(filter(None, (os.environ.get(name, "").strip() for name in names)), None)
    if address is None:
        return None
    bare = address.rstrip("/")
    parts = urlsplit(bare)
    if provider == "anthropic":
        return bare.removesuffix("/v1")
    if provider == "gemini" and parts.hostname == "generativelanguage.googleapis.com" and not parts.path:
        return f"{bare}/v1beta"
    if provider in ("cohere", "cohere_chat") and not bare.endswith("/chat"):
        return f"{bare}/chat" if bare.endswith(("/v1", "/v2")) else f"{bare}/v2/chat"
    return address


def provider_of(model: str, base_url: str | None) -> Provider | None:
    """The provider that a name begins with, if requests go over our HTTP; None for a bare name, or for litellm's."""
    prefix, slash, _ = model.partition("/")
    if not slash:
        return None
    found = _HERE.get(prefix)
    if found is None and base_url is not None:
        found = _AT_AN_ADDRESS.get(prefix)
        if found is not None and prefix != "openrouter" and urlsplit(base_url).hostname == "openrouter.ai":
            return None  # there the prefix is part of the name
    return found


def known_prefixes() -> frozenset[str]:
    """The providers that are known by name."""
    return OWN_DIALECT | _HERE.keys() | _AT_AN_ADDRESS.keys()
