"""The contract suite for language models finds what is wrong with one."""

import asyncio
import itertools
import subprocess
import sys

import pytest

from promptgrad.errors import LMStatusError
from promptgrad.lm import HTTP, LM, Completion, Layer, Message, Retry, TextDelta, Transport, Usage
from promptgrad.testing import LoopbackLM
from promptgrad.testing.lms import LMContract
from tests.contract import PROMISES, run_contract, variants

SECRET = "sk-to-be-hidden"


class Good(Transport):
    """Keeps every promise."""

    def __init__(self, name="good", key=SECRET, **options):
        super().__init__(name, options=options)
        self.key = key

    async def _send(self, request, key):
        await asyncio.sleep(0)
        text = request.messages[-1].content[::-1]
        return Completion(text, Usage(1, len(text), len(text)), self.name)


class Unnamed(Good):
    def __repr__(self):
        return "a language model"


class Copied(Good):
    def __deepcopy__(self, memo):
        return Copied()


class ById(Good):
    def identity(self):
        return f"good {id(self)}"


class ByHash(Good):
    def identity(self):
        return f"good {hash('good')}"


class Careless(Good):
    def identity(self):
        return "the same for all"


class Told(str):
    __slots__ = ()


class RichText(Good):
    async def _send(self, request, key):
        completion = await super()._send(request, key)
        return Completion(Told(completion.text), completion.usage, self.name)


class Free(Good):
    async def _send(self, request, key):
        completion = await super()._send(request, key)
        return Completion(completion.text, Usage(), self.name)


class Double(Layer):
    """Asks twice and says that it asked once."""

    async def complete(self, request):
        await self.lm.complete(request)
        return await self.lm.complete(request)


class Apart(LM):
    """No transport: neither a journal nor a budget know of it."""

    name = "apart"

    async def complete(self, request):
        return Completion(request.messages[-1].content, Usage(1, 1, 1))


class Random(Good):
    numbers = itertools.count()

    async def _send(self, request, key):
        completion = await super()._send(request, key)
        return Completion(f"{completion.text} {next(self.numbers)}", completion.usage, self.name)


class Mixed(Good):
    """Answers what was asked last, whoever waits."""

    latest = None

    async def _send(self, request, key):
        Mixed.latest = request
        await asyncio.sleep(0.01)
        return await super()._send(Mixed.latest, key)


class Open(Good):
    def __init__(self):
        super().__init__(f"good with {SECRET}")


class Untold(Good):
    async def _send(self, request, key):
        raise RuntimeError("something broke")


class Stubborn(HTTP):
    """Goes on when it is cancelled."""

    async def _send(self, request, key):
        try:
            return await super()._send(request, key)
        except asyncio.CancelledError:
            return Completion("too late", Usage(1, 1, 1))


