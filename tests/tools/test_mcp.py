"""`Toolset.from_mcp`, with servers that are real processes: on pipes and over HTTP, slow, crashing, lying."""

import asyncio
import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad import aio, nn
from promptgrad.errors import ToolError, ToolServerError
from promptgrad.lm import ToolCall, ToolResult
from promptgrad.tools import MCPTools
from promptgrad.tools._mcp_server import ErrorTail
from tests.waiting import given_time, until

pytest.importorskip("mcp")
LAB = [sys.executable, str(Path(__file__).with_name("lab_server.py"))]
ODD = [sys.executable, str(Path(__file__).with_name("odd_server.py"))]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def call(name, **arguments):
    return ToolCall("c1", name, arguments)


@pytest.fixture(scope="module")
def lab():
    with pg.Toolset.from_mcp(LAB) as tools:
        yield tools


@pytest.fixture(scope="module")
def odd():
    with pg.Toolset.from_mcp(ODD) as tools:
        yield tools


class TestNormal:
    def test_its_tools_are_tools(self, lab):
        assert lab.name == "lab"
        assert lab.names[:4] == ("add", "visit", "picture", "fail")
        assert repr(lab).startswith("Toolset('lab') of 9 tools:\n  add(a: int, b: int = ...): Add two numbers.\n")
        assert lab["add"].run(call("add", a="2")) == 3
        assert lab["visit"].run(call("visit", place='{"City": "Oslo"}', days="[1, '2']")) == {
            "city": "OSLO",
            "country": "Norway [1, 2]",
        }
        with pytest.raises(ToolError, match="Error executing tool fail"):  # the SDK's server tells no more
            lab["fail"].run(call("fail", why="it has sunk"))

    def test_results_are_what_a_model_is_shown(self, lab):
        results = lab.results([call("add", a=1), call("picture"), call("fail", why="x"), call("add", a="many")])
        assert results[0] == ToolResult("c1", "2")
        text, image = results[1].content
        assert (str(text), image) == (f"A point:\n{image}", pg.Image(PNG))
        assert results[2].is_error
        assert results[3].is_error
        assert "`a`" in str(results[3].content)

    def test_megabytes_are_cut(self, lab):
        shown = lab["large"].result(call("large", size=1_000_000))
        assert shown.content == "x" * 10_000 + "... (990000 characters more)"

    def test_a_slow_call_is_given_up_and_holds_up_no_other(self, lab):
        def check(seconds):
            begun = lab["count_slow"].run(call("count_slow"))
            slow = lab["slow"].replace(timeout=seconds)
            given_up, added = pg.Toolset([slow, lab["add"]]).results([call("slow"), call("add", a=1)])
            assert given_up.is_error
            assert f"gave no result within {seconds:g} seconds" in given_up.content
            assert added.content == "2"
            assert lab["count_slow"].run(call("count_slow")) == begun + 1

        given_time(check, 0.3)

    def test_from_threads_and_loops_of_ones_own(self, lab):
        async def many():
            return await asyncio.gather(*(lab["add"].arun(call("add", a=number)) for number in range(20)))

        assert asyncio.run(many()) == list(range(1, 21))
        with pg.Executor() as pool:
            assert list(pool.map(lambda number: lab["add"].run(call("add", a=number)), range(20))) == list(range(1, 21))

    @pytest.mark.parametrize("native", [False, True])
    def test_an_agent_uses_them(self, lab, native):
        steps = [("add", {"a": 2, "b": 3}), ("picture", {}), ("finish", {"answer": "5"})]
        asked = []

        def respond(request: pg.lm.Request) -> pg.lm.Completion:
            asked.append(request.messages)
            name, arguments = steps[len(asked) - 1]
            made = ToolCall(str(len(asked)), name, arguments)
            if native:
                return pg.lm.Completion((made,))
            values = {"thought": "So.", "tool": name, "arguments": made.arguments}
            return pg.lm.Completion("\n\n".join(f"[[ ## {key} ## ]]\n{value}" for key, value in values.items()))

        agent = nn.ReAct("question -> answer", tools=lab.only("add", "picture"), native=native, adapter="chat")
        agent.to(pg.lm.FunctionLM(respond, name="agent"))
        assert list(agent.tools) == ["add", "picture"]
        assert copy.deepcopy(agent).tools["add"].description.data == "Add two numbers."
        assert agent("What is 2 and 3?").answer == "5"
        assert "5" in asked[1][-1].preview
        assert pg.Image(PNG) in asked[2][-1].content

    def test_a_connection_is_no_value(self, lab):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(lab["add"])


