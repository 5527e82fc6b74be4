"""Labels before a value: "Answer: 42" is the answer, "Confidence: 3" is something else."""

from __future__ import annotations

import re

from promptgrad._patterns import late_pattern

_OF_ANSWER = late_pattern(
    r"\b(?:answers?|ans|results?|totals?|sum|solutions?|outputs?|values?|final|finally|counts?|numbers?|amounts?|"
    r"quantity|estimates?|predictions?|conclusions?|response|reply|so|therefore|thus|hence|here|that is|i\.e|namely|"
    r"equals?|altogether|difference|products?|quotient|ratio|average|mean|median|it|this|sure|ok|okay|yes|certainly)\b"
    r"|\A[a-z]\Z",
    re.IGNORECASE,
)
"""What an answer is called; also a single letter, as in "x = 42"."""
_OF_OTHER = late_pattern(
    r"\b(?:confiden(?:ce|t)|(?:un)?certain(?:ty)?|probabilit(?:y|ies)|likelihoods?|scores?|ratings?|ranks?|"
    r"grades?|priority|difficulty|steps?|attempts?|tr(?:y|ies)|rounds?|iterations?|"
    r"options?|choices?|candidates?|pages?|questions?|problems?|exercises?|tasks?|examples?|figures?|tables?|lines?|"
    r"rows?|columns?|paragraphs?|sections?|chapters?|versions?|drafts?|notes?|tokens?|words?|characters?|temperature|"
    r"time taken|elapsed|duration|ind(?:ex|ices)|ids?|refs?|references?|sources?|citations?|footnotes?|see|cf|"
    r"bibliography|seed)\b",
    re.IGNORECASE,
)
"""What stands beside answers and is not one."""
_ABOUT = late_pattern(
    r"\b(?:confidence|certainty|likelihood|"
    r"my (?:\w+ )?(?:probability|odds|score|temperature|seed|version))\b[^.,;!?\n]*\Z",
    re.IGNORECASE,
)
_ABOUT_IT = late_pattern(
    r"\A[\s(\[%]*(?:confiden\w+|certain\w*|sure|likely|likelihood|probab\w+)\b(?!\s*[:=])", re.IGNORECASE
)
_LABEL = late_pattern(r"([^:=.!?;\n]{1,80}?)\s*(?:[:=→]|->)\s*[({\[]*\Z")


def own_label(name: str) -> re.Pattern[str]:
    """The beginning of a text that only says whose value it is: the name of its field, and a colon."""
    words = r"[ _-]?".join(map(re.escape, re.split(r"[_\W]+", name.strip("_")))) or re.escape(name)
    return re.compile(rf"\A(?:[ \t>*#_`\"']|-[ \t])*{words}[*_`\"' \t]*[:=][*_`\"']*[ \t\n]*(?=\S)", re.IGNORECASE)


def names_other_number(lead: str) -> bool:
    """Whether what stands before a number says that it is not the answer: a label that no answer has."""
    label = _LABEL.search(lead[-100:])
    if label is not None:
        words = label[1].strip(" \"'(){}[]*_,-")
        is_none = any(map(str.isalpha, words)) and _OF_ANSWER.search(words) is None
        return is_none or _OF_OTHER.search(words) is not None
    return _ABOUT.search(lead[-100:]) is not None


def names_other(lead: str) -> bool:
    """Whether what stands before a choice or a list labels it as something that stands beside answers."""
    label = _LABEL.search(lead[-100:])
    if label is not None:
        return _OF_OTHER.search(label[1]) is not None
    return _ABOUT.search(lead[-100:]) is not None


def is_about_it(after: str) -> bool:
    """Whether what stands after a number makes it the certainty of an answer: "90% sure"."""
    return _ABOUT_IT.match(after) is not None