class Swallows(Good):
    """Goes on when it is cancelled, without a wire."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    async def _send(self, request, key):
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            return Completion("too late", Usage(1, 1, 1))
        return await super()._send(request, key)


class Once(Good):
    closed = False

    def close(self):
        self.closed = True

    async def _send(self, request, key):
        if self.closed:
            raise RuntimeError("closed")
        return await super()._send(request, key)


class Blind(HTTP):
    """Leaves images out."""

    async def _send(self, request, key):
        return await super()._send(request.replace(tail=[Message(m.role, m.text) for m in request.tail]), key)


class Endless(Good):
    async def stream(self, request):
        yield TextDelta((await self.complete(request)).text)


class Stuttering(Good):
    async def stream(self, request):
        async for event in super().stream(request):
            yield event
            if isinstance(event, TextDelta):
                yield event


class Unpaid(Good):
    """Streams past the journal."""

    async def stream(self, request):
        completion = await self._send(request, "")
        yield TextDelta(completion.text)
        yield completion


class TestGood(LMContract):
    """The suite as its users write it."""

    secrets = (SECRET,)

    def make(self):
        return Good()

    def different(self):
        return [Good("other"), Good(temperature=0.5)]


class Case(LMContract):
    secrets = (SECRET,)

    def __init__(self, make, **known):
        self.make = make
        vars(self).update(known)


@pytest.fixture
def server():
    with LoopbackLM(lambda messages: f"echo {messages[-1]['content']}") as running:
        yield running


@pytest.mark.parametrize(
    ("make", "promise", "said"),
    [
        (Unnamed, "test_its_name_is_shown", "the name 'good' is not in it"),
        (Copied, "test_a_copy_is_itself", "is another object"),
        (ById, "test_equal_lms_have_equal_identities", "make the identity of what decides the answer"),
        (RichText, "test_it_gives_a_completion_with_its_usage", "text is a Told, and a plain str is expected"),
        (Free, "test_it_gives_a_completion_with_its_usage", "a first call counts as one call"),
        (lambda: Double(Good()), "test_usage_is_counted_once", "was counted as Usage(calls=2"),
        (Apart, "test_it_is_an_lm", "is not a promptgrad.lm.Transport"),
        (Apart, "test_a_run_pays_once", "not in the journal"),
        (Apart, "test_a_budget_is_kept", "0 were refused"),
        (Random, "test_a_seed_and_a_replicate_repeat", "deterministic = False"),
        (Random, "test_it_answers_in_every_way", "deterministic = False"),
        (Mixed, "test_calls_side_by_side_get_their_own_answers", "in tasks, it answers"),
        (Open, "test_secrets_show_nowhere", "repr, name or identity shows 1 of 1 secrets"),
        (Endless, "test_a_stream_ends_with_what_a_call_gives", "a stream ended with TextDelta"),
        (Stuttering, "test_a_stream_ends_with_what_a_call_gives", "the pieces of a stream are"),
        (Unpaid, "test_a_stream_ends_with_what_a_call_gives", "was counted as Usage(calls=0"),
        (Unpaid, "test_a_stream_is_journalled_like_a_call", "is not in the journal"),
        (Once, "test_it_is_closed_and_works_again", "closed"),
    ],
)
def test_it_finds_what_is_wrong(make, promise, said, server, tmp_path):
    with pytest.raises((AssertionError, RuntimeError)) as caught:
        run_contract(Case(make), promise, server, tmp_path)
    assert said in str(caught.value)


def test_it_finds_an_identity_that_differs_in_another_process(server, tmp_path):
    class_of_this_file = TestGood()
    assert run_contract(class_of_this_file, "test_another_process_makes_the_same_keys", server, tmp_path / "good") == 2
    with pytest.raises(AssertionError, match=r"no hash\(\), id\(\) or time"):
        run_contract(TestSalted(), "test_another_process_makes_the_same_keys", server, tmp_path / "salted")


class TestSalted(LMContract):
    __test__ = False  # it fails, which the test above expects

    def make(self):
        return ByHash()


def test_it_finds_lms_that_share_an_identity(server, tmp_path):
    case = Case(Careless, different=lambda: [Careless("other")])
    with pytest.raises(AssertionError, match="share the identity"):
        run_contract(case, "test_another_lm_has_another_identity", server, tmp_path)


def test_it_finds_an_error_of_another_tree(server, tmp_path):
    case = Case(Good, failing=lambda: [(Untold(), LMStatusError)])
    with pytest.raises(AssertionError, match=r"raised RuntimeError.*LMStatusError is expected"):
        run_contract(case, "test_errors_have_their_kind", server, tmp_path)


def test_it_finds_a_call_that_goes_on_when_it_is_given_up(server, tmp_path):
    case = Case(lambda: Stubborn("m", server.url), wire=True)
    with pytest.raises(AssertionError, match="as if nothing had happened"):
        run_contract(case, "test_a_call_that_is_given_up_counts_once_at_most", server, tmp_path)


@pytest.mark.parametrize("seconds", [0, 0.0005, 0.02])
def test_it_finds_a_call_that_goes_on_without_a_wire(seconds, server, tmp_path):
    with pytest.raises(AssertionError, match="as if nothing had happened"):
        run_contract(
            Case(lambda: Swallows(seconds)), "test_a_call_that_is_given_up_counts_once_at_most", server, tmp_path
        )


def test_it_finds_an_image_that_was_left_out(server, tmp_path):
    case = Case(lambda: Blind("m", server.url), wire=True)
    with pytest.raises(AssertionError, match="the image is not in what was sent"):
        run_contract(case, "test_what_is_no_text_is_sent_or_refused", server, tmp_path)


def test_it_finds_a_transport_that_sends_again_by_itself(server, tmp_path):
    class Eager(HTTP):
        async def _send(self, request, key):
            try:
                return await super()._send(request, key)
            except LMStatusError:
                return await super()._send(request, key)

    case = Case(lambda: Eager("m", server.url), wire=True)
    with pytest.raises(AssertionError, match="is expected"):
        run_contract(case, "test_errors_of_the_wire_have_their_kind", server, tmp_path)


def test_what_a_subclass_does_not_give_is_skipped_and_nothing_else(server, tmp_path):
    kept = {name: run_contract(Case(Good), name, server, tmp_path / name) for name in PROMISES}
    skipped = {name for name, number in kept.items() if number == 0}
    assert skipped == {
        "test_another_lm_has_another_identity",
        "test_another_process_makes_the_same_keys",
        "test_errors_of_the_wire_have_their_kind",
        "test_errors_have_their_kind",
        "test_a_retry_on_the_wire_sends_again",
    }
    assert all(kept[name] in (0, len(variants(getattr(LMContract, name)))) for name in PROMISES)


def test_retried_it_is_tested_as_well(server, tmp_path):
    async def no_wait(seconds):
        pass

    case = Case(lambda: Retry(HTTP("m", server.url, SECRET), sleep=no_wait), wire=True)
    for name in ("test_retries_go_on_top", "test_a_run_pays_once", "test_secrets_show_nowhere"):
        assert run_contract(case, name, server, tmp_path / name) == 1


def test_without_make_it_says_so(server):
    with pytest.raises(NotImplementedError, match=r"does not define make\(\)"):
        LMContract().make()


def test_without_pytest_the_error_says_what_to_install():
    code = "import sys; sys.modules['pytest'] = None; import promptgrad.testing; import promptgrad.testing.lms"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: promptgrad.testing.lms is a suite of pytest" in done.stderr
    assert "pip install pytest" in done.stderr
