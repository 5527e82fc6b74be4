"""A contract suite for language models: the promises of every LM, as tests that a subclass runs for your own LM.

```python
from promptgrad.testing.lms import LMContract

class TestMine(LMContract):
    def make(self):
        return Mine("a name")
```

It needs pytest, which is not a dependency of promptgrad; nothing else in the package imports this module.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from promptgrad import aio, nn, run
from promptgrad.errors import (
    AuthenticationError,
    BudgetExceeded,
    LMConnectionError,
    LMError,
    LMReplyError,
    LMStatusError,
    MissingExtraError,
    RateLimitError,
    UnknownPriceError,
)
from promptgrad.lm import (
    LM,
    Cache,
    Completion,
    Event,
    ImagePart,
    Layer,
    Limit,
    Message,
    Prefix,
    ReasoningDelta,
    Request,
    Retry,
    TextDelta,
    TextPart,
    ToolCallDelta,
    Transport,
    Usage,
    record,
    replay,
    track_usage,
)
from promptgrad.testing._answers import Answer, Cut, Drop, Garbage, Status
from promptgrad.testing._elsewhere import elsewhere
from promptgrad.testing._loopback import LoopbackLM
from promptgrad.testing._promise import fail, in_threads, must, raised

try:
    import pytest
except ImportError as error:
    raise MissingExtraError(
        "promptgrad.testing.lms is a suite of pytest, which is not installed: pip install pytest", extra="dev"
    ) from error

__all__ = ["LMContract"]

_WIRE: dict[str, tuple[Answer, type[LMError] | tuple[type[LMError], ...], bool]] = {
    "an error status": (Status(503), LMStatusError, True),
    "too many requests": (Status(429, retry_after=7), RateLimitError, True),
    "no valid key": (Status(401), AuthenticationError, False),
    "a bad request": (Status(400), LMStatusError, False),
    "a lost connection": (Drop(), LMConnectionError, True),
    "half a reply": (Cut(), (LMReplyError, LMConnectionError), True),
    "what is no completion": (Garbage(b'{"no": "choices"}'), (LMReplyError, LMStatusError), True),
}
"""Failures on the wire: the server's answer, the error that it becomes, and whether a retry may succeed."""

_PIXEL = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
"""An image of one pixel."""


