import difflib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad import lm, nn, optim
from promptgrad.autograd import Critique, Gradient
from promptgrad.errors import HunkError, SignatureError
from promptgrad.optim import Hunk, apply_hunks
from promptgrad.testing import LoopbackLM

OLD = "Take the first word of {text}.\nAnswer in one word.\nAnswer in English."


class TestApplying:
    @pytest.mark.parametrize(
        ("hunks", "new"),
        [
            ([Hunk("replace", "first", "last")], OLD.replace("first", "last")),
            ([Hunk("delete", "\nAnswer in English.")], OLD.removesuffix("\nAnswer in English.")),
            ([Hunk("insert", "{text}", " as it stands")], OLD.replace("{text}", "{text} as it stands")),
            ([Hunk("insert", "", "Think. ")], "Think. " + OLD),
            ([Hunk("insert", "English.", "\nBe brief.")], OLD + "\nBe brief."),
            (
                [Hunk("delete", " English."), Hunk("insert", "", "Now: "), Hunk("replace", "Take", "Read")],
                "Now: " + OLD.replace("Take", "Read").replace(" English.", ""),
            ),
            (
                [Hunk("replace", "first", "last"), Hunk("insert", " word of", " all")],
                OLD.replace("first word of", "last word of all"),
            ),
        ],
    )  # fmt: skip
    def test_places_are_looked_up_in_the_old_text(self, hunks, new):
        assert apply_hunks(OLD, hunks) == new
        assert apply_hunks(OLD, hunks[::-1]) == new

    @pytest.mark.parametrize(
        ("hunks", "index", "reason"),
        [
            ([Hunk("replace", "second", "last")], 0, r"hunk 1 \(replace 'second'\) .* not in the text"),
            ([Hunk("delete", "first"), Hunk("delete", "Answer in")], 1, r"hunk 2 .* occurs more than once"),
            ([Hunk("delete", "first word"), Hunk("replace", "word of", "of")], 1, "hunk 2 .* overlaps hunk 1"),
            ([Hunk("replace", "word of", "of"), Hunk("delete", "first word")], 0, "hunk 1 .* overlaps hunk 2"),
            ([Hunk("insert", "first", "a"), Hunk("insert", "first", "b")], 1, "overlaps"),
            ([Hunk("insert", "", "a"), Hunk("insert", "", "b")], 1, "overlaps"),
            ([Hunk("delete", "first", "last")], 0, "a delete has none"),
            ([Hunk("replace", "first")], 0, "brings no text"),
            ([Hunk("insert", "first", "")], 0, "brings no text"),
            ([Hunk("replace", "", "x")], 0, "has no anchor"),
            ([Hunk("move", "first", "x")], 0, "is none of"),
            ([], None, "there is no hunk"),
        ],
    )
    def test_what_does_not_apply_is_refused_by_name(self, hunks, index, reason):
        with pytest.raises(HunkError, match=reason) as caught:
            apply_hunks(OLD, hunks)
        assert caught.value.index == index
        assert caught.value.hunk == (None if index is None else hunks[index])

    def test_an_anchor_that_overlaps_itself_occurs_twice(self):
        with pytest.raises(HunkError, match="more than once"):
            apply_hunks("aaa", [Hunk("delete", "aa")])


def hunks_between(old, new):
    """The difference of two texts as hunks: each widened until its anchor is unique, those that touch joined."""
    edits = [
        [i, j, new[a:b]]
        for tag, i, j, a, b in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        if tag != "equal"
    ]

    def clear(start, end):
        return start < end and old.find(old[start:end]) == start and old.find(old[start:end], start + 1) < 0

    done = []
    while edits:
        start, end, text = edits.pop(0)
        while not clear(start, end):
            if start > 0:
                start, text = start - 1, old[start - 1] + text
                if done and done[-1][1] > start:  # joins the one before
                    first, _, before = done.pop()
                    start, text = first, before + text[1:]
            elif end < len(old):
                end, text = end + 1, text + old[end]
            else:
                break
            if edits and edits[0][0] < end:
                _, stop, after = edits.pop(0)
                end, text = stop, text[:-1] + after
        done.append((start, end, text))
    return [
        Hunk("insert", "", text) if start == end else Hunk("replace", old[start:end], text) if text else
        Hunk("delete", old[start:end])
        for start, end, text in done
    ]  # fmt: skip


texts = st.lists(st.sampled_from(["a", "b", " ", "\n", "answer", "in ", "{x}", "é", "."]), max_size=12).map("".join)


