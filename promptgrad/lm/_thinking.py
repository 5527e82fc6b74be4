"""`without_thinking`: the thoughts that a model wrote into its text become reasoning parts, apart from the answer.

Servers that do not separate a model's reasoning from its answer send both as one text, in the dialect of the model's
chat template. Only thoughts at the beginning are split off: such a tag in the middle of an answer is a part of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from promptgrad._patterns import late_pattern
from promptgrad.lm._completion import Completion
from promptgrad.lm._may_think import SPOKEN, TURN_STARTS, may_think, turn_at_start
from promptgrad.lm._parts import Part, ReasoningPart, TextPart

_ALWAYS = r"\w{0,20}think\w{0,20}|chain[_-]of[_-]thought|(?:inner[_-]|internal[_-])?monologue|scratchpad|cot"
_MAYBE = r"\w{0,20}thoughts?(?:_\w{1,20})?|\w{0,20}reason(?:ing)?(?:_\w{1,20})?|reflection|analysis"
"""Tags that a program may ask for as well: one that its prompt names is left where it is."""
_TAG = late_pattern(rf"<(?:\w{{1,20}}:)?({_ALWAYS}|{_MAYBE})(?:\s[^<>]{{0,200}})?(?<!/)>", re.IGNORECASE)
_EMPTY_TAG = late_pattern(rf"<(?:\w{{1,20}}:)?(?:{_ALWAYS})\s?/>", re.IGNORECASE)
_CLOSED_TAG = late_pattern(rf"</(?:\w{{1,20}}:)?({_ALWAYS}|{_MAYBE})\s?>", re.IGNORECASE)
_ENDS_THINKING = late_pattern(rf"</({_ALWAYS})>\Z", re.IGNORECASE)
_BRACKET = late_pattern(r"\[(THINK|THINKING|REASONING)\]")
_SMALL_BRACKET = late_pattern(r"\[(think|thinking|reasoning)\]", re.IGNORECASE)
"""The same in another case, where it closes: "[Thinking] about it" may be an answer."""
_FOLDED = late_pattern(
    r"<details(?P<kind>\s[^<>]{0,200})?>\s*<summary(?:\s[^<>]{0,200})?>(?P<title>[^<>]{0,200})</summary>", re.IGNORECASE
)
"""A part of a page that people unfold, as interfaces write a model's thoughts."""
_OF_THOUGHT = late_pattern(r"\b(?:reason|think|thought)", re.IGNORECASE)
_FENCE = late_pattern(r"```(?:think|thinking|thoughts?|reasoning)[ \t]*\n")
_WIDE = ("\N{FULLWIDTH LESS-THAN SIGN}", "\N{FULLWIDTH GREATER-THAN SIGN}")
_SIGNS = {  # what opens a thought, in the special tokens of a family of models, and what closes it
    "<|channel>thought": "<channel|>",
    "<unused94>thought": "<unused95>",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "\N{WHITE LEFT-POINTING TRIANGLE}think\N{WHITE RIGHT-POINTING TRIANGLE}": (
        "\N{WHITE LEFT-POINTING TRIANGLE}/think\N{WHITE RIGHT-POINTING TRIANGLE}"
    ),
    "<|im_start|>think": "<|im_start|>answer",
    "/think\n": "<|im_start|>assistant",
    "<ctrl94>thought": "<ctrl95>",
    **{
        f"{opens}{name}{closes}": f"{opens}/{name}{closes}"
        for name in ("think", "thinking")
        for opens, closes in (("&lt;", "&gt;"), ("\\<", "\\>"), _WIDE)
    },
    "Here is my thought process:": "Here is my response:",
    "Here's my thought process:": "Here's my response:",
    "Here are my reasoning steps:": "[BEGIN FINAL RESPONSE]",
    "Thinking...\n": "...done thinking.",
}
_BAR = "[|\N{FULLWIDTH VERTICAL LINE}]"
_GAP = "[_\N{LOWER ONE EIGHTH BLOCK}]"
_THOUGHT = "think|thinking|thoughts?|reasoning"
_TOKEN = late_pattern(
    rf"<{_BAR}(?:(?:begin|start){_GAP}(?:of{_GAP})?)?({_THOUGHT})(?:{_GAP}(?:start|begin))?{_BAR}>", re.IGNORECASE
)
"""A special token that opens a thought, in the families of models that name it so: "<|begin_of_thought|>"."""
_TOKEN_END = late_pattern(
    rf"<{_BAR}(?:/(?:{_THOUGHT})|end{_GAP}(?:of{_GAP})?(?:{_THOUGHT})|(?:{_THOUGHT}){_GAP}end){_BAR}>", re.IGNORECASE
)
_TOKEN_OR_TURN_END = late_pattern(rf"{_TOKEN_END.pattern}|<\|end\|>", re.IGNORECASE)
_CHANNEL = "<|channel|>"
_BODY = "<|message|>"
_CHANNEL_ENDS = late_pattern(r"<\|(?:end|return|call|start)\|>")
_LATER_CHANNEL = "<|end|><|start|>assistant<|channel|>"
SPOKEN_WITHOUT_END = late_pattern(r"analysis(?:We|The user|User|Let|I|Need|Just|Okay|They)\b")
_WRAPPED = {
    "<|content|>": "<|end|>",
    "<|message|>": "<|return|>",
    "<|START_TEXT|>": "<|END_TEXT|>",
    "<|begin_of_solution|>": "<|end_of_solution|>",
    "<|START_RESPONSE|>": "<|END_RESPONSE|>",
    "<|begin_of_box|>": "<|end_of_box|>",
}
_RESPONSE_END = late_pattern(r"\[END FINAL RESPONSE\]\s*(?:<\|end\|>)?\Z")
_BOX = "<|begin_of_box|>"
_LONE_SIGNS = (
    "[/THINK]",
    "[BEGIN FINAL RESPONSE]",
    *(closes for opens, closes in _SIGNS.items() if not (opens[0].isalpha() or "im_start" in closes)),
)
_MOST_BLOCKS = 20
_ANSWER_TAG = late_pattern(r"<(answer|response|solution|output|final|final_answer)>", re.IGNORECASE)
_UNSEEN = " \t\r\n\ufeff\u200b\u2060"
_TURN = late_pattern(
    r"(?:(?:<s>|<bos>|<\|begin_of_text\|>|<\|startoftext\|>|\[gMASK\]<sop>|"
    r"<\N{FULLWIDTH VERTICAL LINE}begin\N{LOWER ONE EIGHTH BLOCK}of\N{LOWER ONE EIGHTH BLOCK}sentence"
    r"\N{FULLWIDTH VERTICAL LINE}>)\s*)?"
    r"(?:<\|im_start\|>assistant(?:<\|im_sep\|>)?|<\|begin\|>assistant|\[\|assistant\|\]|<SPECIAL_11>Assistant\b|"
    r"<role>ASSISTANT</role>|<\|start_header_id\|>assistant<\|end_header_id\|>|<\|assistant\|>|<start_of_turn>model\b|"
    r"<\|start_of_role\|>assistant<\|end_of_role\|>|<\N{FULLWIDTH VERTICAL LINE}Assistant\N{FULLWIDTH VERTICAL LINE}>|"
    r"assistant(?=analysis|\s*<\w{0,20}think)|(?<=>))"
)
"""The beginning of a turn, which some servers leave in."""