def test_the_last_words_of_a_process_are_waited_for():
    for _ in range(200):
        tail = ErrorTail()
        writer = tail.reading()
        os.write(writer, b"the last")
        os.close(writer)
        assert aio.drive(tail.whole()) == "the last"
    assert aio.drive(ErrorTail().whole()) == ""  # nobody ever wrote


class TestItsEnd:
    def test_a_server_that_crashes_is_started_again_by_the_next_call(self):
        server = pg.Toolset.from_mcp(ODD, restarts=1)
        with server as tools:
            first = tools["who"].run(call("who"))
            crashed = tools["half"].result(call("half"))
            assert crashed == ToolResult(
                "c1", "ToolServerError: the server 'odd' ended before it answered the call of `half`", is_error=True
            )
            assert tools["who"].run(call("who")) != first
            assert server.starts == 2
            with pytest.raises(ToolServerError) as caught:
                tools["half"].run(call("half"))
            assert caught.value.stderr == "the key is k-123"
            assert "k-123" not in str(caught.value)
            assert "k-123" not in repr(server)
            assert (caught.value.server, caught.value.tool) == ("odd", "half")

    def test_a_server_that_crashes_again_and_again_is_left(self):
        server = pg.Toolset.from_mcp(ODD, restarts=2)
        with server as tools:
            said = [tools["half"].result(call("half")).content for _ in range(5)]
        assert server.starts == 3
        assert ["ended before it answered" in text for text in said] == [True, True, True, False, False]
        assert "ended 3 times in a row, and is not started again" in said[-1]

    def test_calls_in_flight_end_with_their_server(self):
        async def main(tools):
            waiting = [asyncio.ensure_future(tools["stranger"].aresult(call("stranger"))) for _ in range(3)]
            while not all(task.done() for task in waiting):
                await tools["half"].aresult(call("half"))
                await asyncio.sleep(0.01)
            return await asyncio.gather(*waiting)

        with pg.Toolset.from_mcp(ODD, timeout=600) as tools:
            ended = asyncio.run(main(tools))
        assert [result.is_error for result in ended] == [True] * 3
        assert "ended before it answered the call of `stranger`" in ended[0].content

    def test_a_closed_server_says_so_and_opens_again(self):
        server = pg.Toolset.from_mcp(ODD, name="my tools")
        assert repr(server) == f"MCPTools('my tools', command=['{Path(sys.executable).name}', ...], not connected)"
        with pytest.raises(ToolServerError, match="not connected"):
            _ = server.toolset
        tools = server.open()
        assert server.open() is tools is server.toolset
        assert tools["refuse"].result(call("refuse")).is_error
        server.close()
        server.close()
        assert repr(server).endswith("16 tools, closed)")
        assert "the server 'my tools' is closed" in tools["noise"].result(call("noise")).content
        assert server.open() is tools
        assert tools["noise"].run(call("noise")) == "after the noise"
        server.close()
        assert server.starts == 2

    def test_async_with(self):
        async def main():
            async with pg.Toolset.from_mcp(ODD, prefix="odd_", max_chars=5) as tools:
                return tools, await tools["odd_noise"].aresult(call("odd_noise"))

        tools, result = asyncio.run(main())
        assert all(name.startswith("odd_") for name in tools.names)
        assert result.content == "after... (10 characters more)"


