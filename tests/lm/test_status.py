"""The wordings are those of the providers' documentation and of public reports."""

import json

import pytest

from promptgrad.errors import (
    AuthenticationError,
    BadRequestError,
    BillingError,
    ContentFilterError,
    ContextWindowError,
    LMStatusError,
    OverloadedError,
    RateLimitError,
    ServerTimeoutError,
)
from promptgrad.lm._retry_after import read_retry_after, said_wait
from promptgrad.lm._status import is_error, read_fault

AUTH, BILLING, RATE, CONTEXT = AuthenticationError, BillingError, RateLimitError, ContextWindowError
FILTER, TIMEOUT, OVERLOAD, BAD, OTHER = (
    ContentFilterError,
    ServerTimeoutError,
    OverloadedError,
    BadRequestError,
    LMStatusError,
)


def openai(message, kind="invalid_request_error", code=None, param=None):
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic(kind, message):
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def gemini(code, status, message, *details):
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "21s"}


def quota(name):
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": name}]}


CASES = {
    # a fourth reading, of gateways and of those who resell
    "jwt": (400, {"error": "JWT expired at 2026-01-01T00:00:00Z"}, AUTH),
    "signature": (400, openai("Signature has expired", ""), AUTH),
    "header": (400, {"error": "Malformed Authorization header"}, AUTH),
    "esri": (498, {"error": "Invalid Token"}, AUTH),
    "allow list": (403, "Forbidden: IP 10.0.0.1 is not in the allow list", AUTH),
    "negative balance": (403, openai("Your account balance is negative", ""), BILLING),
    "prepaid": (429, openai("Prepaid balance too low", ""), BILLING),
    "hard limit": (429, openai("Hard limit reached. Increase your limit in the billing console", ""), BILLING),
    "monthly quota": (429, openai("You have reached your monthly quota of tokens", ""), BILLING),
    "payment method": (400, openai("Payment method declined", ""), BILLING),
    "trial": (403, openai("Trial expired", ""), BILLING),
    "subscription inactive": (403, {"message": "subscription inactive"}, BILLING),
    "litellm budget": (
        429,
        openai("Budget has been exceeded! Current cost: 10.1, Max: 10.0", "budget_exceeded"),
        BILLING,
    ),
    "litellm user": (400, openai("ExceededBudget: User over budget", ""), BILLING),
    "calm": (420, "Enhance your calm", RATE),
    "throttled wait": (429, openai("Request was throttled. Expected available in 8 seconds.", ""), RATE),
    "8k": (400, {"error": "This model only supports 8k tokens of input"}, CONTEXT),
    "is so many": (400, {"error": "Your input is 9001 tokens, the limit is 8192"}, CONTEXT),
    "token length": (400, {"error": "Total message token length exceed model limit"}, CONTEXT),
    "prompt tokens limit": (400, {"error": "prompt tokens limit exceeded: 250000 > 200000"}, CONTEXT),
    "too much of output": (
        400,
        {"error": "max_tokens: 100000 > 64000, the maximum allowed number of output tokens"},
        BAD,
    ),
    "too many images": (400, {"error": "too many images: 30 > 20"}, BAD),
    "sensitive": (400, openai("prompt contains sensitive words", ""), FILTER),
    "blocked": (200, {"error": {"message": "SAFETY", "status": "BLOCKED"}}, FILTER),
    "a parameter called billing": (400, openai("unknown field: billing_id", ""), BAD),
    "a parameter called context": (400, openai("Invalid schema for response_format: context", ""), BAD),
    "cloudflare": (520, "error code: 520", OTHER),
    "envoy": (503, "upstream connect error or disconnect/reset before headers", OVERLOAD),
    # a third reading
    "gateway supports": (400, openai("The prompt is 5000 tokens but the model only supports 4096"), CONTEXT),
    "images and text": (400, openai("Total tokens of image and text exceed max message tokens"), CONTEXT),
    "more than allowed": (400, openai("tokens in request more than max tokens allowed: 130000 > 128000"), CONTEXT),
    "sequence": (400, openai("input is longer than max_seq_len"), CONTEXT),
    "total": (400, openai("max_total_tokens exceeded: sequence has 9000 tokens"), CONTEXT),
    "of the model": (400, openai("Sequence length exceeds model's context: 9000"), CONTEXT),
    "zhipu length": (400, {"error": {"code": "1261", "message": "输入长度超过模型最大长度限制"}}, CONTEXT),
    "max_tokens of a request": (400, openai("Invalid max_tokens value, the valid range is [1, 8192]"), BAD),
    "free tier": (
        403,
        openai("The free tier of the model has been exhausted.", code="AllocationQuota.FreeTierOnly"),
        BILLING,
    ),
    "week": (429, openai("Weekly limit reached for your plan.", "usage_limit_reached"), BILLING),
    "rate as 403": (403, {"error": {"message": "Rate limit exceeded for free models.", "code": 403}}, RATE),
    "token": (400, {"message": "invalid api token"}, AUTH),
    "zhipu content": (400, {"error": {"code": "1301", "message": "输入或生成内容可能包含不安全或敏感内容"}}, FILTER),
    "xai safety": (403, {"code": "No permission", "error": "Content violates usage guidelines."}, FILTER),
    "a parameter called timeout": (400, openai("The timeout parameter must be an integer", ""), BAD),
    "a parameter called rate_limit": (400, openai("Invalid value for 'rate_limit'", ""), BAD),
    # a second reading of documentation and reports
    "azure no capacity": (
        429,
        {"error": {"code": "NoCapacity", "message": "The system is currently experiencing high demand."}},
        OVERLOAD,
    ),
    "anthropic disabled": (400, anthropic("invalid_request_error", "This organization has been disabled."), AUTH),
    "groq restricted": (
        400,
        openai("Organization has been restricted. Please reach out to support.", code="organization_restricted"),
        AUTH,
    ),
    "gemini no free tier": (
        400,
        gemini(400, "FAILED_PRECONDITION", "The free tier is not available in your country. Please enable billing."),
        BILLING,
    ),
    "gemini cancelled": (499, gemini(499, "CANCELLED", "The operation was cancelled."), OTHER),
    "bedrock model error": (
        424,
        {"__type": "ModelErrorException", "message": "The system encountered an unexpected error. Try again."},
        OTHER,
    ),
    "boto3 access": (
        0,
        "An error occurred (AccessDeniedException) when calling the InvokeModel operation: Access is denied.",
        AUTH,
    ),
    "boto3 not ready": (0, "An error occurred (ModelNotReadyException) when calling Converse: Wait.", OVERLOAD),
    "openrouter key limit": (403, {"error": {"message": "Key limit exceeded (total limit).", "code": 403}}, BILLING),
    "llama.cpp batch": (
        500,
        {"error": {"code": 500, "message": "input is too large to process. increase the physical batch size"}},
        CONTEXT,
    ),
    "ollama subscription": (
        403,
        {"error": "this model requires a subscription, upgrade for access: https://x"},
        BILLING,
    ),
    "tgi out of memory": (
        424,
        {"error": "Request failed during generation: CUDA out of memory", "error_type": "generation"},
        OTHER,
    ),
    "lm studio keeps": (400, {"error": "Cannot truncate prompt with n_keep (15028) >= n_ctx (7424)"}, CONTEXT),
    "lm studio does not load": (
        400,
        {"error": "Failed to load model. Error: Model loading aborted due to insufficient system resources."},
        BAD,
    ),
    "lm studio endpoint": (200, {"error": "Unexpected endpoint or method. Returning 200 anyway"}, BAD),
    # OpenAI and Azure
    "openai key": (
        401,
        openai("Incorrect API key provided: sk-1. You can find your API key at", code="invalid_api_key"),
        AUTH,
    ),
    "openai region": (
        403,
        openai("Country, region, or territory not supported", "request_forbidden", "unsupported_country"),
        AUTH,
    ),
    "openai quota": (
        429,
        openai(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
        BILLING,
    ),
    "openai hard limit": (
        400,
        openai("Billing hard limit has been reached", code="billing_hard_limit_reached"),
        BILLING,
    ),
    "openai inactive": (
        429,
        openai("Your account is not active, please check your billing details", "billing_not_active"),
        BILLING,
    ),
    "openai rate": (
        429,
        openai(
            "Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Used 29000, "
            "Requested 1500. Please try again in 1s.",
            "tokens",
            "rate_limit_exceeded",
        ),
        RATE,
    ),
    "openai too large": (
        429,
        openai(
            "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 35000. "
            "The input or output tokens must be reduced in order to run successfully.",
            "tokens",
            "rate_limit_exceeded",
        ),
        CONTEXT,
    ),
    "openai context": (
        400,
        openai(
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 8545 tokens. "
            "Please reduce the length of the messages.",
            code="context_length_exceeded",
        ),
        CONTEXT,
    ),
    "openai window": (
        400,
        openai("Your input exceeds the context window of this model. Please adjust your input and try again."),
        CONTEXT,
    ),
    "openai array": (
        400,
        openai("Array too long. Expected an array with maximum length 4, but got 5.", code="array_above_max_length"),
        BAD,
    ),
    "anthropic rate of long prompts": (
        429,
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "This request would exceed your organization's rate limit of 50,000 input tokens per "
                "minute. Please reduce the prompt length or the maximum tokens requested, or try again later.",
            },
        },
        RATE,
    ),
    "cohere size": (
        400,
        {"message": "too many tokens: size limit exceeded by 1000 tokens. Try using shorter or fewer inputs."},
        CONTEXT,
    ),
    "over the limit": (400, openai("The number of tokens in the prompt, 5001, is over the limit of 4096"), CONTEXT),
    "beyond the model": (
        400,
        openai("The total number of tokens (input + output) is greater than the model's limit of 8192"),
        CONTEXT,
    ),
    "minimax balance": (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, BILLING),
    "spend cap": (403, openai("Your project has exceeded its spend cap"), BILLING),
    "unpaid": (403, openai("Your account has an unpaid invoice"), BILLING),
    "classifier": (400, openai("The request was refused by the safety classifier"), FILTER),
    "no key in a client": (400, openai("The api_key client option must be set either by passing api_key or"), AUTH),
    "openai string": (
        400,
        openai(
            "Invalid 'messages[1].content': string too long. Expected a string with maximum length 1048576.",
            code="string_above_max_length",
        ),
        CONTEXT,
    ),
    "openai flagged": (
        400,
        openai(
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy.", code="invalid_prompt"
        ),
        FILTER,
    ),
    "openai overloaded": (
        503,
        openai("That model is currently overloaded with other requests.", "server_error"),
        OVERLOAD,
    ),
    "openai server": (500, openai("The server had an error processing your request.", "server_error"), OTHER),
    "openai model": (
        404,
        openai("The model `gpt-9` does not exist or you do not have access to it.", code="model_not_found"),
        BAD,
    ),
    "openai value": (
        400,
        openai("Invalid 'temperature': decimal above maximum value.", code="decimal_above_max_value"),
        BAD,
    ),
    "azure filter": (
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management "
                "policy. Please modify your prompt and retry.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        FILTER,
    ),
    "azure rate": (
        429,
        {
            "error": {
                "code": "429",
                "message": "Requests to the API have exceeded call rate limit. Please retry after 9 seconds.",
            }
        },
        RATE,
    ),
    # Anthropic
    "anthropic key": (401, anthropic("authentication_error", "invalid x-api-key"), AUTH),
    "anthropic permission": (
        403,
        anthropic("permission_error", "Your API key does not have permission to use the specified resource."),
        AUTH,
    ),
    "anthropic credit": (
        400,
        anthropic(
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.",
        ),
        BILLING,
    ),
    "anthropic limits": (
        400,
        anthropic(
            "invalid_request_error",
            "You have reached your specified API usage limits. You will regain access on 2026-01-01.",
        ),
        BILLING,
    ),
    "anthropic rate": (
        429,
        anthropic(
            "rate_limit_error", "This request would exceed your organization's rate limit of 50 requests per minute."
        ),
        RATE,
    ),
    "anthropic overload": (529, anthropic("overloaded_error", "Overloaded"), OVERLOAD),
    "anthropic overload in 200": (200, anthropic("overloaded_error", "Overloaded"), OVERLOAD),
    "anthropic context": (
        400,
        anthropic("invalid_request_error", "prompt is too long: 207889 tokens > 200000 maximum"),
        CONTEXT,
    ),
    "anthropic both": (
        400,
        anthropic(
            "invalid_request_error", "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000"
        ),
        CONTEXT,
    ),
    "anthropic size": (413, anthropic("request_too_large", "Request exceeds the maximum size"), CONTEXT),
    "anthropic filter": (
        400,
        anthropic("invalid_request_error", "Output blocked by content filtering policy"),
        FILTER,
    ),
    "anthropic timeout": (504, anthropic("timeout_error", "The request timed out"), TIMEOUT),
    "anthropic request": (
        400,
        anthropic("invalid_request_error", "messages: text content blocks must be non-empty"),
        BAD,
    ),
    # Gemini
    "gemini key": (400, gemini(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), AUTH),
    "gemini permission": (403, gemini(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers."), AUTH),
    "gemini rate": (
        429,
        gemini(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your plan and billing details. Please retry in 21.5s.",
            quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),
            RETRY_INFO,
        ),
        RATE,
    ),
    "gemini day": (
        429,
        gemini(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your plan and billing details.",
            quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        ),
        BILLING,
    ),
    "gemini list": (429, [gemini(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")], RATE),
    "gemini overload": (503, gemini(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), OVERLOAD),
    "gemini deadline": (
        504,
        gemini(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
        TIMEOUT,
    ),
    "gemini context": (
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
        ),
        CONTEXT,
    ),
    "gemini filter": (200, gemini(400, "INVALID_ARGUMENT", "The prompt was blocked: PROHIBITED_CONTENT"), FILTER),
    # Bedrock
    "bedrock key": (403, {"message": "The security token included in the request is invalid."}, AUTH),
    "bedrock access": (
        400,
        {"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "You don't have access to the model."},
        AUTH,
    ),
    "bedrock throttled": (429, {"message": "Too many requests, please wait before trying again."}, RATE),
    "bedrock tokens": (429, {"message": "Too many tokens, please wait before trying again."}, RATE),
    "bedrock throttled by type": (
        400,
        {"__type": "ThrottlingException", "message": "Too many tokens, please wait before trying again."},
        RATE,
    ),
    "bedrock context": (400, {"message": "Input is too long for requested model."}, CONTEXT),
    "bedrock length": (
        400,
        {"message": "Malformed input request: expected maxLength: 2048, actual: 9000, please reformat your input"},
        CONTEXT,
    ),
    "bedrock guardrail": (400, {"message": "The guardrail intervened and blocked the request."}, FILTER),
    "bedrock timeout": (408, {"__type": "ModelTimeoutException", "message": "Model took too long"}, TIMEOUT),
    "bedrock loading": (
        429,
        {"__type": "ModelNotReadyException", "message": "Model is not ready for inference."},
        OVERLOAD,
    ),
    "bedrock request": (
        400,
        {"__type": "ValidationException", "message": "The provided model identifier is invalid."},
        BAD,
    ),
    # Mistral
    "mistral key": (401, {"detail": "Unauthorized"}, AUTH),
    "mistral rate": (429, {"message": "Requests rate limit exceeded", "type": "rate_limited", "code": "1300"}, RATE),
    "mistral capacity": (
        429,
        {"object": "error", "message": "Service tier capacity exceeded for this model.", "code": "3505"},
        OVERLOAD,
    ),
    "mistral context": (
        400,
        {
            "object": "error",
            "message": "Prompt contains 40062 tokens and 0 draft tokens, too large for model with 32768 maximum "
            "context length",
            "type": "invalid_request_error",
        },
        CONTEXT,
    ),
    "mistral fields": (
        422,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
        BAD,
    ),
    # Groq
    "groq rate": (
        429,
        openai(
            "Rate limit reached for model `llama` on tokens per minute (TPM): Limit 6000, Used 5800, Requested 900. "
            "Please try again in 7.66s. Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings",
            "tokens",
            "rate_limit_exceeded",
        ),
        RATE,
    ),
    "groq large": (
        413,
        openai(
            "Request too large for model `llama` on tokens per minute (TPM): Limit 6000, Requested 9000, please reduce "
            "your message size and try again.",
            "tokens",
            "rate_limit_exceeded",
        ),
        CONTEXT,
    ),
    "groq context": (
        400,
        openai("Please reduce the length of the messages or completion.", code="context_length_exceeded"),
        CONTEXT,
    ),
    "groq capacity": (498, openai("Flex tier capacity exceeded", "capacity_exceeded", "capacity_exceeded"), OVERLOAD),
    "groq over capacity": (
        503,
        openai("llama is currently over capacity. Please try again", "internal_server_error"),
        OVERLOAD,
    ),
    # OpenRouter
    "openrouter key": (200, {"error": {"code": 401, "message": "No auth credentials found"}}, AUTH),
    "openrouter credit": (402, {"error": {"code": 402, "message": "Insufficient credits. Add more using"}}, BILLING),
    "openrouter credit in 200": (
        200,
        {"error": {"code": 402, "message": "This request requires more credits, or fewer max_tokens."}},
        BILLING,
    ),
    "openrouter flagged": (
        403,
        {
            "error": {
                "code": 403,
                "message": "anthropic/claude requires moderation. Your input was flagged for violence",
                "metadata": {"reasons": ["violence"], "flagged_input": "my api key is invalid"},
            }
        },
        FILTER,
    ),
    "openrouter upstream": (
        429,
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {"raw": "deepseek is temporarily rate-limited upstream. Please retry shortly"},
            }
        },
        RATE,
    ),
    "openrouter context": (
        400,
        {
            "error": {
                "code": 400,
                "message": "This endpoint's maximum context length is 1048576 tokens. However, you requested about "
                "1293741 tokens.",
            }
        },
        CONTEXT,
    ),
    "openrouter raw": (
        400,
        {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {"raw": json.dumps(anthropic("invalid_request_error", "prompt is too long: 9 tokens > 8"))},
            }
        },
        CONTEXT,
    ),
    "openrouter choice": (
        200,
        {
            "choices": [
                {
                    "error": {"code": 502, "message": "Provider disconnected"},
                    "finish_reason": "error",
                    "message": {"role": "assistant", "content": ""},
                }
            ]
        },
        OTHER,
    ),
    # vLLM
    "vllm context": (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        CONTEXT,
    ),
    "vllm room": (
        400,
        {
            "object": "error",
            "message": "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context "
            "length is 4096 tokens and your request has 2104 input tokens (2000 > 4096 - 2104).",
            "type": "BadRequestError",
            "code": 400,
        },
        CONTEXT,
    ),
    "vllm prompt": (
        400,
        {
            "object": "error",
            "message": "The decoder prompt (length 5120) is longer than the maximum model length of 4096.",
        },
        CONTEXT,
    ),
    "vllm model": (
        404,
        {"object": "error", "message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404},
        BAD,
    ),
    "vllm key": (401, {"error": "Unauthorized"}, AUTH),
    # llama.cpp
    "llama.cpp context": (
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 1407,
                "n_ctx": 256,
            }
        },
        CONTEXT,
    ),
    "llama.cpp context as 500": (
        500,
        {"error": {"code": 500, "message": "the request exceeds the available context size.", "type": "server_error"}},
        CONTEXT,
    ),
    "llama.cpp loading": (
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        OVERLOAD,
    ),
    "llama.cpp key": (
        401,
        {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}},
        AUTH,
    ),
    # Ollama
    "ollama model": (404, {"error": 'model "llama9" not found, try pulling it first'}, BAD),
    "ollama busy": (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, OVERLOAD),
    "ollama context": (400, {"error": "the input length exceeds the context length"}, CONTEXT),
    # TGI
    "tgi context": (
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3474 `inputs` "
            "tokens and 60 `max_new_tokens`",
            "error_type": "validation",
        },
        CONTEXT,
    ),
    "tgi overload": (429, {"error": "Model is overloaded", "error_type": "overloaded"}, OVERLOAD),
    "tgi loading": (503, {"error": "Model org/m is currently loading", "estimated_time": 20.0}, OVERLOAD),
    # LM Studio
    "lm studio context": (
        400,
        {
            "error": "Trying to keep the first 15857 tokens when context the overflows. However, the model is loaded "
            "with context length of only 4096 tokens, which is not enough."
        },
        CONTEXT,
    ),
    "lm studio context in 200": (200, {"error": "Context size has been exceeded."}, CONTEXT),
    "lm studio model": (
        404,
        openai("No models loaded. Please load a model in the developer page.", code="model_not_found"),
        BAD,
    ),
    # others
    "deepseek balance": (402, openai("Insufficient Balance", "unknown_error"), BILLING),
    "deepseek filter": (400, openai("Content Exists Risk"), FILTER),
    "kimi context": (400, openai("Invalid request: Your request exceeded model token limit: 8192"), CONTEXT),
    "qwen context": (
        400,
        openai("Range of input length should be [1, 30720]", code="invalid_parameter_error"),
        CONTEXT,
    ),
    "qwen filter": (
        400,
        openai("Input data may contain inappropriate content.", code="data_inspection_failed"),
        FILTER,
    ),
    "cohere context": (
        400,
        {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081"},
        CONTEXT,
    ),
    "hf credits": (402, {"error": "You have exceeded your monthly included credits for Inference Providers."}, BILLING),
    "xai credits": (
        403,
        {"code": "?", "error": "Your team doesn't have any credits yet. You can purchase them"},
        BILLING,
    ),
    "xai key": (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: x"}, AUTH),
    "together credits": (402, openai("Credit limit exceeded", "credit_limit"), BILLING),
    "fireworks": (
        412,
        {"error": "Account a is suspended, possibly due to reaching the monthly spending limit"},
        BILLING,
    ),
    "zhipu": (429, {"error": {"code": "1113", "message": "\u4f59\u989d\u4e0d\u8db3"}}, BILLING),
    "kimi suspended": (
        429,
        openai("Your account is suspended, please check your plan and billing details", "exceeded_current_quota_error"),
        BILLING,
    ),
    "cerebras": (429, {"message": "Tokens per minute limit exceeded - too many tokens processed."}, RATE),
    "azure tokens": (
        429,
        {
            "error": {
                "code": "429",
                "message": "Requests have exceeded token rate limit. Please retry after 20 seconds.",
            }
        },
        RATE,
    ),
    "anthropic tokens": (
        429,
        anthropic("rate_limit_error", "This request would exceed the rate limit of 40,000 input tokens per minute"),
        RATE,
    ),
    "openrouter day": (
        429,
        {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000"}},
        RATE,
    ),
    "openai engine": (429, openai("The engine is currently overloaded, please try again later"), OVERLOAD),
    "openai output": (400, openai("max_tokens is too large: 100000. This model supports at most 16384"), BAD),
    "gemini place": (400, gemini(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), BAD),
    "gemini credits": (429, gemini(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), BILLING),
    "vertex": (429, gemini(429, "RESOURCE_EXHAUSTED", "Quota exceeded for aiplatform.googleapis.com/x"), RATE),
    "ollama memory": (500, {"error": "model requires more system memory (5.6 GiB) than is available (3.0 GiB)"}, BAD),
    "ollama crash": (500, {"error": "llama runner process has terminated: exit status 2"}, OTHER),
    "tgi template": (
        422,
        {"error": "Template error: Conversation roles must alternate", "error_type": "template_error"},
        BAD,
    ),
    "copilot length": (
        400,
        openai("prompt token count of 140000 exceeds the limit of 128000", code="model_max_prompt_tokens_exceeded"),
        CONTEXT,
    ),
    "gemini without billing": (
        403,
        gemini(403, "PERMISSION_DENIED", "This API method requires billing to be enabled. Please enable billing on x"),
        BILLING,
    ),
    "bedrock payment": (403, {"message": "INVALID_PAYMENT_INSTRUMENT: A valid payment must be provided."}, BILLING),
    "token of a login": (400, openai("Your authentication token is invalid.", code="x"), AUTH),
    "code and msg in 200": (200, {"code": 401, "msg": "token invalid"}, AUTH),
    "error_code in 200": (200, {"error_code": 429, "error_msg": "slow down"}, RATE),
    "success in 200": (200, {"success": False, "message": "Insufficient balance", "code": 402}, BILLING),
    # nothing but a status
    "a page": (502, "<html><h1>502 Bad Gateway</h1> rate limit, api key is invalid</html>", OTHER),
    "a page of 429": (429, "<html>slow down</html>", RATE),
    "empty 403": (403, "", AUTH),
    "empty 413": (413, "", CONTEXT),
    "empty 500": (500, "", OTHER),
    "empty 404": (404, "", BAD),
    "empty 405": (405, "", BAD),
    "empty 409": (409, "", OTHER),
    "empty 524": (524, "", TIMEOUT),
    "plain": (429, "Too Many Requests", RATE),
}


@pytest.mark.parametrize("name", CASES)
def test_every_wording_has_its_meaning(name):
    status, body, kind = CASES[name]
    assert read_fault(status, body if isinstance(body, str) else json.dumps(body)).kind is kind


def test_what_a_server_broke_off_itself_may_pass():
    assert all(LMStatusError("x", status=status).transient for status in (424, 499, 500))
    assert not LMStatusError("x", status=418).transient


def test_amazon_names_the_error_in_a_header():
    headers = {"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/"}
    assert read_fault(400, '{"message": "slow"}', headers).kind is RATE
    assert read_fault(400, '{"message": "slow"}', {"x-amzn-errortype": "ValidationException"}).kind is BAD


def test_a_body_names_the_status_that_its_answer_lacks():
    assert read_fault(200, '{"error": {"code": 429, "message": "?"}}').status == 429
    assert read_fault(200, '{"error": {"code": "503", "message": "?"}}').status == 503
    assert read_fault(200, '{"error": {"code": 1300, "message": "?"}}').status == 0
    assert read_fault(400, '{"error": {"code": 503, "message": "?"}}').status == 400


def test_what_was_sent_or_generated_is_not_read_as_the_error():
    body = openai("Failed to parse", code="bad")
    body["error"]["failed_generation"] = "your api key is invalid, rate limit, content filter"
    body["error"]["messages"] = [{"content": "maximum context length"}]
    assert read_fault(400, json.dumps(body)).kind is BAD


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"error":' * 50_000, "{" * 9, "\ud83d", "null", "3", '{"error": null}']
)
def test_any_body_can_be_read(body):
    assert read_fault(500, body).kind is OTHER


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 1s.", 1),
        ("Please try again in 6m0s.", 360),
        ("Please try again in 1h2m3.5s", 3723.5),
        ("Please try again in 856ms.", 0.856),
        ("Please retry in 21.5s.", 21.5),
        ("Please retry after 9 seconds.", 9),
        ("try again in 2 minutes", 120),
        ('{"retryDelay": "21s"}', 21),
        ("please wait before trying again", None),
        ("try again in a while", None),
        ("Too many requests: wait 30 seconds", 30),
        ("Please wait for 1 hr", 3600),
        ("Our support is available 24 hours a day. Please retry in 5s.", 5),
        ("You may retry 2 http requests", None),
        ("", None),
    ],
)
def test_a_wait_that_is_said_in_words(text, seconds):
    assert said_wait(text) == seconds


def test_the_header_counts_before_the_words():
    body = json.dumps(openai("Please try again in 9s", code="rate_limit_exceeded"))
    assert read_fault(429, body, {"Retry-After": "2"}).retry_after == 2
    assert read_fault(429, body).retry_after == 9


@pytest.mark.parametrize("value", ["nan", "soon", "", "Mon, 99 Foo", "Thu, 01 Jan 99999 00:00:00 GMT"])
def test_a_header_that_is_no_wait(value):
    assert read_retry_after({"Retry-After": value}) is None


def test_an_error_in_a_body_of_200():
    assert is_error({"error": {"message": "?"}})
    assert is_error({"object": "error", "message": "?"})
    assert is_error(anthropic("overloaded_error", "Overloaded"))
    assert is_error({"choices": [{"error": {"code": 502}, "message": {"content": ""}}]})
    assert not is_error({"choices": [{"message": {"content": "x"}}], "error": None})
    assert not is_error({"choices": [{"error": {"code": 502}, "message": {"content": "x"}}]})
    assert not is_error({"choices": []})