def without_thinking(
    completion: Completion, named: Collection[str] = (), prompt: str = "", begins: tuple[str, ...] = ()
) -> Completion:
    """Return the completion with the thoughts at the beginning of its text as `ReasoningPart`.

    A thought that never ends is all that there is: the text is then empty. Text with a closing tag alone, as models
    write it whose chat template opens the thought, is a thought up to there.

    Args:
        completion: The reply.
        named: Names of fields that were asked for: tags of these names belong to the answer.
        prompt: What was sent. A tag such as `<reasoning>` that it mentions was asked for and belongs to the answer.
        begins: How an answer begins that is as asked for: that is no thought, and a closing tag in it ends none.
    """
    content = completion.content
    if content.__class__ is str and not may_think(content):
        return completion
    if isinstance(content, str):
        text = content
    else:
        parts = completion.parts
        if not parts or not isinstance(parts[0], TextPart):  # its provider has separated them, or there is no text
            return _without_a_rest(completion, named)
        text = parts[0].text
    thoughts, answer = split_thinking(text, named, prompt, begins)
    if thoughts is None:
        return completion
    made: list[Part] = [ReasoningPart(thoughts)] if thoughts else []
    if not isinstance(content, str):
        made += [TextPart(answer)] if answer else []
        return replace(completion, content=(*made, *completion.parts[1:]))
    return replace(completion, content=(*made, TextPart(answer)) if made and answer else tuple(made) or answer)