class TestSize:
    def test_a_message_without_an_end_ends_the_connection_and_says_why(self):
        server = pg.Toolset.from_mcp(ODD, max_bytes=300_000)
        with server as tools:
            ended = tools["endless_line"].result(call("endless_line"))
            assert ended.is_error
            assert "the server 'odd' sent a message of more than 300,000 bytes before it answered" in ended.content
            assert tools["noise"].run(call("noise")) == "after the noise"
            assert server.starts == 2
        with pytest.raises(ValueError, match="max_bytes"):
            pg.Toolset.from_mcp(ODD, max_bytes=0)


class TestOtherTools:
    def test_a_server_says_that_it_has_other_tools(self):
        server = pg.Toolset.from_mcp(LAB)
        with server as tools:
            assert not server.changed
            assert server.refresh().names == tools.names
            tools["learn"].run(call("learn", called="fresh"))
            until(lambda: server.changed)
            more = server.refresh()
            assert not server.changed
            assert more.names == (*tools.names, "fresh")
            assert more is server.toolset
            assert more["fresh"].run(call("fresh")) == "it is new"
        assert not server.changed

    def test_also_by_the_older_protocol_and_when_it_is_started_anew(self):
        server = pg.Toolset.from_mcp(ODD, prefix="odd_")
        with server as tools:
            assert tools["odd_forget"].run(call("odd_forget")) == "one tool less"
            assert server.changed
            fewer = server.refresh()
            assert len(fewer) == len(tools) - 1
            assert fewer.names[0] == "odd_files_read_it_"  # its own name is free now
            assert fewer["odd_files_read_it_"] != tools["odd_files_read_it_"]
            assert not server.changed
            assert tools["odd_half"].result(call("odd_half")).is_error
            tools["odd_who"].run(call("odd_who"))
            assert server.changed  # the new process has all of them again
            assert server.refresh().names == tools.names

    def test_what_is_not_open_cannot_be_listed(self):
        with pytest.raises(ToolServerError, match="is closed"):
            pg.Toolset.from_mcp(ODD).refresh()


class TestResources:
    def test_they_are_listed_and_read_also_by_a_model(self):
        server = pg.Toolset.from_mcp(LAB)
        with server as tools:
            assert server.resources() == {"note://today": "today: What is on today.", "picture://dot": "dot"}
            assert server.read("note://today") == "tea at four"
            assert server.read("picture://dot") == pg.Image(PNG)
            read = pg.Toolset([*tools, server.read])["read"]
            assert read.description.startswith("Read what the server offers at an address.")
            assert read.run(call("read", uri="note://today")) == "tea at four"
            assert read.result(call("read", uri="note://never")).is_error
            with pytest.raises(ToolError, match="cannot be used"):
                server.read("no address at all")
        with pytest.raises(ToolServerError, match="is closed"):
            server.read("note://today")

    def test_a_server_without_them_says_so(self, odd):
        with pg.Toolset.from_mcp(ODD) as _, pytest.raises(ToolError, match="no such method"):
            odd["who"].function.owner.resources()


