"""`read_fault`: what a server's error means, by one table for all providers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from promptgrad._patterns import late_pattern
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

READ = 8_000
"""Most characters of an error's text that are looked at."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The meaning of an error.

    Attributes:
        kind: The class of the error; `LMStatusError` itself where nothing says what it means.
        status: The HTTP status, or the one that the body names; 0 where there is none.
        retry_after: Seconds that the server asks to wait, in a header or in words.
    """

    kind: type[LMStatusError]
    status: int
    retry_after: float | None = None


_CODES: dict[type[LMStatusError], str] = {
    ContextWindowError: "context_length_exceeded exceed_context_size_error model_context_window_exceeded "
    "string_above_max_length request_too_large tokens_limit_reached context_window_exceeded",
    BillingError: "insufficient_quota billing_hard_limit_reached billing_not_active billing_error insufficient_credits "
    "insufficient_balance insufficient_funds payment_required arrearage credit_limit_exceeded quota_exhausted "
    "usage_limit_reached budget_exceeded exceededbudget",
    ContentFilterError: "content_filter content_policy_violation responsibleaipolicyviolation content_blocked "
    "prohibited_content data_inspection_failed datainspectionfailed moderation_blocked content_filtered invalid_prompt "
    "content_moderation_error guardrail_intervened safety blocked blocklist spii recitation image_safety",
    AuthenticationError: "invalid_api_key authentication_error permission_error permission_denied unauthenticated "
    "unauthorized accessdenied accessdeniedexception unrecognizedclientexception expiredtokenexception expired_token "
    "invalidsignatureexception missingauthenticationtoken missing_api_key api_key_invalid account_deactivated "
    "invalid_authentication access_terminated_error organization_restricted token_invalidated",
    ServerTimeoutError: "timeout timeout_error deadline_exceeded modeltimeoutexception request_timeout gatewaytimeout",
    OverloadedError: "overloaded overloaded_error unavailable unavailable_error service_unavailable "
    "service_unavailable_error serviceunavailable serviceunavailableexception modelnotreadyexception engine_overloaded "
    "engine_overloaded_error capacity_exceeded nocapacity over_capacity model_overloaded server_overloaded",
    RateLimitError: "rate_limit_exceeded rate_limit_error rate_limited ratelimiterror resource_exhausted throttling "
    "throttlingexception throttled too_many_requests toomanyrequestsexception servicequotaexceededexception "
    "rate_limit_reached_error rate_limit",
    BadRequestError: "invalid_request_error invalid_request invalid_argument validationexception validation "
    "validation_error badrequesterror bad_request not_found not_found_error notfounderror model_not_found "
    "resourcenotfoundexception unsupported_value unsupported_parameter unknown_parameter invalid_value "
    "unprocessable_entity failed_precondition",
}
"""What the codes and types in a body mean."""

_WORDS: dict[type[LMStatusError], str] = {
    ContextWindowError: r"""
        (?<!with\ )maximum\ (?:model\ |prompt\ |input\ )?(?:context|length)\b | maximum\ (?:prompt|input)\ length
        | (?:exceed|overflow|larger|longer|greater|more)\w*\b.{0,80}\bcontext[\ _](?:length|window|size|limit)
        | context[\ _](?:length|window|size|limit).{0,40}(?:exceed|overflow|too\ (?:small|long))
        | context\ the\ overflows | tokens?\ exceeds?\ the\ (?:model|maximum|limit|configured)
        | (?:prompt|inputs?|request|message|conversation|query)\ (?:is|are|was)?\ ?too\ long
        | exceeds?\ the\ maximum\ number\ of\ (?:input\ )?tokens | input\ token\ count.{0,40}exceed
        | too\ many\ (?:input\ |total\ )?tokens(?!.{0,40}\b(?:wait|per|try)) | too\ many\ tokens:\ size\ limit
        | tokens?\b.{0,60}\b(?:over|above|beyond|greater\ than|more\ than)\ the\ (?:model'?s?\ )?(?:limit|maximum)
        | exceed\w*\ (?:the\ )?(?:model\ )?token\ limit
        | tokens?\ limit\ exceeded | `?inputs`?\ tokens\ \+\ `?max_new_tokens | inputs`?\ must\ have\ less\ than
        | input\ length\ and\ `?max_tokens | trying\ to\ keep\ the\ first\ \d+\ tokens
        | reduce\ (?:the\ length\ of\ )?(?:the|your)\ (?:messages?|prompt|input|message\ size)
        | current\ length\ is\ \d+\ while\ limit | request\ too\ large\ for | tokens\ must\ be\ reduced
        | expected\ maxlength | range\ of\ input\ length | max_tokens\ must\ be\ at\ least\ 1,\ got\ -
        | too\ large\ for\ model | longer\ than\ the\ maximum\ model | (?:prompt|input)\ length.{0,40}exceed
        | input\ too\ long | input\ is\ too\ large\ to\ process | truncate\ prompt | n_keep.{0,40}n_ctx
        | (?:prompt|input)\ token\ count.{0,60}exceed
        | (?:exceed\w*|longer|more)\ (?:\w+\ ){0,2}max(?:imum)?[\ _](?:\w+[\ _])?(?:tokens|seq_len)
        | max_total_tokens\ exceed | exceed\w*\ (?:the\ )?model'?s?\ (?:\w+\ )?context | max_position_embeddings
        | tokens\ but\ the\ model\ (?:only\ )?supports | only\ supports?\ [\d.,]+k?\ tokens
        | (?:prompt|input|request|messages?)\ (?:is|are|has|have|contains?)\ [\d.,]+k?\ tokens
        | token\ length\ exceed
        | (?:\u8f93\u5165|\u4e0a\u4e0b\u6587).{0,12}(?:\u957f\u5ea6|\u8d85\u8fc7|\u8d85\u51fa)""",
    BillingError: r"""
        credit\ balance | insufficient\ (?:account\ )?(?:balance|credit|fund|quota) | exceeded\ your\ current\ quota
        | plan\ and\ billing | (?:any|more|purchase|enough)\ credits
        | payment\ required | out\ of\ (?:credits|funds) | purchased\ credits
        | credit\ limit | \u4f59\u989d\u4e0d\u8db3
        | spend(?:ing)?\ (?:limit|cap) | billing\ (?:hard\ |soft\ )?limit
        | billing\ (?:is\ not|account|details|to\ be\ enabled)
        | included\ credits | credits\ (?:are|have\ been)\ (?:depleted|exhausted|used) | api\ usage\ limits
        | enable\ billing | key\ limit\ exceeded | requires\ a\ (?:paid\ )?(?:subscription|plan) | upgrade\ for\ access
        | not\ active,\ please\ check\ your\ billing | top\ up | payment[\ _](?:instrument|method)
        | balance\ (?:is\ )?(?:negative|(?:too\ )?low|exhausted) | hard\ limit
        | (?:unpaid|overdue)\ (?:\w+\ )?(?:invoice|balance|bill) | (?:invoice|payment)\ (?:is\ )?(?:overdue|past\ due)
        | wallet\ is\ empty
        | trial\ (?:period\ )?(?:has\ |is\ )?(?:expired|ended|over) | over\ budget | budget\b.{0,20}\bexceeded
        | subscription\ (?:is\ |has\ )?(?:inactive|not\ active|expired|cancel)
        | free\ tier.{0,40}\b(?:exhausted|expired|used\ up) | (?:weekly|monthly)\ (?:usage\ )?(?:limit|quota)""",
    ContentFilterError: r"""
        content\ (?:management|policy|filter|moderation|safety) | content_filter | content\ exists\ risk
        | \bflagged\b | usage\ (?:polic|guideline)
        | safety\ (?:system|filter|guideline|polic|setting|reason|check|classifier)
        | blocked\ (?:by|due\ to|because|for)\b
        | (?:prompt|response|output|input|request|content)\ (?:was|is|has\ been)\ blocked
        | guardrail | \bmoderation\b | inappropriate\ content | prohibited\ (?:use|content)
        | sensitive\ (?:words?|content|information) | \u654f\u611f\u5185\u5bb9 | \u4e0d\u5b89\u5168""",
    AuthenticationError: r"""
        api[\ _-]?key\ .{0,20}must\ be\ set\b
        | api[\ _-]?key\ (?:is\ )?(?:not\ valid|invalid|missing|expired|not\ found|required|provided)
        | (?:invalid|incorrect|missing|expired|no|wrong)\ (?:\w+\ )?
          (?:api[\ _-]?(?:key|token)|credential|x-api-key|bearer|auth)
        | auth\w*\ token.{0,20}(?:invalid|expired) | (?:jwt|signature|token|session)\ (?:has\ |is\ )?expired
        | (?:malformed|missing|invalid)\ (?:\w+\ )?(?:authorization|bearer)
        | unauthori[sz]ed | not\ authori[sz]ed | authentication\ (?:fail|error|require)
        | security\ token.{0,40}(?:invalid|expired) | locate\ credentials | default\ credentials | access\ denied
        | organi[sz]ation\ (?:has\ been|is|was)\ (?:disabled|restricted|suspended|deactivated)
        | permission\ (?:denied|to) | not\ have\ permission""",
    ServerTimeoutError: r"""
        timed[\ -]out\b | time-?out\b(?!['"`]|\ (?:parameter|option|field|value|must|should|is\ not))
        | deadline\ (?:exceeded|expired) | took\ too\ long""",
    OverloadedError: r"""
        overload | (?:over|at|out\ of|exceeded)\ (?:full\ )?capacity | capacity\ exceeded
        | (?:insufficient|no|not\ enough)\ (?:available\ )?capacity
        | (?:server|service|model|engine)\ (?:is\ )?(?:currently\ |temporarily\ |still\ )?
          (?:busy|loading(?!\ abort)|unavailable|not\ ready)
        | (?:currently|temporarily|still)\ (?:unavailable|loading|starting) | loading\ model | high\ demand
        | queue\ (?:is\ )?full
        | pending\ requests | no\ (?:available\ )?(?:slot|worker|instance|server)""",
    RateLimitError: r"""
        rate[\ _-]?limit(?!\w*['"`]) | too\ many\ (?:requests|connections|concurrent|tokens) | throttl
        | quota\ (?:exceeded|exhausted) | exceeded.{0,20}\bquota | concurrency\ limit
        | (?:requests|tokens)\ per\ (?:second|minute|min|day|hour)""",
    BadRequestError: r"""
        (?:invalid|malformed|bad)\ (?:request|argument|json|parameter)
        | (?:unknown|unsupported)\ (?:parameter|value|model)
        | model\b.{0,80}\b(?:not\ found|does\ not\ exist|not\ exist|is\ not\ supported)
        | no\ (?:such\ )?models?\ (?:loaded|found) | unexpected\ endpoint | failed\ to\ load\ model
        | validation\ error | requires\ more\ system\ memory""",
}
"""What the words of a message mean, where no code says it. The order is that in which they are tried."""

_PATTERNS = {kind: late_pattern(words, re.VERBOSE | re.DOTALL) for kind, words in _WORDS.items()}
_MEANING = {code: kind for kind, codes in _CODES.items() for code in codes.split()}

_ALONE: dict[int, type[LMStatusError]] = {
    401: AuthenticationError,
    402: BillingError,
    403: AuthenticationError,
    407: AuthenticationError,
    408: ServerTimeoutError,
    413: ContextWindowError,
    420: RateLimitError,
    429: RateLimitError,
    451: ContentFilterError,
    498: AuthenticationError,
    503: OverloadedError,
    504: ServerTimeoutError,
    524: ServerTimeoutError,
    529: OverloadedError,
}
"""What a status means by itself."""

_BOUNDED: dict[int, frozenset[type[LMStatusError]]] = {
    401: frozenset({BillingError, AuthenticationError}),
    402: frozenset({BillingError}),
    403: frozenset({BillingError, ContentFilterError, AuthenticationError, RateLimitError}),
    404: frozenset({BadRequestError}),
    429: frozenset({BillingError, ContextWindowError, OverloadedError, RateLimitError}),
    503: frozenset({OverloadedError, RateLimitError}),
    529: frozenset({OverloadedError}),
}
"""What a body may make of a status that already says something; any other may mean anything."""


def read_fault(status: int, body: str, headers: Mapping[str, str] | None = None) -> Fault:
    """Return the meaning of an answer that is an error, or of an error object in an answer of status 200.

    Args:
        status: The HTTP status; 0 where there is none.
        body: The body, or the text of a client library's error.
        headers: The headers of the answer.
    """
    headers = headers or {}
    value = _parse(body)
    codes, message = _codes(value), _message(value, body)
    if value is None and (raised := _RAISED.search(body[:READ])) is not None:
        codes.append(raised[1].lower())
    amazon = headers.get("x-amzn-errortype", "") if headers else ""
    if amazon:
        codes.insert(0, amazon.split(":")[0].rpartition("#")[2].lower())
    if status in (0, 200):
        named = [int(code) for code in codes if code.isdigit() and len(code) == 3 and 400 <= int(code) < 600]
        status = named[0] if named else 0
    wait = read_retry_after(headers)
    return Fault(_kind(status, codes, message), status, said_wait(body[:READ]) if wait is None else wait)


def _kind(status: int, codes: list[str], message: str) -> type[LMStatusError]:
    allowed = _BOUNDED.get(status)
    coded = [kind for code in codes if (kind := _MEANING.get(code)) and (allowed is None or kind in allowed)]
    for kind in coded:
        if kind is AuthenticationError and _PATTERNS[BillingError].search(message):
            return BillingError  # "permission denied", because nobody pays
        if kind not in _VAGUE:
            return kind
    gemini = "resource_exhausted" in codes  # it says of a rate what others say of an empty account
    for kind, pattern in _PATTERNS.items():
        if kind is BillingError and gemini and not _SPENT.search(message):
            continue
        if kind is ContextWindowError and status == 429 and not _TOO_LARGE.search(message):
            continue
        if (allowed is None or kind in allowed) and pattern.search(message):
            if kind in _PASSING and 400 <= status < 500 and status not in (408, 409, 425, 429) and coded:
                continue  # a code says that the request is at fault
            return kind
    if coded:
        return coded[0]
    return _ALONE.get(status) or (BadRequestError if _is_refusal(status) else LMStatusError)


_VAGUE = frozenset({BadRequestError, RateLimitError})
"""Kinds whose codes are also used where the message knows better."""

_PASSING = frozenset({ServerTimeoutError, OverloadedError, RateLimitError})
_TOO_LARGE = late_pattern(r"too large|too long|reduced?\b(?!.*\btry again later)", re.DOTALL)
_SPENT = late_pattern(r"depleted|perday|limit: 0\b")


def _is_refusal(status: int) -> bool:
    return 400 <= status < 500 and status not in (409, 424, 425, 499)


_RAISED = late_pattern(r"An error occurred \((\w{1,60})\)")
"""How boto3 names an error."""


def _parse(body: str) -> Any:
    start = body.lstrip()[:1]
    if start not in ("{", "["):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _parts(value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of what describes an error, and nothing of what was sent or generated."""
    if isinstance(value, list):
        for item in value[:10]:
            if isinstance(item, str):
                yield "message", item
            yield from _parts(item, depth)
    elif isinstance(value, Mapping) and depth < 5:
        for name, item in value.items():
            if isinstance(item, (str, int)) and not isinstance(item, bool):
                if name in _NAMES:
                    yield name, str(item)
                    if name == "raw":
                        yield from _parts(_parse(str(item)), depth + 1)
                elif name in _WITHIN:
                    yield "message", str(item)
            elif name in _WITHIN or name in _NAMES:
                yield from _parts(item, depth + 1)


_WITHIN = frozenset(
    {"error", "errors", "detail", "details", "metadata", "innererror", "violations", "choices", "raw", "loc"}
    | {"prompt_feedback", "promptFeedback", "base_resp"}
)
_NAMES = frozenset(
    {"code", "type", "status", "reason", "error_type", "__type", "message", "msg", "Message", "param", "raw"}
    | {"quotaId", "blockReason", "native_finish_reason", "error_code", "error_message", "error_msg", "description"}
    | {"errorCode", "errorMessage", "statusCode", "status_msg"}
)
_PROSE = frozenset(
    {"message", "msg", "Message", "raw", "quotaId", "error_message", "error_msg", "errorMessage", "description"}
    | {"param", "status_msg"}
)


def _codes(value: Any) -> list[str]:
    return [text.rpartition("#")[2].lower() for name, text in _parts(value) if name not in _PROSE and len(text) < 80]


def _message(value: Any, body: str) -> str:
    if value is None:  # a page says nothing beyond its status
        return "" if body.lstrip()[:1] == "<" else body[:READ].lower()
    return "\n".join(text for name, text in _parts(value) if name in _PROSE)[:READ].lower()


def told(body: str) -> str:
    """What an error says in words, in lower case, without what it repeats of the request."""
    return _message(_parse(body), body)


def is_error(reply: Mapping[str, Any]) -> bool:
    """True if a body of status 200 is an error: it says so and has no reply beside it."""
    choices = reply.get("choices")
    if choices and isinstance(choices, list):
        first = choices[0]
        return isinstance(first, dict) and bool(first.get("error")) and not _has_text(first)
    return bool(reply.get("error")) or reply.get("object") == "error" or reply.get("type") == "error"


def _has_text(choice: Mapping[str, Any]) -> bool:
    message = choice.get("message")
    return isinstance(message, Mapping) and bool(message.get("content") or message.get("tool_calls"))