def _without_a_rest(completion: Completion, named: Collection[str]) -> Completion:
    """A reply whose thoughts are apart, without the rest of them in its text, and without a tag around the answer.

    The rest is their closing tag, which some providers leave there.
    """
    parts = completion.parts
    for number, part in enumerate(parts):
        if isinstance(part, TextPart):
            text = part.text.lstrip()
            end = _CLOSED_TAG.match(text)
            bare = _without_answer_tag((text if end is None else text[end.end() :]).strip(), named)
            if end is None and len(bare) == len(text.rstrip()):
                break
            rest = TextPart(bare)
            return replace(completion, content=(*parts[:number], rest, *parts[number + 1 :]))
    return completion


def _without_answer_tag(text: str, named: Collection[str]) -> str:
    """A text without `<answer>` around it, where fields were asked for and none is called so."""
    tag = _ANSWER_TAG.match(text) if named else None
    if tag is not None and tag[1].lower() not in named:
        closes = f"</{tag[1]}>"
        if text.endswith(closes) and text.count(closes) == 1:
            return text[tag.end() : -len(closes)].strip()
    return text


def split_thinking(
    text: str, named: Collection[str] = (), prompt: str = "", begins: tuple[str, ...] = ()
) -> tuple[str | None, str]:
    """Return the thoughts (None where there are none) and the text after them."""
    thoughts: list[str] = []
    rest = text
    for _ in range(_MOST_BLOCKS):
        found = None if rest.lstrip(_UNSEEN).startswith(begins) else _leading(rest, named, prompt)
        if found is None:
            break
        thought, rest = found
        thoughts.append(thought)
    lone = None if rest.lstrip(_UNSEEN).startswith(begins) else _up_to_a_lone_end(rest, named, prompt)
    if lone:
        thoughts.append(lone[0])
        rest = lone[1]
    rest = rest.strip()
    if thoughts:
        rest = _unboxed(_RESPONSE_END.sub("", rest).rstrip())
        rest = _TURN.sub("", rest, count=1).lstrip() if _TURN.match(rest) else rest
    opens = next((opens for opens in _WRAPPED if rest.startswith(opens)), "")
    if opens:
        rest = rest[len(opens) :].removesuffix(_WRAPPED[opens]).strip()
    elif not thoughts:
        turn = turn_at_start(rest)
        return ("", rest[turn:].lstrip()) if turn else (None, text)
    behind = _behind(rest, named, prompt) if thoughts and rest.endswith(">") else None
    if behind is not None:
        rest, thought = behind
        thoughts.append(thought)
    rest = _without_answer_tag(rest, named)
    return "\n\n".join(thought for thought in thoughts if thought), rest


def _unboxed(text: str) -> str:
    """A text without the tokens around parts of it."""
    made, at = [], 0
    while (opens := text.find(_BOX, at)) >= 0 and (closes := text.find(_WRAPPED[_BOX], opens)) >= 0:
        made += [text[at:opens], text[opens + len(_BOX) : closes]]
        at = closes + len(_WRAPPED[_BOX])
    return "".join([*made, text[at:]])


def _leading(text: str, named: Collection[str], prompt: str) -> tuple[str, str] | None:
    """The thought with which a text begins, and what comes after it; None where it begins with something else."""
    text = _TURN.sub("", text.lstrip(_UNSEEN), count=1).lstrip(_UNSEEN) if _TURN.match(text.lstrip(_UNSEEN)) else text
    text = text.lstrip(_UNSEEN)
    match = _EMPTY_TAG.match(text)
    if match:
        return "", text[match.end() :]
    match = _TAG.match(text)
    if match:
        name = match[1].lower()
        if _is_asked_for(name, named, prompt):
            return None
        end = _end_of(name, text, match.end())
        if end is None:
            return text[match.end() :].strip(), ""
        return text[match.end() : end.start()].strip(), text[end.end() :]
    match = _BRACKET.match(text)
    if match:
        return _between(text, match.end(), f"[/{match[1]}]")
    match = _SMALL_BRACKET.match(text)
    if match and f"[/{match[1]}]" in text:
        return _between(text, match.end(), f"[/{match[1]}]")
    match = None if "<details" in prompt else _FOLDED.match(text)
    if match and (_OF_THOUGHT.search(match["title"]) or _OF_THOUGHT.search(match["kind"] or "")):
        return _between(text, match.end(), "</details>")
    match = None if "```" in prompt else _FENCE.match(text)
    if match and "\n```" in text[match.end() - 1 :]:
        return _between(text, match.end() - 1, "\n```")
    match = _TOKEN.match(text)
    if match:
        end = _TOKEN_OR_TURN_END.search(text, match.end())
        return _between(text, match.end(), "<|end|>" if end is None else end[0])
    for opens, closes in _SIGNS.items():
        if text.startswith(opens):
            if opens[0].isalpha() and closes not in text:  # words, not special tokens
                return None
            return _between(text, len(opens), closes)
    if text.startswith((_CHANNEL, "<|start|>assistant" + _CHANNEL, "analysis" + _BODY)):
        return _channels(text if text[0] == "<" else _CHANNEL + text)
    if _LATER_CHANNEL in text:  # the prompt began the first one
        return _channels(f"{_CHANNEL}analysis{_BODY}{text}")
    if text.startswith("analysis") and SPOKEN in text:
        return _between(text, len("analysis"), SPOKEN)
    if SPOKEN_WITHOUT_END.match(text):
        return text[len("analysis") :].strip(), ""
    return None