class TestPrompts:
    def test_they_are_listed_and_filled_in_and_are_messages_and_turns(self):
        server = pg.Toolset.from_mcp(LAB)
        with server:
            assert server.prompts() == {"review": "(code, style=...): Review code."}
            messages = server.prompt("review", code="x = 1", style=["plain", 2])
            first = ("user", (pg.lm.TextPart('Review, ["plain", 2]:'), pg.Image(PNG)))
            assert [(one.role, one.content) for one in messages] == [
                first,
                ("assistant", "Gladly."),
                ("user", "x = 1"),
            ]
            model = pg.lm.FunctionLM(lambda asked: f"{len(asked)}: {asked[-1].text}", name="m")
            assert model(messages).text == "3: x = 1"
            with pytest.raises(
                ToolError, match=r"lacks 'code' and has no argument 'c': it is review\(code, style=...\)"
            ):
                server.prompt("review", c="red")
            with pytest.raises(ToolError, match="the server has no prompt 'nothing': there are review"):
                server.prompt("nothing")
        with pytest.raises(ToolServerError, match="is closed"):
            server.prompts()

    def test_they_are_earlier_turns_of_a_program(self):
        with (server := pg.Toolset.from_mcp(LAB)):
            history = pg.History(server.prompt("review", code="x = 1"))
        seen = []

        def respond(request: pg.lm.Request) -> pg.lm.Completion:
            seen.append([(message.role, message.preview) for message in request.messages])
            return pg.lm.Completion("[[ ## answer ## ]]\nfine")

        chat = nn.Predict("history: History, question -> answer").to(pg.lm.FunctionLM(respond, name="m"))
        assert chat(history=history, question="And y?").answer == "fine"
        roles, texts = zip(*seen[0], strict=True)
        assert roles == ("system", "user", "assistant", "user")
        assert texts[1].startswith("Review, short:")
        assert texts[2] == "Gladly."
        assert texts[3].startswith("x = 1\n")
        assert pg.History.of(json.loads(json.dumps(history.dump()))) == history

    def test_a_server_without_them_says_so(self):
        with (server := pg.Toolset.from_mcp(ODD)), pytest.raises(ToolError, match="no such method"):
            server.prompts()


class TestStart:
    @pytest.mark.parametrize(
        ("command", "words"),
        [
            (["no-such-program"], "FileNotFoundError"),
            ([*ODD, "refuses"], "the last that it wrote: no licence"),
            ([*ODD, "nonsense"], "does not speak the protocol: .*inputSchema.required.0"),
        ],
    )
    def test_a_server_that_cannot_be_started(self, command, words):
        with pytest.raises(ToolServerError, match=f"(?s){words}"):
            pg.Toolset.from_mcp(command).open()

    def test_a_server_that_says_nothing(self):
        server = pg.Toolset.from_mcp([*ODD, "mute"], timeout=0.2)
        with pytest.raises(ToolServerError, match=r"did not answer within 0.2 seconds"):
            server.open()

    def test_nobody_at_the_address(self):
        with pytest.raises(ToolServerError, match="cannot be reached"):
            pg.Toolset.from_mcp(url="http://127.0.0.1:9/mcp").open()

    def test_a_list_without_an_end_is_bounded(self):
        with pg.Toolset.from_mcp([*ODD, "endless"]) as tools:
            assert len(tools) == 2000
            assert len(set(tools.names)) == 2000

    def test_what_makes_no_server_is_told(self):
        for given, words in (
            ({}, "command="),
            ({"command": ["x"], "url": "http://x"}, "command="),
            ({"command": []}, "the program and its arguments"),
            ({"command": ["x"], "headers": {"a": "b"}}, "headers= and auth= belong to url="),
            ({"url": "http://x", "env": {"a": "b"}}, "env= and cwd= belong to command="),
            ({"url": "ftp://x"}, "an address such as"),
            ({"command": "x", "timeout": 0}, "timeout"),
            ({"command": "x", "restarts": -1}, "restarts"),
        ):
            with pytest.raises(ValueError, match=words):
                pg.Toolset.from_mcp(**given)
        with pytest.raises(TypeError, match="has no argument 'retries'"):
            pg.Toolset.from_mcp("x", retries=3)

    def test_secrets_are_not_shown(self):
        made = [
            pg.Toolset.from_mcp(["serve", "--key=secret"], env={"KEY": "secret"}),
            pg.Toolset.from_mcp(url="https://me:secret@host/mcp?key=secret", headers={"Authorization": "secret"}),
        ]
        assert "secret" not in repr(made)
        assert all(isinstance(one, MCPTools) for one in made)


