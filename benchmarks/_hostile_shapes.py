"""Hostile replies of many kinds, each a name and a function that makes its text of about so many characters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

Shape = Callable[[int], str]


def repeated(piece: str, head: str = "", tail: str = "") -> Shape:
    """A piece again and again, behind a head and before a tail."""
    return lambda size: head + piece * (size // len(piece)) + tail


def nested(opens: str, closes: str, inside: str = "") -> Shape:
    """As many ends as beginnings, one within the other."""
    return lambda size: (
        opens * (size // (len(opens) + len(closes))) + inside + closes * (size // (len(opens) + len(closes)))
    )


def numbered(form: str, head: str = "", tail: str = "") -> Shape:
    """A form with another number each time."""

    def make(size: int) -> str:
        most = size // max(1, len(form.replace("#", "")))
        text = "".join(form.replace("#", str(number)) for number in range(1, most + 1))
        return head + text[:size] + tail

    return make


def halves(first: str, then: str) -> Shape:
    """Two pieces, each half of the text."""
    return lambda size: first * (size // 2 // len(first)) + then * (size // 2 // len(then))


_MARK, _END = "[[ ## x ## ]]\n", "\n\n[[ ## completed ## ]]"
_PIECES: dict[str, tuple[str, ...]] = {
    "marker": (
        "[[[[ ## x", "[[ ## [[ ## ", "[[ ## x [[ ## x ## ]] ## ]]\n", "[[ ## x ##\n", "[[ x ]] ", "[[x]]",
        "[[ # x # ]] ", "**[[ ## x ## ]]** 1 ", "[[ ## x ## ]] [[ ## y ## ]]\n", "[[ ## note ## ]]\nwait\n",
        "[[ ## q q q ## ]]\n", "[[ ## question ## ]]\na\n", "[[ ## Completed ## ]] a\n", "\\\\[[ ## x ## ]]\n",
        "[[ ##\t\t", "[[ ## x\t## ]]\nsorry ", "## x ## ", "]] ", "[[ ## correct x ## ]]\n1\n",
    ),
    "fence": (
        "````\n", "```x\n```\n", "```json\n{}\n```\n", '```json\n{"x": 1}\n```\n', "```\n```json\n", "~~~json\n",
        "```a b c\n", "  ```\n", "> ```\n", '```{"x":1}```', "```json [1] ``` ", "``` json\n", "`` ` ", "```\r\n",
        "'''\n", '"""\n',
    ),
    "thought": (
        "<think>\n", "<think></think>", "<think><thinking>", "</think>a.\n", "<think>a</think>b\n", "<think",
        "</think ", "<reasoning>a</reasoning>", "<thought>", "</thought>\n", "<analysis>x</analysis>\n", "<ns:think>",
        "<think/>", "<think a=1>", "[THINK]a[/THINK]", "[REASONING]", "[/THINK]\n", "<|begin_of_thought|>",
        "<|end_of_thought|>a", "<|think|>a<|/think|>", "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>a<|end|>", "<|start|>assistant<|channel|>", "<unused94>thought", "assistantfinal",
        "analysisassistantfinal", "\u25c1think\u25b7", "\u25c1/think\u25b7 ", "Here is my thought process:",
        "Here is my response:", "<|im_start|>assistant", "<scratchpad>", "</scratchpad>\n\n", "<answer><think>",
        "<final>", "</final>", "<x_reason_y>", "</athoughtb>.\n",
    ),
    "digits": (
        "12", "12.", "1,1", "1,234,567,", "1.234,5 ", "1 1 ", "00", "0.0", ".1", ".1.", "1..", "1-", "1:1:", "1/",
        "1e1e", "1e+", "-1", "- 1 -", "+-", "1%", "1k ", "1 k", "$1,", "\u20ac1.234 ", "1.000 million ", "x10^",
        "1 x 10^9 ", "\xd710\u2079", "1st ", "1\xbd ", "\u0663\u0664", "(1)(2)", "#1 ", "1=1", "1 of 2 ", "1 to 2 ",
        "1 is 2 ", "step 1: 2\n", "total: 1\n", "= 1 = ", "9\xa0999\xa0", "9\u2009", "1'1", "1_1_",
        "1 thousand thousand ", "minus 1 ", "one ", "3.14159 ", "1,23,45,", "\u22121", "1\u20131 ", "~1 ", "1+1=2, ",
        "v1.2.3 ", "1a1b",
    ),
    "escapes": (
        "\\\\", '\\"\\', '"\\\\', "\\x", "\\u0000", "\\ud83d\\ude00", "\\ude00", "\\/", "\\[", "\\<", "<\\", "<\\x>",
        "\\`", "\\_", "\\'", "\\\n", '"\\n",', "&quot;", "&#34;", "%22", "\\\\n", "\\r\\n", "'\\'", '"""', "\\t\\t",
    ),
    "tags": (
        "<x><y>", "</y></x>", "<x>1</x><x>2</x>", "<x>1</x>\n", "< x >", "<x\t>", "<X>", "<x/>", "<x a='1'>", "<<x>>",
        "<x><x>1</x>", "<question>", "</question>", "<x>1</x><question>", "<![CDATA[", "]]>", "<x><![CDATA[1]]>",
        "<?xml?>", "<note>sorry</note>", "<corrected>1</corrected>", "<note>a", "</x><x>", "<y>", "<x>&amp;",
        "<b>x</b>: ", "<item>1</item>", "<\\\\x>", "<!x>", "<xx>", "<x ",
    ),
    "lines": (
        "x : 1\n", "x: x: ", "y: 1\nx: 1\n", "question: a\n", "question: a\nx: 1\n", "\\x: 1\n", "x:\n\n", "X:1\n",
        "\tx:", "**x:**\n", "x - 1\n", "Q: a\nFinal answer: 1\n", "Final ", "Final answer", "Final answer: ",
        "final\tanswer :\n", "Final  answer", "answer is ", "1) a\n", "a) b\n", "* [ ] a\n", "- - - ", "\t- a\n",
        "+ a\n", "\u2022 a\n", "1.1. a\n", "| x |\n", "x\u2028", "x:\u200b", "\r\r\n",
    ),
    "objects": (
        "{}{}", "[] ", "[[]] ", "[{}],", '{"x":{}},', '{"x":[{', '{"x": 1, ', '"x": 1, ', '{"x": "', "{'x': '",
        "{x: x, ", "[1, 2, 3], ", "[[1], ", '{"x":1}{"x":2}', '{"x":1,"x":2}', '{"y":1}', "[null,", "[true ", "{/*",
        "{//\n", "[/**/1,", "[#\n1,", '{"a"', '{"a":', '{"a" 1', "[\u201ca\u201d,", "[`a`,", "[1;", "(1, 2), ",
        "{1, 2}, ", "[..., ", "[NaN,", "[1e999,", "[01,", "[+1,", "[.5,", '{"x":1}]', "}{", "][", "[}", "{]",
        '{"x":1} or ', '{"x":1} wait ', "[1](http://a) ", "[x]: ", "{{", "}}", '{{"x":1}}', '<|{"x":1}|>',
        '{"name":"x","arguments":{',
    ),
    "words": (
        "wait, ", "Wait. ", "Actually, ", "scratch that ", "Correction: ", "sorry ", "the correct answer is ",
        "the answer was ", "my answer ", "it is wrong ", "this should be ", "the the ", "is is ", "not ", "not not ",
        "don't ", "isn't ", "never mind ", "for example ", "e.g. ", "? ", "!? ", "let me know ", "on second thought ",
        "i made a mistake ", "i meant ", "update: ", "yes? ", "yes or no ", "yes: no: ", "true/false ", "low-high ",
        "low. high. ", "very  high ", "Color.RED ", "red|blue ", "N/A (", "n/a, ", "none; ", "null. ",
        "not available ", "confidence: 1\n", "as of ", "the number of ", "page 1 ", "(see ", "1 is the answer ",
        "answer ", "The answer is: ", "So, ", "therefore ", "let x = ", "x equals ", "I think ", "Sure! ", "Sure!\n",
    ),
    "dates": (
        "2020-01-01T00:00:00Z ", "01/02/2020 ", "1 Jan 2020, ", "Jan ", "Monday, ", "12:30 ", "T", "P1D", "2020W01 ",
        "20200101",
    ),
    "signs": (
        "\u0301", "a\u0301", "\u202e", "\u200d", "\u200f", "\ufe0f", "\xdf", "\u0130\u0131", "\ufb03", "\u1e9e",
        "\u3000\u3002", "\x85", "\x0b", "\x0c", "\x1c", "\x7f", "\U0001f1e9\U0001f1ea", "\u2063", "\u115f", "\u2026",
        "\u2423", "\u2423 ", " \u2423\n", "\u201c\u201d", "\xab\xbb", "\u2018", "\u2019", "n\u2019t ", "\u300c",
        "\u3010x\u3011", "\uff1a", "\uff11",
    ),
}  # fmt: skip
_NESTED = {
    "[ and ]": ("[", "]"),
    "{ and }": ('{"x":', "}"),
    "lists in objects": ('{"x":[', "]}"),
    "markers": ("[[ ## ", " ## ]]"),
    "double brackets": ("[[", "]]"),
    "tags": ("<x>", "</x>"),
    "two tags": ("<x><y>", "</y></x>"),
    "thoughts": ("<think>", "</think>"),
    "other thoughts": ("<reasoning>", "</reasoning>"),
    "fences": ("```json\n", "\n```"),
    "parentheses": ("(", ")"),
    "quotes": ("\u201c", "\u201d"),
    "CDATA": ("<![CDATA[", "]]>"),
    "comments": ("/*", "*/"),
    "stars": ("**", "** "),
    "channels": ("<|channel|>analysis<|message|>", "<|end|>"),
}
_NUMBERED = {
    "keys": ('"k#": # , ', '{"x": 1, ', '"y": 1}'),
    "keys that say something": ('"k#": "wait", ', '{"x": "1", "y": "1", ', '"z": 1}'),
    "corrected keys": ('"corrected #": 1, ', '{"x": "1", "y": "1", ', '"z": 1}'),
    "tags": ("<t#>wait</t#>\n", "<x>1</x>", "<y>1</y>"),
    "opened tags": ("<t#>", "<x>", "</x>"),
    "markers": ("[[ ## m# ## ]]\nwait\n", _MARK + "1\n", _END),
    "markers of nothing": ("[[ ## m# ## ]]\n", _MARK + "1\n", _END),
    "fields again": ("[[ ## x ## ]]\n#\n", "", _END),
    "tags again": ("<x>#</x>\n", "", ""),
    "lines again": ("x: #\n", "", ""),
    "objects": ('{"x": #}\n', "", ""),
    "fenced objects": ('```json\n{"x": #}\n```\n', "", ""),
    "items": ("#. item\n", "", ""),
    "items in brackets": ("[#] item\n", "", ""),
    "items that are numbers": ("# # # ", "", ""),
    "a list": ("#, ", "[", "1]"),
    "a list that does not end": ("#, ", "[", ""),
    "a list of texts": ('"#", ', "[", '"1"]'),
    "a list in quotes of Python": ("'#', ", "[", "'1']"),
    "a list of objects": ('{"name": "a", "price": #}, ', "[", '{"name": "a", "price": 1}]'),
    "a list of wrong objects": ('{"name": #, "price": "a"}, ', "[", '{"name": "a", "price": 1}]'),
    "a table": ("| # | # |\n", "| x | y |\n|---|---|\n", ""),
    "sums": ("# + # = #\n", "", ""),
    "labels": ("step #: #\n", "", ""),
    "decimals": ("0.# ", "", ""),
    "years": ("#-01-01 ", "", ""),
    "amounts": ("$#,000 and ", "", ""),
}