@settings(deadline=None)
@given(texts, texts)
def test_the_hunks_of_a_difference_give_the_new_text(old, new):
    hunks = hunks_between(old, new)
    if old == new:
        assert hunks == []
    else:
        assert apply_hunks(old, hunks) == new
        assert apply_hunks(old, hunks[::-1]) == new


@settings(deadline=None)
@given(texts, st.lists(st.builds(Hunk, st.sampled_from(["insert", "replace", "delete"]), texts, texts), max_size=4))
def test_hunks_apply_wholly_or_raise(old, hunks):
    try:
        new = apply_hunks(old, hunks)
    except HunkError:
        return
    removed = sum(len(hunk.anchor) for hunk in hunks if hunk.op != "insert")
    assert len(new) == len(old) - removed + sum(len(hunk.text) for hunk in hunks)


def model_on(instruction=OLD):
    model = nn.Predict("text -> word", instruction=instruction)
    list(model.named_parameters())
    model.instruction.grad = Gradient([Critique("e", "", 0, "instruction", "It should take the last word.")])
    return model


@pytest.mark.parametrize("adapter", ["chat", "json"])
class TestOverTheWire:
    """Through a real server, a real adapter and a typed parse."""

    def reply(self, adapter, hunks):
        return f'{{"hunks": {hunks}}}' if adapter == "json" else f"[[ ## hunks ## ]]\n{hunks}\n\n[[ ## completed ## ]]"

    def step(self, adapter, *replies, **options):
        with LoopbackLM() as server:
            server.script(*(self.reply(adapter, reply) for reply in replies))
            model = model_on()
            writer = lm.HTTP("m", base_url=server.url, api_key="none", adapter=adapter)
            opt = optim.TGD(model.parameters(), lm=writer, edits="hunks", **options)
            return model, opt, opt.step(), server.requests

    def test_hunks_are_applied(self, adapter):
        model, _, report, requests = self.step(
            adapter,
            '[{"op": "replace", "anchor": "first", "text": "last"},'
            ' {"op": "delete", "anchor": "\\nAnswer in English."}]',
        )
        assert model.instruction.data == "Take the last word of {text}.\nAnswer in one word."
        change = report.changes[0]
        assert change.hunks == (Hunk("replace", "first", "last"), Hunk("delete", "\nAnswer in English."))
        assert 0 < change.edit < 0.5
        assert change.usage.calls == report.calls == len(requests) == 1
        asked = str(requests[0].json)
        assert "quotes its anchor" in asked
        assert "Take the first word of {text}" in asked

    def test_one_that_does_not_apply_rejects_all(self, adapter):
        model, opt, report, _ = self.step(
            adapter,
            '[{"op": "replace", "anchor": "first", "text": "last"}, {"op": "delete", "anchor": "Answer in"}]',
        )
        assert model.instruction.data == OLD
        assert report.changes[0].status == "rejected"
        assert (
            "hunk 2 (delete 'Answer in') does not apply: its anchor occurs more than once" in report.changes[0].reason
        )
        assert "hunk 2" in opt.state[model.instruction]["rejected"][0]["effect"]

    def test_a_reply_of_another_form_is_asked_for_again_and_then_rejected(self, adapter):
        wrong = '[{"op": "move", "anchor": "first", "text": "last"}]'
        model, _, report, requests = self.step(adapter, wrong, wrong)
        assert model.instruction.data == OLD
        assert report.changes[0].status == "rejected"
        assert "the reply holds no hunks" in report.changes[0].reason
        assert len(requests) == 2

    def test_the_rules_hold_for_hunks_too(self, adapter):
        model, _, report, _ = self.step(adapter, '[{"op": "delete", "anchor": "{text}"}]')
        assert "drops the placeholder" in report.changes[0].reason
        model, _, report, _ = self.step(
            adapter, '[{"op": "replace", "anchor": "first word of", "text": "last of all in"}]', max_edit=0.1
        )
        assert re.search(r"removes or replaces \d+% of the text, more than max_edit=0.1", report.changes[0].reason)
        assert model.instruction.data == OLD


def test_the_embedded_model_cannot_write_hunks():
    with pytest.raises(SignatureError, match='use edits="rewrite"'):
        optim.TGD(model_on().parameters(), lm="pocket", edits="hunks")
    with pytest.raises(SignatureError, match='use edits="rewrite"'):
        optim.TGD(model_on().parameters(), lm=lm.resolve("pocket"), edits="hunks")
    opt = optim.TGD(model_on().parameters(), edits="hunks")
    with lm.context(lm="pocket"), pytest.raises(SignatureError, match='use edits="rewrite"'):
        opt.step()


def test_an_unknown_form_of_edits():
    with pytest.raises(ValueError, match='"rewrite" or "hunks"'):
        optim.TGD(model_on().parameters(), edits="patch")