class TestLies:
    def test_names_that_providers_do_not_take_are_mended(self, odd):
        assert odd.names[:3] == ("files_read_it_", "files_read_it__2", "tool")
        read = odd["files_read_it_"].run(call("files_read_it_", path={"a": 1}, **{"from": "3"}))
        assert read == '{"path": {"a": 1}, "from": 3}'

    @pytest.mark.parametrize("name", ["liar", "silent", "broken_schema", "nothing"])
    def test_what_does_not_fit_what_was_declared_is_an_error(self, odd, name):
        result = odd[name].result(call(name))
        assert result.is_error
        assert "the server's answer cannot be used" in result.content
        assert "not with me" in odd["refuse"].result(call("refuse")).content

    def test_what_is_called_an_image_and_is_none_is_told(self, odd):
        shown = odd["picture"].run(call("picture"))
        assert shown.startswith("(an unreadable image: ")
        assert shown.endswith("more: file:///x")
        assert len(odd["picture"].description) < 10_050

    def test_an_answer_for_somebody_else_is_no_answer(self, odd):
        assert "gave no result" in odd["stranger"].replace(timeout=0.2).result(call("stranger")).content
        assert odd["noise"].run(call("noise")) == "after the noise"


@pytest.fixture
def http(request):
    """Starts a server over HTTP, by default the lab; gives its address and the process."""
    command = [*getattr(request, "param", LAB), "http"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/mcp", process
        process.kill()


@pytest.mark.parametrize("http", [ODD], indirect=True, ids=["odd"])
def test_lies_over_http(http):
    with pg.Toolset.from_mcp(url=http[0], max_bytes=300_000) as tools:
        assert tools.names[:3] == ("files_read_it_", "files_read_it__2", "tool")
        assert tools["files_read_it_"].run(call("files_read_it_", path=1, **{"from": "3"})) == '{"path": 1, "from": 3}'
        for name in ("liar", "silent", "broken_schema", "nothing", "refuse", "noise", "endless_line", "packed"):
            result = tools[name].result(call(name))
            assert result.is_error, name
            assert "the server's answer cannot be used" in result.content
            assert len(result.content) < 2_000
        assert "compressed" in result.content
        assert "gave no result" in tools["stranger"].replace(timeout=0.2).result(call("stranger")).content
        assert tools["picture"].run(call("picture")).endswith("more: file:///x")
        assert tools["half"].result(call("half")).is_error  # a half of an answer, and its end
        assert tools["who"].result(call("who")).is_error  # nobody is there any more


def test_over_http(http, monkeypatch):
    url, process = http
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which is not asked for this machine
    with pg.Toolset.from_mcp(url=url, headers={"X-Key": "k"}) as tools:
        assert tools["add"].run(call("add", a=1)) == 2
        assert tools["large"].result(call("large", size=3_000_000)).content.endswith("(2990000 characters more)")
        slow = tools["slow"].replace(timeout=0.5)
        assert "gave no result" in slow.result(call("slow")).content
        ended = tools["crash"].result(call("crash"))
        assert ended.is_error
        assert "ended before it answered the call of `crash`" in ended.content
        process.wait()
        again = tools["add"].result(call("add", a=1))
        assert again.is_error
        assert "cannot be reached" in again.content


def test_an_answer_over_http_is_bounded_and_other_tools_are_heard_of(http):
    server = pg.Toolset.from_mcp(url=http[0], max_bytes=300_000)
    with server as tools:
        refused = tools["large"].result(call("large", size=1_000_000))
        assert refused.is_error
        assert "the answer has more than 300,000 bytes" in refused.content
        assert tools["large"].result(call("large", size=1_000)).content == "x" * 1000
        assert server.starts == 1
        tools["learn"].run(call("learn", called="fresh"))
        until(lambda: server.changed)
        assert "fresh" in server.refresh()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads the processes of Linux")
def test_a_process_that_forgets_to_close_leaves_no_server(tmp_path):
    script = tmp_path / "forgets.py"
    mark = str(tmp_path / "mark")
    script.write_text(
        "import promptgrad as pg\n"
        f"tools = pg.Toolset.from_mcp({[*ODD, 'odd', mark]!r}).open()\n"
        "print(tools['noise'].run(pg.ToolCall('', 'noise')))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, "after the noise\n")
    until(lambda: mark not in _commands())


def _commands():
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:  # it has just ended
            continue
    return "\n".join(found)