_INSIDE = {
    **{
        "digits": "7",
        "blanks": " ",
        "lines": "\n",
        "backslashes": "\\",
        "quotes": '\\"',
        "brackets": "[",
        "letters": "a",
    },
    **{"words": "a b ", "ticks": "`", "dashes": "-", "commas": ",", "zeros": "0", "hashes": "#", "stars": "*"},
    **{"tabs": "\t", "signs": "\u4e2d", "angles": "<", "percent": "%"},
}


def shapes() -> Iterator[tuple[str, Shape]]:
    """All shapes with their names."""
    for kind, pieces in _PIECES.items():
        for piece in pieces:
            yield f"{kind} {piece!r}", repeated(piece)
    for name, (opens, closes) in _NESTED.items():
        yield f"nested {name}", nested(opens, closes, "1")
        yield f"ends before beginnings of {name}", nested(closes, opens, "1")
        yield f"half of {name}", halves(opens, closes + "x")
    for name, (form, head, tail) in _NUMBERED.items():
        yield f"numbered {name}", numbered(form, head, tail)
    for name, inner in _INSIDE.items():
        yield f"{name} in a marker", repeated(inner, "[[ ## x", " ## ]]\n1")
        yield f"{name} before a marker", repeated(inner, "", "[[ ## x ## ]]\n1")
        yield f"{name} below a marker", repeated(inner, _MARK, _END)
        yield f"{name} in a tag", repeated(inner, "<x", ">1</x>")
        yield f"{name} between tags", repeated(inner, "<x>", "</x>")
        yield f"{name} behind an escape of a tag", repeated(inner, "<x>1<\\", "x></x>")
        yield f"{name} in a text", repeated(inner, '{"x": "', '"}')
        yield f"{name} in a text that does not end", repeated(inner, '{"x": "')
        yield f"{name} as a value", repeated(inner, '{"x": ', "}")
        yield f"{name} in a key", repeated(inner, '{"', '": 1}')
        yield f"{name} in a list", repeated(inner, "[", "]")
        yield f"{name} in a fence", repeated(inner, "```", "```")
        yield f"{name} in a thought", repeated(inner, "<think>", "</think>1")
        yield f"{name} behind a thought", repeated(inner, "<think>a</think>b", "c")
        yield f"{name} behind half a marker", repeated(inner, "[[", "x!")
        yield f"{name} in a marker without a name", repeated(inner, "[[ ##", "a")
        yield f"{name} in the tag of a thought", repeated(inner, "<think ", ">1</think>1")
        yield f"{name} behind a label", repeated(inner, "x:", "1")
        yield f"{name} before the words of a template", repeated(inner, "Final", "answer: 1")
        yield f"{name} between numbers", repeated(inner, "1", "1")
        yield f"{name} before words that take back", repeated(inner, "1", " wait, no: 2")
        yield f"{name} in a sentence", repeated(inner, "The answer is ", ".")