def _end_of(name: str, text: str, start: int) -> re.Match[str] | None:
    """The closing tag of a thought, in which the same tag may open again."""
    depth, last = 1, None
    for tag in _same_tag(name).finditer(text[start:]):
        depth += -1 if tag[1] else 1
        last = tag if tag[1] else last
        if not depth:
            break
    return None if last is None else re.compile(re.escape(last[0])).search(text, start + last.start())


def _same_tag(name: str) -> re.Pattern[str]:
    """A tag of this name that opens or closes; the first group is the slash of one that closes."""
    return re.compile(rf"<(/?)(?:\w{{1,20}}:)?{re.escape(name)}(?:\s[^<>]{{0,200}})?>", re.IGNORECASE)


def _between(text: str, start: int, closes: str) -> tuple[str, str]:
    end = text.find(closes, start)
    if end < 0:
        return text[start:].strip(), ""
    return text[start:end].strip(), text[end + len(closes) :]


def _channels(text: str) -> tuple[str, str]:
    """What was said in channels: that of the final one is the answer, the rest are thoughts."""
    thoughts: list[str] = []
    answers: list[str] = []
    for piece in text.split(_CHANNEL)[1:]:
        name, found, body = piece.partition(_BODY)
        body = _CHANNEL_ENDS.split(body, maxsplit=1)[0].strip() if found else ""
        (answers if name.split() and name.split()[0] == "final" else thoughts).append(body)
    return "\n\n".join(thoughts), answers[-1] if answers else ""


def _up_to_a_lone_end(text: str, named: Collection[str], prompt: str) -> tuple[str, str] | None:
    """A thought whose opening tag was in the prompt, and what comes after its end; None where there is no such end."""
    before, found, after = text.partition(SPOKEN)
    is_form = before.lstrip()[:1] in ("{", "[", "<")  # which holds it as a part of a value
    if found and after.strip() and not (is_form or {before[-1:], after[:1]} & set("`'\"")):
        return before.strip(), after
    for sign in _LONE_SIGNS:
        before, found, after = text.partition(sign)
        if found and sign.replace("/", "") not in before and _stands_apart(before, after):
            return before.strip(), after
    match = _TOKEN_END.search(text)
    if match and not _TOKEN.search(text, 0, match.start()):
        before, after = text[: match.start()], text[match.end() :]
        if _stands_apart(before, after):
            return before.strip(), after
    match = _CLOSED_TAG.search(text)
    if match is None or _is_asked_for(match[1].lower(), named, prompt):
        return None
    before, after = text[: match.start()], text[match.end() :]
    opened = any(tag[1].lower() == match[1].lower() for tag in _TAG.finditer(before))
    return None if opened or not _stands_apart(before, after) else (before.strip(), after)


def _behind(text: str, named: Collection[str], prompt: str) -> tuple[str, str] | None:
    """The answer and the thought behind it, of a model that thought before it as well; None where there is none."""
    closes = _ENDS_THINKING.search(text[-60:])
    if closes is None or _is_asked_for(closes[1].lower(), named, prompt):
        return None
    opens = f"<{closes[1]}>"
    before, found, thought = text[: -len(closes[0])].rpartition(opens)
    return (before.rstrip(), thought.strip()) if found and before.strip() and opens not in before else None


def _is_asked_for(name: str, named: Collection[str], prompt: str) -> bool:
    """Whether a tag is that of a field, or one that the prompt mentions and that is not a model's own."""
    return name in named or (re.fullmatch(_ALWAYS, name) is None and name in prompt.lower())