class LMContract:
    """The promises of every language model. Subclass it in a test file, as a class `Test...` with `make`.

    Each test method is one promise, stated in its docstring; a failure names what was found, what is expected and what
    to do. Some promises need more information about an LM, from the attributes and methods below; where these keep
    their defaults, the tests are skipped with the reason.

    Cost: about a hundred calls of the LM, with short prompts.

    Attributes:
        prompts: Three or more different prompts that the LM can answer.
        options: Sampling options for every call, such as `{"max_tokens": 4}` for an LM that is slow.
        deterministic: True if an equal request gets an equal text.
        secrets: Texts known to the LM that must not show anywhere, such as its key.
        wire: True if the LM of `make` sends its requests to `self.url`, in OpenAI's format; its errors and its
            cancellation are then tested on a real connection.
        traced: True if a reply made in a test carries a trace to the LM's weights.
        url: Address of a server on loopback, which echoes the last message. It is set when `make` is called.
    """

    prompts: Sequence[str] = ("w1 w2", "w3", "w4 w5 w6")
    options: dict[str, Any] = {}  # noqa: RUF012 - to be overridden, and copied where it is used
    deterministic: bool = True
    secrets: Sequence[str] = ()
    wire: bool = False
    traced: bool = False
    url: str = ""

    def make(self) -> LM:
        """Make the language model. It is called for each test, and in another process."""
        raise NotImplementedError(f"{type(self).__name__} does not define make(), which gives the LM to be tested")

    def different(self) -> Iterable[LM]:
        """Language models with other answers than that of `make`: other model, options or weights."""
        return ()

    def failing(self) -> Iterable[tuple[LM, type[LMError]]]:
        """Language models whose calls all fail, each with the kind of error that it raises."""
        return ()

    # ---- fixtures

    @pytest.fixture
    def server(self) -> Iterator[LoopbackLM]:
        """The server at `self.url`."""
        with LoopbackLM(lambda messages: f"echo {messages[-1]['content']}") as server:
            self.url = server.url
            yield server

    @pytest.fixture
    def lm(self, server: LoopbackLM) -> Iterator[LM]:
        """The language model of `make`; all language models are closed after the test."""
        self._made: list[LM] = []
        yield self._made_again()
        for made in self._made:
            made.close()

    def request(self, number: int = 0, **options: Any) -> Request:
        """A request that the LM can answer; other numbers or options make other requests.

        Numbers from the number of prompts on repeat the prompts with another replicate.
        """
        again, place = divmod(number, len(self.prompts))
        return Request.of(self.prompts[place], **{**self.options, "replicate": again, **options})

    # ---- what it is

    def test_it_is_an_lm(self, lm: LM) -> None:
        """It has a name, an adapter and an identity, all of them texts; below its layers is a transport."""
        must(isinstance(lm, LM), f"make() gives {lm!r}, which is not a promptgrad.lm.LM: derive it from lm.Transport")
        for what, value in (("name", lm.name), ("adapter", lm.adapter), ("identity()", lm.identity())):
            must(type(value) is str and value != "", f"{what} is {value!r}, and a text that is not empty is expected")
        below = lm.transport
        must(isinstance(below, LM) and below.transport is below, f"{lm!r}.transport is {below!r}, not the lowest LM")
        must(
            isinstance(below, Transport),
            f"{below!r} is not a promptgrad.lm.Transport, so that neither journal nor budget hold for its calls",
        )
        must(lm.traces() is self.traced, f"traces() is {lm.traces()!r}, and {self.traced} is expected")

    def test_its_name_is_shown(self, lm: LM) -> None:
        """`repr` shows the name, which reports and messages use."""
        must(lm.name in repr(lm), f"repr is {lm!r}, and the name {lm.name!r} is not in it")

    def test_a_copy_is_itself(self, lm: LM) -> None:
        """Copies of a program share the LM, as they share a device."""
        for copied in (copy.copy(lm), copy.deepcopy(lm), copy.deepcopy([lm])[0]):
            must(copied is lm, f"a copy of {lm!r} is another object: keep __copy__ and __deepcopy__ of LM")

    # ---- names and keys

    def test_equal_lms_have_equal_identities(self, lm: LM) -> None:
        """Two LMs that are made alike have one identity, which neither calls nor copies of the request change."""
        before, other = lm.identity(), self._made_again()
        must(
            (other.name, other.identity()) == (lm.name, before),
            f"made again, the LM is called {other.name!r} with the identity {other.identity()!r}, and was "
            f"{lm.name!r} with {before!r}: make the identity of what decides the answer, and of nothing else",
        )
        lm(self.request())
        must(lm.identity() == before, f"a call changed the identity from {before!r} to {lm.identity()!r}")

    def test_another_lm_has_another_identity(self, lm: LM) -> None:
        """An LM with other answers has another identity, so that no cache confuses the two."""
        others = list(self.different())
        if not others:
            pytest.skip("different() gives no LM that would answer differently")
        known = {lm.identity(): repr(lm)}
        for other in others:
            twin = known.setdefault(other.identity(), repr(other))
            must(twin == repr(other), f"{other!r} and {twin} share the identity {other.identity()!r}")
            other.close()
        must(len(known) == len(others) + 1, f"{len(others) + 1} LMs have {len(known)} identities: {list(known)}")

    @pytest.mark.parametrize("hash_seed", ["1", "2"])
    def test_another_process_makes_the_same_keys(self, lm: LM, hash_seed: str) -> None:
        """Another process gives the LM the same identity, and equal requests the same digests."""
        kind = type(self)
        if type(self).make is LMContract.make or "<" in kind.__qualname__ or sys.platform == "win32":
            pytest.skip("another process cannot make this LM: give the test class make(), at the top of a file")
        ended = elsewhere(kind, "_keys", self.url, hash_seed=int(hash_seed))
        must(ended.code == 0, f"another process cannot make the LM:\n{ended.said[-3000:]}")
        there, here = ended.found, self._keys(self.url, lm)
        must(
            there == here,
            f"in another process name, identity and digests are {there}, and here {here}: no hash(), id() or time may "
            "go into the identity",
        )

    def _keys(self, url: str, lm: LM | None = None) -> list[Any]:
        """Name, identity and digests of the LM, or of one that is made here."""
        self.url = url
        made = self.make() if lm is None else lm
        return [made.name, made.identity(), [Request.of(text).digest(made.identity()) for text in self.prompts]]

    # ---- what it answers

    def test_it_gives_a_completion_with_its_usage(self, lm: LM) -> None:
        """A call returns a `Completion`: a plain text, one call, its tokens, a price that is known or None."""
        completion = lm(self.request())
        must(isinstance(completion, Completion), f"a call gave {completion!r}, and a Completion is expected")
        must(type(completion.text) is str, f"text is a {type(completion.text).__name__}, and a plain str is expected")
        must(
            type(completion.model) is str and type(completion.finish_reason) is str and completion.finish_reason != "",
            f"model is {completion.model!r}, finish_reason {completion.finish_reason!r}, and texts are expected",
        )
        usage = completion.usage
        must(isinstance(usage, Usage), f"usage is {usage!r}, and a promptgrad.lm.Usage is expected")
        must(
            (usage.calls, usage.cached, completion.cached) == (1, 0, False),
            f"usage is {usage}, cached is {completion.cached}: a first call counts as one call and none from a cache",
        )
        must(usage.input_tokens > 0, f"usage is {usage}: a prompt has tokens; estimate them where nobody says")
        must(
            usage.output_tokens >= 0 and usage.seconds >= 0 and (usage.usd is None or usage.usd >= 0),
            f"usage is {usage}: nothing in it is negative, and a price that is not known is None",
        )
        must((completion.trace is not None) is self.traced, f"traced is {self.traced}, the trace {completion.trace!r}")

    def test_a_completion_can_be_written_and_read(self, lm: LM) -> None:
        """The journal keeps a completion as JSON, and returns it unchanged."""
        completion = lm(self.request())
        read = Completion.from_dict(json.loads(json.dumps(completion.to_dict())))
        must(read == completion, f"{completion!r} comes back from JSON as {read!r}")

    def test_it_answers_in_every_way(self, lm: LM) -> None:
        """Called, awaited, from asyncio, from a loop of promptgrad and from a thread, it answers."""
        request = self.request()
        first = lm(request)

        async def asked() -> list[Completion]:
            return [await lm.complete(request), await lm.acall(self.prompts[0], **self.options), lm(request)]

        async def side_by_side() -> list[Completion]:
            return list(await asyncio.gather(lm.complete(request), lm.acall(request)))

        answers = [*asyncio.run(asked()), *aio.run(side_by_side()), *in_threads([partial(lm, request)])]
        must(len(answers) == 6, f"six ways to ask gave {len(answers)} answers")
        self._same([first.text] * 6, [answer.text for answer in answers], "asked in six ways")

    def test_it_does_not_matter_where_a_prefix_ends(self, lm: LM) -> None:
        """A conversation is one request, whether its first messages are a compiled prefix or not."""
        messages = [Message("system", self.prompts[0]), Message("user", self.prompts[1])]
        whole = Request.of(messages, **self.options)
        cut = Request.of(Prefix(messages[:1]), **self.options).replace(tail=tuple(messages[1:]))
        must(whole.digest(lm.identity()) == cut.digest(lm.identity()), "the digests differ with the place of the cut")
        self._same([lm(whole).text], [lm(cut).text], "with a prefix")

    def test_it_answers_a_whole_conversation(self, lm: LM) -> None:
        """Messages of every role are accepted, and the request is not changed."""
        roles = ("system", "user", "assistant", "user")
        messages = [Message(role, self.prompts[place % len(self.prompts)]) for place, role in enumerate(roles)]
        request = Request.of(messages, **self.options)
        before = request.to_dict()
        must(type(lm(request).text) is str, "a conversation of four messages was not answered with a text")
        must(request.to_dict() == before, f"the request was {before} and is now {request.to_dict()}")

    def test_what_is_no_text_is_sent_or_refused(self, lm: LM, server: LoopbackLM) -> None:
        """An image in a message reaches the model, or is refused by an error that says so; it is never left out."""
        request = Request.of(
            Message("user", (TextPart(self.prompts[0]), ImagePart(_PIXEL, "image/png"))), **self.options
        )
        try:
            completion = lm(request)
        except (LMError, ValueError, TypeError) as error:
            must("image" in str(error), f"an image was refused by {error!r}, and the message does not say why")
            must(server.received == 0, "a request with an image was refused after it had been sent")
            return
        must(type(completion.text) is str, f"a request with an image gave {completion!r}")
        if self.wire:
            sent = server.requests[-1].body
            must(b64encode(_PIXEL) in sent, f"the image is not in what was sent: {sent[:200]!r}")

    # ---- options

    @pytest.mark.parametrize(
        ("prompt", "options", "kind"),
        [
            (3, {}, TypeError),
            (["text"], {}, TypeError),
            ([], {}, ValueError),
            ([{"role": "user"}], {}, ValueError),
            ("w1", {"temperature": -1}, ValueError),
            ("w1", {"temperature": "hot"}, TypeError),
            ("w1", {"max_tokens": 0}, ValueError),
            ("w1", {"replicate": -1}, ValueError),
            ("w1", {"api_key": "sk-1"}, ValueError),
        ],
    )
    def test_what_it_is_called_with_is_checked(
        self, lm: LM, prompt: Any, options: dict[str, Any], kind: type[Exception]
    ) -> None:
        """An invalid request is refused before anything is sent, and so is a secret among the options."""
        with track_usage() as usage:
            error = raised(lambda: lm(prompt, **options), kind, f"{prompt!r} with {options}")
        must(str(error) != "", f"the message of the {kind.__name__} for {prompt!r} with {options} is empty")
        must(all(name in str(error) for name in options), f"the error for {options} does not name it: {error}")
        must(usage.calls == 0, f"{prompt!r} with {options} was refused, but {usage.calls} calls were made")

    def test_options_are_part_of_a_request(self, lm: LM) -> None:
        """Sampling options are accepted, and make the same prompt another request."""
        requests = [
            self.request(),
            self.request(temperature=0.5),
            self.request(seed=7),
            self.request(replicate=1),
            self.request(stop=["nonsense"]),
        ]
        keys = {request.digest(lm.identity()) for request in requests}
        must(len(keys) == len(requests), f"{len(requests)} requests have {len(keys)} keys")
        with run.active() as session:
            texts = [lm(request).text for request in requests]
            paid = session.journal.paid
        must(all(type(text) is str for text in texts), f"the texts are {texts}")
        must(paid == len(requests), f"{len(requests)} requests that differ in an option made {paid} calls")

    def test_a_seed_and_a_replicate_repeat(self, lm: LM) -> None:
        """The same seed and the same replicate give the same text."""
        if not self.deterministic:
            pytest.skip("deterministic is False")
        for replicate in (0, 2):
            request = self.request(seed=7, temperature=1.0, replicate=replicate)
            texts = [self._made_again()(request).text for _ in range(2)]
            self._same(texts[:1], texts[1:], f"asked again with a seed, as replicate {replicate}")

    # ---- many at once, and one that is given up

    def test_calls_side_by_side_get_their_own_answers(self, lm: LM) -> None:
        """Twelve concurrent requests, in tasks and in threads, get the same answers as in sequence."""
        requests = [self.request(number) for number in range(12)]
        expected = [self._made_again().complete(request) for request in requests]
        alone = [aio.drive(answer).text for answer in expected]

        async def at_once() -> list[Completion]:
            return list(await asyncio.gather(*map(lm.complete, requests)))

        self._same(alone, [completion.text for completion in asyncio.run(at_once())], "in tasks")
        threads = in_threads([partial(lm, request) for request in requests])
        self._same(alone, [completion.text for completion in threads], "in threads")

    def test_a_call_that_is_given_up_counts_once_at_most(self, lm: LM, server: LoopbackLM) -> None:
        """A cancelled call raises `CancelledError`, and may be made again; the budget counts it if it was sent.

        Its server may charge for it, so it counts against the limits, and not among the calls that were answered. A
        call on the wire is cancelled when its request has arrived; any other, at several moments, if it is not over
        by then.
        """
        server.hold()

        async def give_up(waits: Sequence[float]) -> None:
            task = asyncio.ensure_future(lm.complete(self.request()))
            for seconds in waits:
                await asyncio.sleep(seconds)
                if server.received or task.done():
                    break
            in_flight = task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return
            finally:
                server.release()
            must(not (in_flight or self.wire), "a cancelled call returned as if nothing had happened")

        moments = [[0.001] * 2000] if self.wire else [[0.0], [0.0] * 2, [0.0] * 5, [0.001]]
        with run.active(ledger=run.Ledger(run.Budget(calls=len(moments) + 1))) as session:
            for waits in moments:
                asyncio.run(give_up(waits))
            again = lm(self.request())
            spent = session.ledger.spent
        must(type(again.text) is str, "after a cancelled call the same request was not answered")
        must(spent.calls == 1, f"a cancelled call and one that was answered count as {spent.calls} calls")
        arrived = max(0, server.received - 1)
        counts = f"of {len(moments)} cancelled calls {arrived} arrived, and {spent.failed_calls} were counted"
        must(arrived <= spent.failed_calls <= len(moments), counts)

    # ---- errors

    @pytest.mark.parametrize("what", list(_WIRE))
    def test_errors_of_the_wire_have_their_kind(self, lm: LM, server: LoopbackLM, what: str) -> None:
        """An error status, a lost connection and a spoilt reply are raised as the errors of promptgrad's tree."""
        if not self.wire:
            pytest.skip("wire is False: the LM does not send to self.url")
        answer, kind, _ = _WIRE[what]
        server.script(answer)
        request = self.request()
        with run.active() as session:
            error = raised(lambda: aio.drive(lm.transport.complete(request)), kind, what)
            self._failed(session, request.digest(lm.transport.identity()), error)
        if isinstance(answer, Status):
            facts = getattr(error, "status", None), getattr(error, "retry_after", None)
            must(facts == (answer.code, answer.retry_after), f"{what}: status and retry_after are {facts}")
        must(server.received == 1, f"{what}: a transport sends once, and {server.received} requests arrived")

    def test_errors_have_their_kind(self) -> None:
        """A failed call raises an `LMError` with the reason; it is counted as failed and not journalled."""
        cases = list(self.failing())
        if not cases:
            pytest.skip("failing() gives no LM that fails")
        for lm, kind in cases:
            must(issubclass(kind, LMError), f"{kind.__name__} is not an LMError")
            request = self.request()
            with run.active() as session:
                error = raised(partial(lm, request), kind, repr(lm))
                self._failed(session, request.digest(lm.identity()), error)
            cached = Cache(lm)
            for _ in range(2):
                raised(partial(cached, request), kind, repr(cached))
            lm.close()

    def _failed(self, session: run.ActiveRun, key: str, error: BaseException) -> None:
        spent = session.ledger.spent
        must(str(error) != "", f"the message of the {type(error).__name__} is empty")
        must((spent.calls, spent.failed) == (0, 1), f"a failed call is booked as {spent}: none paid, one failed")
        must(not session.journal.has(key), "a failed call is in the journal")
        self._hides(f"{error} {vars(error)}", f"a {type(error).__name__}")

    # ---- secrets

    def test_secrets_show_nowhere(self, lm: LM, server: LoopbackLM, tmp_path: Path) -> None:
        """No secret is in repr, name, identity, the state of a program, a journal, a cassette or an error."""
        if not self.secrets:
            pytest.skip("this LM has no secrets")
        self._hides(f"{lm!r} {lm} {lm.name} {lm.identity()} {lm.transport!r}", "repr, name or identity")
        program = nn.Predict("question -> answer").to(lm)
        self._hides(
            f"{json.dumps(nn.whole_state(program.state_dict()), default=str)} {program!r}", "the state of a program"
        )
        journal = run.Journal(tmp_path / "journal.jsonl")
        with journal, run.active(journal=journal), record(tmp_path / "cassette.jsonl"):
            lm(self.request())
            if self.wire:
                server.script(Status(401, message=f"wrong: {' '.join(self.secrets)}"))
                request = self.request(1)
                error = raised(lambda: aio.drive(lm.transport.complete(request)), LMError, "a refused key")
                self._hides(f"{error} {vars(error)}", "an error")
        for path in tmp_path.iterdir():
            self._hides(path.read_text(), f"the file {path.name}")

    def _hides(self, text: str, where: str) -> None:
        found = [secret for secret in self.secrets if secret in text]
        must(not found, f"{where} shows {len(found)} of {len(self.secrets)} secrets")

    # ---- layers

    def test_retries_go_on_top(self, lm: LM) -> None:
        """After a transient failure the request is sent again, and the answer is that of the LM."""
        waits: list[float] = []

        async def note(seconds: float) -> None:
            waits.append(seconds)

        request = self.request()
        with track_usage() as usage:
            completion = Retry(_Failing(lm, 2), sleep=note)(request)
        must(len(waits) == 2, f"two failures were followed by {len(waits)} waits")
        must(usage.calls == 1, f"one call that came through counts as {usage.calls}")
        self._same([self._made_again()(request).text], [completion.text], "under Retry")

    @pytest.mark.parametrize("what", list(_WIRE))
    def test_a_retry_on_the_wire_sends_again(self, lm: LM, server: LoopbackLM, what: str) -> None:
        """After a transient failure the same request is sent again and paid once; other failures are not retried."""
        if not self.wire:
            pytest.skip("wire is False: the LM does not send to self.url")

        async def note(seconds: float) -> None:
            return None

        answer, kind, passes = _WIRE[what]
        server.script(answer)
        retried = Retry(lm.transport, sleep=note)
        with run.active() as session:
            if passes:
                retried(self.request())
            else:
                raised(lambda: retried(self.request()), kind, what)
            spent = session.ledger.spent
        must((spent.calls, spent.failed) == (int(passes), 1), f"after {what}, under Retry, the run spent {spent}")
        bodies = [request.body for request in server.requests]
        must(len(bodies) == 1 + passes, f"after {what} {len(bodies) - 1} more requests were sent")
        must(len(set(bodies)) == 1, f"after {what} another request was sent: {bodies}")

    def test_a_cache_goes_on_top(self, lm: LM) -> None:
        """An equal request is answered by the cache, at no cost; another replicate is another request."""
        cached = Cache(lm)
        with track_usage() as usage:
            first, again, other = cached(self.request()), cached(self.request()), cached(self.request(replicate=5))
        must((again.text, again.cached) == (first.text, True), f"the cache gave {again!r} for {first!r}")
        must(not other.cached, "the cache took one replicate for the other")
        must((usage.calls, usage.cached) == (2, 1), f"two calls and a hit count as {usage.total}")

    def test_a_limit_goes_on_top(self, lm: LM) -> None:
        """With a limit of two, six requests are answered, each with its own text."""
        requests = [self.request(number) for number in range(6)]
        limited = Limit(self._made_again(), 2)

        async def at_once() -> list[Completion]:
            return list(await asyncio.gather(*map(limited.complete, requests)))

        answers = asyncio.run(at_once())
        self._same([lm(request).text for request in requests], [answer.text for answer in answers], "under Limit")

    # ---- usage, runs and cassettes

    def test_usage_is_counted_once(self, lm: LM) -> None:
        """`track_usage` adds up the usage of the completions."""
        with track_usage() as usage:
            completion = lm(self.request())
        must(usage.total == completion.usage, f"{completion.usage} was counted as {usage.total}")

    def test_a_run_pays_once(self, lm: LM) -> None:
        """Inside a run an equal request is paid once; another replicate is another call."""
        with run.active() as session, track_usage() as usage:
            first, again = lm(self.request()), lm(self.request())
            lm(self.request(replicate=1))
            spent, paid = session.ledger.spent, session.journal.paid
            key = self.request().digest(lm.identity())
            must(session.journal.has(key), "the call is not in the journal under the digest of request and identity")
        must(first.text == again.text, f"one request was answered with {first.text!r} and with {again.text!r}")
        must((spent.calls, paid) == (2, 2), f"two different requests, one of them twice, are {spent}, {paid} paid")
        must(usage.calls + usage.cached == 3, f"three answers are counted as {usage.total}")

    def test_a_resumed_run_gives_the_same(self, lm: LM, server: LoopbackLM, tmp_path: Path) -> None:
        """A journalled call is not sent again, and its reply is the same as before."""
        given = []
        for _ in range(2):
            with run.Journal(tmp_path / "journal.jsonl") as journal, run.active(journal=journal) as session:
                given.append([self._made_again()(self.request(number)) for number in range(3)])
                spent = session.ledger.spent
            must(spent.calls == 3, f"three calls count as {spent.calls}")
        must(given[0] == given[1], f"the first time {given[0]}, and resumed {given[1]}")
        must(spent.replayed == 3, f"{spent.replayed} of 3 calls were answered from the journal")
        must(not self.wire or server.received == 3, f"{server.received} requests were sent for 3 calls")
        self._hides((tmp_path / "journal.jsonl").read_text(), "the journal")

    def test_a_budget_is_kept(self, lm: LM, server: LoopbackLM) -> None:
        """A call beyond the budget is not sent, even if many run at once."""

        async def many() -> list[Completion | BaseException]:
            calls = [lm.complete(self.request(number)) for number in range(6)]
            return list(await asyncio.gather(*calls, return_exceptions=True))

        with run.active(ledger=run.Ledger(run.Budget(calls=2))) as session:
            results = aio.run(many())
        refused = [result for result in results if isinstance(result, BudgetExceeded)]
        must(len(refused) == 4, f"of six calls with a budget of two, {len(refused)} were refused: {results}")
        must(session.ledger.spent.calls == 2, f"a budget of two calls was spent with {session.ledger.spent}")
        must(not self.wire or server.received == 2, f"{server.received} requests were sent with a budget of two calls")

    def test_a_budget_in_money_needs_a_price(self, lm: LM) -> None:
        """A budget in money refuses an LM whose price is not known, and admits one whose price is."""
        below = lm.transport
        known = isinstance(below, Transport) and below.prices is not None
        with run.active(ledger=run.Ledger(run.Budget(usd=1e6))) as session:
            if known:
                lm(self.request())
            else:
                raised(lambda: lm(self.request()), UnknownPriceError, "a budget in money")
            spent = session.ledger.spent
        must(spent.calls == int(known), f"the price is {'' if known else 'not '}known, and the run spent {spent}")
        must(not known or spent.usd is not None, f"prices are known, and the call has no price: {spent}")

    def test_a_cassette_repeats_it(self, lm: LM, server: LoopbackLM, tmp_path: Path) -> None:
        """A recording is replayed: the same completions, in order, with nothing sent."""
        with record(tmp_path / "cassette.jsonl"):
            given = [self._made_again()(self.request(number)) for number in range(3)]
        sent = server.received
        with replay(tmp_path / "cassette.jsonl") as cassette:
            again = [self._made_again()(self.request(number)) for number in range(3)]
            recorded = [cassette.lm()(self.request(number)) for number in range(3)]
        must(given == again, f"recorded {given}, and replayed {again}")
        must(given == recorded, f"recorded {given}, and the recorded LM gave {recorded}")
        must(server.received == sent, f"{server.received - sent} requests were sent in a replay")

    # ---- streams

    def test_a_stream_ends_with_what_a_call_gives(self, lm: LM) -> None:
        """`stream` yields the pieces of the text and then the completion, which is that of `complete`, paid once."""
        request = self.request()
        with track_usage() as usage:
            pieces, completion = asyncio.run(_streamed(lm, request))
        text = _text_of(pieces)
        must(text == completion.text, f"the pieces of a stream are {text!r}, and its completion is {completion.text!r}")
        must(usage.total == completion.usage, f"a stream that used {completion.usage} was counted as {usage.total}")
        self._same([self._made_again()(request).text], [completion.text], "streamed")

    def test_a_stream_is_journalled_like_a_call(self, lm: LM, server: LoopbackLM) -> None:
        """A streamed reply is in the journal under the key of the call, and is streamed from there."""
        request = self.request()
        with run.active() as session:
            _, first = asyncio.run(_streamed(self._made_again(), request))
            key = request.digest(lm.identity())
            must(session.journal.has(key), "a streamed reply is not in the journal under the key of the call")
            pieces, again = asyncio.run(_streamed(self._made_again(), request))
            called = self._made_again()(request)
            spent = session.ledger.spent
        text = _text_of(pieces)
        must(again == first == called, f"streamed {first!r}, again {again!r}, called {called!r}")
        must(text == called.text, f"the pieces of a reply from the journal are {text!r}, and it is {called.text!r}")
        must(spent.calls == 1, f"one request, streamed twice and called once, counts as {spent.calls} calls")
        must(not self.wire or server.received == 1, f"one request was sent {server.received} times")

    def test_a_stream_that_is_left_leaves_nothing(self, lm: LM) -> None:
        """A stream whose reader leaves is counted, as its server may charge for it; the request may be made again."""

        async def leave() -> None:
            events = lm.stream(self.request())
            async for _ in events:
                break
            await events.aclose()

        with run.active(ledger=run.Ledger(run.Budget(calls=2))) as session:
            asyncio.run(leave())
            again = lm(self.request())
            spent = session.ledger.spent
        must(type(again.text) is str, "after a stream that was left the same request was not answered")
        must(spent.calls == 1, f"a stream that was left and a call count as {spent.calls} calls")
        must(spent.failed_calls <= 1, f"a stream that was left counts as {spent.failed_calls} calls")

    # ---- the end

    def test_it_is_closed_and_works_again(self, lm: LM) -> None:
        """`close` may be called twice, and the LM works again afterwards."""
        lm.close()
        lm.close()
        must(type(lm(self.request()).text) is str, "a closed LM did not answer again")

    # ---- what the tests share

    def _made_again(self) -> LM:
        """Another LM like it, without the first one's memory."""
        made = self.make()
        self._made.append(made)
        return made

    def _same(self, expected: Sequence[str], found: Sequence[str], when: str) -> None:
        must(all(type(text) is str for text in found), f"{when}, the texts are {list(found)}")
        if self.deterministic:
            must(
                list(expected) == list(found),
                f"{when}, it answers {list(found)}, and {list(expected)} is expected; an LM that gives another text "
                "each time says so with deterministic = False",
            )


async def _streamed(lm: LM, request: Request) -> tuple[list[Event], Completion]:
    """The pieces of a stream, and its completion."""
    events = [event async for event in lm.stream(request)]
    end = events.pop() if events else None
    if not isinstance(end, Completion):
        fail(f"a stream ended with {end!r}, and a Completion is expected")
    return events, end


def _text_of(pieces: Sequence[Event]) -> str:
    for piece in pieces:
        if not isinstance(piece, (TextDelta, ReasoningDelta, ToolCallDelta)):
            fail(f"a stream gave {piece!r} before its completion, and deltas are expected")
    return "".join(piece.text for piece in pieces if isinstance(piece, TextDelta))


class _Failing(Layer):
    """Loses the connection `times` times before it calls."""

    def __init__(self, lm: LM, times: int) -> None:
        super().__init__(lm)
        self.times = times

    async def complete(self, request: Request) -> Completion:
        if self.times:
            self.times -= 1
            raise LMConnectionError("the connection was lost, for a test")
        return await self.lm.complete(request)