def _stands_apart(before: str, after: str) -> bool:
    """Whether the end of a thought stands between two texts, at the end of a sentence or a line and not in a quote."""
    if before.lstrip()[:1] in ("{", "[") or before.count("```") % 2 or {before[-1:], after[:1]} & set("`'\""):
        return False
    line = before.rpartition("\n")[2].strip()
    if after.lstrip().startswith(tuple(_WRAPPED)):
        return True
    glued = before[-1:].isalnum()  # a tag that is only spoken of has a space or a quote before it
    return not line or glued or not after.partition("\n")[0].strip() or line[-1] in ".!?"


_ALWAYS_TAG = late_pattern(rf"<(?:\w{{1,20}}:)?({_ALWAYS})(?:\s[^<>]{{0,200}})?>", re.IGNORECASE)
_LONGEST_START = 240
_LONGEST_END = 40
_FIRST_SIGNS = frozenset("<[\\&\N{WHITE LEFT-POINTING TRIANGLE}\N{FULLWIDTH LESS-THAN SIGN}")


class ThinkingFeed:
    """Tells thoughts from answer in a text that comes in pieces: those at its beginning, in tags or special tokens.

    What only the whole text shows, such as an end without a beginning, stays in the answer's pieces.

    Args:
        begins: As for `without_thinking`.
    """

    def __init__(self, begins: tuple[str, ...] = ()) -> None:
        self._begins = begins
        self._held = ""
        self._state = "start"
        self._end: re.Pattern[str] = _CLOSED_TAG
        self._depth = 1

    @property
    def is_past(self) -> bool:
        """Whether the answer has begun, so that every further piece is one of it."""
        return self._state == "answer" and not self._held

    def feed(self, piece: str) -> list[tuple[bool, str]]:
        """The parts of the text that are certain now, each with whether it is a thought."""
        if self._state == "answer":
            return [(False, piece)]
        self._held += piece
        told: list[tuple[bool, str]] = []
        while self._held:
            before = self._state, len(self._held)
            if self._state == "answer":
                told.append((False, self._held))
                self._held = ""
            elif self._state == "start":
                self._begin()
            else:
                self._think(told)
            if (self._state, len(self._held)) == before:
                break
        return told

    def rest(self) -> list[tuple[bool, str]]:
        """What was held back, at the end of the text."""
        held, self._held = self._held, ""
        return [(self._state == "thought", held)] if held else []

    def _begin(self) -> None:
        text = self._held.lstrip()
        if not text:
            self._state = "start" if len(self._held) < _LONGEST_START else "answer"
            return
        if text[0] not in _FIRST_SIGNS or text.startswith(self._begins):
            self._state = "answer"
            return
        if any(begin.startswith(text) for begin in self._begins):
            return
        if any(start.startswith(text) for start in TURN_STARTS):
            return
        if turn := turn_at_start(text):
            self._held = text[turn:]
            return
        tag, bracket, token = _ALWAYS_TAG.match(text), _BRACKET.match(text), _TOKEN.match(text)
        sign = next((opens for opens in _SIGNS if opens[0] in _FIRST_SIGNS and text.startswith(opens)), "")
        if tag is not None:
            self._end = _same_tag(tag[1])
            self._held = text[tag.end() :]
        elif bracket is not None:
            self._end = re.compile(re.escape(f"[/{bracket[1]}]"))
            self._held = text[bracket.end() :]
        elif token is not None:
            self._end = _TOKEN_OR_TURN_END
            self._held = text[token.end() :]
        elif sign:
            self._end = re.compile(re.escape(_SIGNS[sign]))
            self._held = text[len(sign) :]
        elif (
            text[0] in "<[\N{WHITE LEFT-POINTING TRIANGLE}"
            and len(text) < _LONGEST_START
            and not re.search(r"[>\]\n]", text)
        ):
            return  # it may become one
        elif text[0] != "[" and any(opens.startswith(text) for opens in _SIGNS):
            return
        else:
            self._state = "answer"
            return
        self._state = "thought"
        self._depth = 1

    def _think(self, told: list[tuple[bool, str]]) -> None:
        passed = 0
        for end in self._end.finditer(self._held):
            self._depth += 1 if end.lastindex and not end[1] else -1
            if not self._depth:
                thought, self._held = self._held[: end.start()], self._held[end.end() :].lstrip()
                self._state = "start"
                break
            passed = end.end()
        else:
            keep = max(self._held.rfind(sign, passed) for sign in _FIRST_SIGNS)
            keep = keep if keep >= len(self._held) - _LONGEST_END and keep >= 0 else len(self._held)
            thought, self._held = self._held[:keep], self._held[keep:]
        if thought:
            told.append((True, thought))
