"""Numbers in texts as people and models write them: signs, separators, scales, currencies, units, words around them.

This is the one reader of numbers: fields use `read_number`, which wants a single reading, and metrics `last_number`.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal
from itertools import pairwise
from typing import NamedTuple

from promptgrad._patterns import late_pattern
from promptgrad.adapters._labels import is_about_it, names_other_number
from promptgrad.adapters._taken_back import NOT_MEANT, takes_back

_MINUS = dict.fromkeys(
    map(ord, "\N{MINUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{SMALL HYPHEN-MINUS}\N{HYPHEN}\N{NON-BREAKING HYPHEN}"), "-"
)
_DASHES = {**_MINUS, **dict.fromkeys(map(ord, "\N{EN DASH}\N{EM DASH}\N{FIGURE DASH}"), "-")}
_DASH_OF_SIGN = late_pattern(  # not that of a range
    r"(?:\A|(?<=[^\d\s]\s)|(?<=[(:=$*]))[\N{EN DASH}\N{EM DASH}\N{FIGURE DASH}](?=[\d.$])"
)
_UNSEEN = late_pattern("[\u200b\u200e\u200f\u2060\u2066-\u2069\ufeff]")
_BLANK = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
_GROUP = f"'\N{RIGHT SINGLE QUOTATION MARK}_{_BLANK}"
_CLUSTER = late_pattern(
    rf"(?:\d+(?:[.,{_GROUP}]\d+| \d{{3}}(?![\d]))*|(?<![\d.,])\.\d+)(?:[eE][-+]?\d{{1,4}}(?![\w.]))?", re.ASCII
)
_LONGEST = 400
_MOST = 8
_EXACT = Context(prec=2_000)

_CODES = "USD|EUR|GBP|JPY|CHF|CAD|AUD|NZD|INR|CNY|RMB|SEK|NOK|DKK|PLN|CZK|BRL|MXN|KRW|ZAR|TRY|RUB|SGD|HKD"
_CURRENCY = rf"(?:(?:US|AU|CA|NZ|HK|A|C|S|R)?[$€£¥₹₩₽₺฿₿]|(?:{_CODES}) ?|Rs\.? ?)"
_BEFORE = late_pattern(rf"(?:(?<=[\s(\[{{:=~≈|>]),?|^)([-+]?)({_CURRENCY}?) ?([-+]?)$")
_SCALES = {
    "hundred": 2, "thousand": 3, "million": 6, "millions": 6, "mio": 6, "mln": 6, "mn": 6, "billion": 9, "billions": 9,
    "bn": 9, "bln": 9, "trillion": 12, "trillions": 12, "tn": 12, "trn": 12, "lakh": 5, "lakhs": 5, "crore": 7,
    "crores": 7, "tausend": 3, "millionen": 6, "mrd": 9, "milliarden": 9, "milliard": 9, "milliards": 9, "millones": 6,
    "billionen": 12, "milioni": 6, "miliardi": 9, "milhões": 6, "bilhões": 9, "miljoen": 6, "miljard": 9, "miljoner": 6,
    "miljarder": 9, "тысяч": 3, "тысячи": 3, "тыс": 3, "миллион": 6, "миллиона": 6, "миллионов": 6, "млн": 6,
    "миллиард": 9, "миллиарда": 9, "миллиардов": 9, "млрд": 9, "千": 3, "천": 3, "万": 4, "萬": 4, "만": 4, "亿": 8,
    "億": 8, "억": 8, "兆": 12, "조": 12,
}  # fmt: skip
_SHORTENED = ("mio", "mln", "bn", "mn", "тыс", "млн", "млрд")
_BY_FOUR = "千천万萬만亿億억兆조"
_SCALE = late_pattern(
    r"[ \N{NO-BREAK SPACE}-]?("
    + "|".join(sorted((word for word in _SCALES if word not in _BY_FOUR), key=len, reverse=True))
    + rf")\b\.?|[ \N{{NO-BREAK SPACE}}]?([{_BY_FOUR}])(?![{_BY_FOUR}])",
    re.IGNORECASE,
)
_LIKE_SCALE = late_pattern(  # of another language, or misspelt: the value is not known, but not that of the digits
    rf"[ -]?(?:[kKmMtTG]{{1,2}}(?:€|(?-i:{_CODES}|kr)\b)|mm (?:{_CODES}|[$€£])|"
    r"\w{0,12}illi(?:on|ard)|myriad|bin\b|rb\b|rbu\b|jt\b|mia\b|ml[dr]\b|bi[lo]?\b|tr\b|trd\b|tkr\b|mkr\b|mii\b|ming\b|"
    r"tūkst|tuh[ae][nt]|hiljad|tiso[čc]|tisu[ćc]|þúsund|elfu\b|libo\b|ng[àa]n\b|trăm|chục|vạn|mij[ëe]\b|ratus|puluh|"
    r"honderd|hundra\b|hundrede|sute\b|yüz|száz|diez?aines?|dizaines?|centaines?|cent(?:inaia|enas)|cientos|dezenas|"
    r"decin[ae]|decenas|migliaia|tientallen|"
    r"mi(?!les?\b|n\b|nutes?\b|lli?(?:gram|met|lit|sec)|crom?)[lo]|mrd|md\b|tausend|tsd|bil|tril|thou\b|th?ous|"
    r"(?-i:MM)\b|grand\b|gross\b|hundert|duizend|tus[ei]nd?\b|t[iy]s\b|tisíc|tysi|ezer\b|ribu\b|"
    r"juta\b|tri[eệ]u|nghìn|tỷ\b|тыс|тис|мл|мил|χιλ|εκατ|[أا]لف|ملي|लाख|करोड़|हज़ार|พัน|ล้าน|千|百|十|万|萬|億|亿|兆|만|억|천|"
    r"lacs?\b|lakh|cr\b|crore|arab\b|kilo(?!gram|met|byte|watt)|mega\b|giga\b)",
    re.IGNORECASE,
)
_UNCLEAR_OF_MONEY = late_pattern(r" ?(?:mi|L)\b")
"""Miles or millions, litres or lakhs."""
_COMPASS = late_pattern(r" ?°? ?(?:[SW]|[Ss]outh|[Ww]est)(?![\w/])")
"""South and west of zero; or siemens and watts."""
_OPEN_SIGN = late_pattern(r"[-+]\s*\.?\Z")
_LETTERS = {"k": 3, "M": 6, "B": 9}
_OF_MONEY = {"k": 3, "K": 3, "m": 6, "M": 6, "b": 9, "B": 9, "t": 12, "T": 12}
_LETTER = late_pattern(r"( ?)([kKmMbBtT])(?![\w])")
_POWER = late_pattern(
    r" ?[x\N{MULTIPLICATION SIGN}\N{MIDDLE DOT}*] ?10 ?(?:\^|\*\*) ?[{(]?([-+]?\d{1,3})[)}]?(?![\w.,])"
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_POWER_RAISED = late_pattern(r" ?[x\N{MULTIPLICATION SIGN}\N{MIDDLE DOT}*] ?10([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3})")
_PERCENT = late_pattern(r"[ \N{NO-BREAK SPACE}]?(?:%|percent\b|per cent\b|pct\b)", re.IGNORECASE)
_BESIDE = late_pattern(
    r"(?:(?<=[\w.%*\]])\s?\[\d{1,3}|"
    r"\b(?:confidence|certainty|likelihood|sources?|refs?|references?|footnotes?|see page)\b"
    r"[\s*_\"':=(\[]*[\d.,]+ ?%?)\Z",
    re.IGNORECASE,
)
_IS_POWER = late_pattern(r"\d(?:\^|\*\*)[-+({]*\Z")
_NO_CENTS = late_pattern(r"(?<=\d),[-\N{EN DASH}\N{EM DASH}]+(?!\w)")
_LATEX = (
    (late_pattern(r"(?<=\d)(?:\{,\}|\\,)(?=\d{3})"), ","),
    (late_pattern(r"\\(?:times|cdot)(?![A-Za-z])"), "\N{MULTIPLICATION SIGN}"),
    (late_pattern(r"\\([%$])"), r"\1"),
)
_MARKS = late_pattern(r"[*_`\"'“”„«»\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]+")
_SIGNED = late_pattern(r"[-+$€£]{0,2}\d")
_UNIT = late_pattern(
    r"(?:°[CFKNESW]?|[€£$¥₹]|[kcmµμn]m|kg|mg|g|lbs?|oz|ml|[Ll]|ms|min|mins|hrs?|h|s|px|pt|[kKMGT]B|[kMG]?Hz|[kM]?Wh?|mph|km/h|"
    rf"(?:{_CODES}))(?![\w])|-[A-Za-z]{2}"
)

_UNCLEAR_WORD = late_pattern(
    r"\s([^\W\d_]{1,2}(?![\w'\N{RIGHT SINGLE QUOTATION MARK}-])|(?:(?![\N{LATIN CAPITAL LETTER A WITH GRAVE}-\u024f"
    r"\u1e00-\u1eff])[^\W\d_A-Za-z])\w*)"
)
"""What may be a scale or turn the sense: a short word, or one of another script."""
_CLEAR_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a am an as at be by he if in is it me my no of on or so to up us we pm g kg m cm mm km mi ft yd oz lb l dl cl "
        "ml s ms h hr hz w kw v j pa n k c f mb kb tb db px pt kr tl zł рублей рубль лет год года человек штук "
        "км м см мм кг л час часа часов минут минуты дней день раз 个 個 名 人 只 张 張 次 年 月 日 天 元 円 分 秒",
    )
)

_POINT_AND_THREE = late_pattern(r"[1-9]\d{0,2}\.\d{3}", re.ASCII)
_MEASURE = late_pattern(r"[ \N{NO-BREAK SPACE}]?[^\W\d_]|[°%]")
_ENGLISH = late_pattern(
    r" ?-?(?:hundred|thousand|millions?|billions?|trillions?|lakhs?|crores?|mn|bn|tn)\b", re.IGNORECASE
)
_MONEY_AFTER = late_pattern(
    rf"[ \N{{NO-BREAK SPACE}}]?(?:(?:US|AU|CA|NZ|HK|A|C|S|R)?[$€£¥₹₩₽₺฿₿]|(?:{_CODES})\b|US dollars?\b|euros?\b|"
    r"dollars?\b|"
    r"pounds?\b|yen\b|yuan\b|renminbi\b|rupees?\b|rupien\b|francs?\b|franken\b|kron(?:or|er|a|e|en)\b|zł|"
    r"pesos?\b|reais\b|won\b|liras?\b|r[ou]+bles?\b|rubel\b|rand\b|bucks\b|quid\b|cents?\b)",
    re.IGNORECASE,
)
_COUNTED = late_pattern(  # what comes in whole numbers, and not what is measured
    r"[ \N{NO-BREAK SPACE}](?:people|children|men|women|habitant\w*|inhabitant\w*|abitanti|persone|utenti|"
    r"einwohner\w*|menschen|personen|stück|mitarbeiter\w*|besucher\w*|nutzer\w*|kunden|teilnehmer\w*|stimmen|wähler\w*|"
    r"(?!\w*(?:met(?:er|re)s|grams|lit(?:er|re)s|volts|watts|amps|amperes|ohms|joules|newtons|pascals|kelvins|ious)\b"
    r"|(?:as|is|was|has|does|this|thus|plus|yes|less|its|always|perhaps|versus|across|towards|besides|times|seconds|secs|"
    r"minutes|mins|hours|hrs|days|weeks|months|years|decades|degrees|radians|miles|inches|yards|ounces|tons|tonnes|"
    r"points|percents|decibels|lbs|units)\b)[^\W\d_]{2,}s)\b",
    re.IGNORECASE,
)

_LEADS = late_pattern(
    r"(?:[:=≈~]|->|→|\b(?:is|are|was|were|be|been|equals?|approximately|about|roughly|around|exactly|circa|ca\.?|approx\.?|"
    r"answer|total|result|value|estimate|score|got|get|gives|makes|costs?|has|have|contains|weighs|measures|therefore|so|"
    r"thus|just|only))\s*\(?$",
    re.IGNORECASE,
)
_TURNS = late_pattern(  # words beside a number by which it is not simply the value
    r"\b(?:not|no|none|never|nor|neither|cannot|unknown|unclear|unsure|null|nan|unable|without|less|fewer|more|below|above|"
    r"under|over|between|least|most|or|and|half|halves|quarters?|thirds?|fourths?|divided|dozens?|dutzend\w*|docenas?|"
    r"(?:fif|six|seven|eigh|nin|ten|twelf|hundred|thousand|million|billion)ths?|"
    r"douzaines?|dozzin[ae]|(?<!\bthe )scores?|hundreds?|thousands?|"
    r"millions?|billions?|trillions?|lakhs?|crores?|if|unless|except|zero|times|squared|cubed|minus|plus|percent|"
    r"per cent|pro[cz]ent\w*|p(?:ou|o)r ?c(?:ent|iento)|per cento|porcento|por cento|процент\w*|"
    r"per mill?e|pro ?mill?e|basis points?|bps?|pp[mb]|pages?|section|chapter|"
    r"und|oder|mehr|weniger|más|moins|più|meno|menos|"
    r"(?:y|e|et|en|i|og|och|ja) (?:medi[oa]|mezz[oa]|demie?|half|pół|halv\w*|meia|meio|puoli)|"
    r"более|менее|больше|меньше|или|половин\w*|"
    r"nicht|kein\w*|nein|niet|geen|nooit|nem|nie|nej|inte|ikke|não|nunca|jamais|tidak|bukan|değil|degil|deyil|yok|hay\wr|"
    r"emas|nahin?|janai|aniyo|yanl\w\w|falsch|faux|falso|sbagliato|"
    r"negative|deficit|overdrawn|in the red|short|ish|tb[dc]|max(?:imum)?|minimum|"
    r"percentage points?|each|apiece|ago|early|behind|loss(?:es)?|decreas\w*|declin\w*|drops?|debts?|tops|lower|"
    r"cheaper|down|off|shy|overdraft|googol|"
    r"owed|owing|(?-i:[DC][Rr]|B\.?C\.?E?)|"
    r"wrong|incorrect|false|untrue|bad|doubt\w*|wait|actually|but|however|although|instead|too|formerly|previously|"
    r"sorry|errors?|attempts?|drafts?|options?|examples?|formats?|"
    rf"skip\w*|ignor\w*|exclud\w*|omit\w*|remov\w*|reject\w*|cancel\w*|delet\w*|duplicate\w*|{NOT_MEANT}|"
    r"figure|table|question|step)\b"
    r"|n['\N{RIGHT SINGLE QUOTATION MARK}]t\b|n/a|[<>≤≥±?^%‰]",
    re.IGNORECASE,
)
_PAID_BACK = late_pattern(r"\s*(?:refund\w*|rebates?|discounts?|withdrawals?)\b", re.IGNORECASE)
"""What is said behind an amount that may have the other sign: "$5 refund"; a share, "10 % discount", has none."""
_SPELLED = {
    word: Decimal(number)
    for word, number in {
        "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
        "eleven": 11, "twelve": 12, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
        "eighty": 80, "ninety": 90,
    }.items()
}  # fmt: skip
_SPELLED_WORD = late_pattern(rf"\b(?:{'|'.join(_SPELLED)})\b", re.IGNORECASE)
_SIGN_WORD = late_pattern(r"\b(minus|negative)\s+$", re.IGNORECASE)
_DECORATION = late_pattern(r"\A#{2,6} |```\w*|\*\*|__|[`\"“”„«»]|\\[()\[\]]|\$(?=\s*\Z)")
_QUOTES = ("'", "\N{LEFT SINGLE QUOTATION MARK}", "\N{RIGHT SINGLE QUOTATION MARK}")
_BOXED = late_pattern(r"\$*\\(?:boxed|text|mathbf|mathrm)\{([^{}]{1,200})\}\$*")


class Number(NamedTuple):
    """One number in a text.

    Attributes:
        start: Where it begins, with its sign and currency.
        end: Where it ends, with its scale, percent sign or power of ten.
        readings: What it may mean: one value, two where its separator may be that of thousands or of decimals, none for
            a date or code.
        is_percent: Whether a percent sign follows.
        clear: Whether nothing stands beside it by which it would be a part of something else, or have another sign.
    """

    start: int
    end: int
    readings: tuple[Decimal, ...]
    is_percent: bool
    clear: bool


def read_number(text: str) -> tuple[tuple[Decimal, ...], str]:
    """The values that a text may mean in which a number was asked for, and why it has not exactly one.

    A number may be in bold or quotes, with a currency, a unit, a scale ("3.5 billion") and a few words around it ("The
    answer is 42."). Nothing is read from a text that holds other numbers, or words that turn its sense ("not", "more
    than", "N/A"), or of which the number is that of something else ("Confidence: 3"). Two readings are those of
    "1,234", of "€1.234" and of "50%": the field decides whether it can take only one.
    """
    if len(text) > 2_500:
        return (), "holds more than a number"
    text = _tidy(text.translate(_DASHES)).strip()
    text = _DECORATION.sub(" ", _BOXED.sub(r" \1 ", text)).strip(" \t\n*_")
    text = re.sub(r"[ \t\n]+", " ", text)
    if text[:1] in _QUOTES and text[-1:] in _QUOTES:
        text = text[1:-1].strip()
    found: list[Number] = []
    at = 0
    while (match := _CLUSTER.search(text, at)) is not None:
        if len(found) == _MOST:
            return (), "holds more than one number"
        found.append(_number(text, match))
        at = max(found[-1].end, match.end())
    if not found:
        return (), "holds no number"
    if len({number.readings for number in found}) > 1:
        return (), "holds more than one number"
    if not all(number.clear and number.readings for number in found):
        return (), "holds a number that may mean something else"
    before, after = text[: found[0].start], text[found[-1].end :]
    between = "".join(text[one.end : other.start] for one, other in pairwise(found))
    lead = text[: found[-1].start].rstrip()
    if len(found) > 1 and not lead.endswith((":", "=", ".", "(", "is", "are")):
        return (), "holds more than one number"
    if (len(found) == 1 and lead.strip("([{.,") and not _LEADS.search(lead)) or lead.endswith("-"):
        return (), "holds a number that may mean something else"
    if names_other_number(lead) or is_about_it(after):
        return (), "holds the number of something else: give the value alone"
    if before.rstrip().endswith("(") and not before.strip(" (") and after.strip(" .") == ")":
        return (), "is in brackets, and may be negative"
    if (
        takes_back(after)
        or _OPEN_SIGN.search(after)
        or (_PAID_BACK.match(after) and not found[-1].is_percent)
        or _TURNS.search(f"{before} ; {between} ; {after}")
        or any(sign.isnumeric() for sign in before + between + after)
    ):
        return (), "holds words that may change the number"
    value = found[-1].readings
    if any(_SPELLED[word.lower()] not in value for word in _SPELLED_WORD.findall(f"{before} ; {between} ; {after}")):
        return (), "holds more than one number"
    if found[-1].is_percent:
        value = (*value, *(_scaled(one, -2) for one in value))
    return value, "may be read in two ways" if len(value) > 1 else ""


def _tidy(text: str) -> str:
    """Text without signs that nobody sees, with the signs of LaTeX as others write them, and with "1.500,-" whole."""
    text = _NO_CENTS.sub(",00", _UNSEEN.sub("", text))
    for pattern, plain in _LATEX if "\\" in text or "{" in text else ():
        text = pattern.sub(plain, text)
    return text


def last_number(text: str) -> Decimal | None:
    """The last number in a text; None if there is none that has a reading.

    A comma before three digits separates thousands here: "1,234" is 1234. The certainty of another number and its
    source do not count ("42 (90% sure)", "42 [1]"), and a power has no reading ("2^10").
    """
    text = _tidy(text.translate(_MINUS))
    text = _DASH_OF_SIGN.sub("-", _MARKS.sub(_without_marks, text))
    last: Decimal | None = None
    at = 0
    for match in list(_CLUSTER.finditer(text))[-_MOST:]:
        start, digits = match.span()[0], match.group()
        before = text[start - 1 : start] if start else ""
        if start < at or before.isalpha() or before == "_" or (before in (".", ",") and start > 1):
            continue
        number = _number(text, match)
        if last is not None and (
            is_about_it(text[number.end :]) or _BESIDE.search(text[max(0, start - 60) : number.end])
        ):
            continue
        if not number.readings and " " in digits:  # two numbers
            tail = _CLUSTER.search(text, start + digits.rindex(" ") + 1)
            number = number if tail is None else _number(text, tail)
        last = number.readings[0] if number.readings and not _IS_POWER.search(text[max(0, start - 4) : start]) else None
        at = number.end
    return last


def _without_marks(found: re.Match[str]) -> str:
    """What stays of quotes and signs of bold: before a number a blank, behind a word what belongs to it."""
    marks, text = found[0], found.string
    if _SIGNED.match(text, found.end()) is None:
        return marks
    for number, before in enumerate(text[found.start() - 1 : found.end() - 1] if found.start() else f" {marks[:-1]}"):
        if not (before.isalnum() or before in "_*"):
            return marks[:number] + " "
    return marks


def _number(text: str, match: re.Match[str]) -> Number:
    start, end = match.span()
    digits = match.group()
    readings = _readings(digits) if end - start <= _LONGEST else ()
    lead = text[max(0, start - 16) : start]
    signs = _BEFORE.search(lead)
    negative, money, clear = False, False, signs is not None
    if signs is not None:
        negative, money = "-" in signs.group(1, 3), bool(signs[2])
        if signs[0] in ("- ", "+ "):  # or a bullet
            negative = clear = False
        clear = clear and not (signs[1] and signs[3])
        start -= len(signs[0].removeprefix(","))
        word = _SIGN_WORD.search(text, max(0, start - 16), start)
        if word is not None:
            negative, start = not negative, word.start()
    said = end
    scale, end, is_percent, whole = _after(text, end, money)
    if _LIKE_SCALE.match(text, end) or (money and _UNCLEAR_OF_MONEY.match(text, end)):
        readings, whole = (), False
    if _POINT_AND_THREE.fullmatch(digits) and _may_be_thousands(text, said, end, money):
        readings = (*readings, Decimal(digits.replace(".", "")))
    readings = tuple(_scaled(value.copy_negate() if negative else value, scale) for value in readings)
    if _COMPASS.match(text, end):
        readings = (*readings, *(value.copy_negate() for value in readings))
    return Number(start, end, readings, is_percent, clear and whole)


def _may_be_thousands(text: str, said: int, end: int, money: bool) -> bool:  # noqa: FBT001
    """Whether the point before three digits may be that of a language in which it separates thousands: "€1.234".

    A bare 1.234 is a number of JSON, and a scale in English has an English point. A length of 2.500 km is doubtful, as
    few people write its zeros.
    """
    if _ENGLISH.match(text, said):
        return False
    if (end > said and _SCALE.match(text, said)) or (text[:said].endswith("00") and _MEASURE.match(text, end)):
        return True
    return money or bool(_MONEY_AFTER.match(text, end) or _COUNTED.match(text, end))


def _after(text: str, end: int, money: bool) -> tuple[int, int, bool, bool]:  # noqa: FBT001
    """The power of ten after a number, where it ends with it, whether it is a percentage, whether it ends there."""
    scale = 0
    for pattern in (_POWER, _POWER_RAISED):
        power = pattern.match(text, end)
        if power is not None:
            return int(power[1].translate(_RAISED)), power.end(), False, _ends(text, power.end())
    letter = None if _SCALE.match(text, end) else _LETTER.match(text, end)
    while (word := _SCALE.match(text, end)) is not None:  # "3 lakh crore"
        name = (word[1] or word[2]).lower()
        scale, end = scale + _SCALES[name], word.end()
        if text[end - 1 : end] == "." and name not in _SHORTENED:
            end -= 1
            break
    if letter is not None:
        known = _OF_MONEY if money else _LETTERS
        if letter[2] not in known or (letter[1] and not money):
            return 0, end, False, bool(letter[1]) and letter[2] in "mt"  # metres, tonnes
        scale, end = known[letter[2]], letter.end()
    percent = _PERCENT.match(text, end)
    if percent is not None:
        return scale, percent.end(), True, not scale and _ends(text, percent.end())
    return scale, end, False, _ends(text, end)


def _ends(text: str, end: int) -> bool:
    """Whether a number ends here: not a code, a date, a power, an ordinal, an unknown unit."""
    unit = _UNIT.match(text, end)
    if unit is not None:
        return True
    after = text[end : end + 1]
    if not after or after in ")]},;":  # "5!" may be 120
        return True
    if after.isspace():
        word = _UNCLEAR_WORD.match(text, end)
        return word is None or word[1].lower() in _CLEAR_WORDS or (word[1].isupper() and word[1].isascii())
    if after in ".:":
        return not (text[end + 1 : end + 2].isalnum() or text.startswith("..", end))  # "3.14..." goes on
    return False


def _readings(digits: str) -> tuple[Decimal, ...]:
    """The values of digits with separators."""
    body, _, power = digits.replace("E", "e").partition("e")
    exponent = int(power or 0)
    if abs(exponent) > _LONGEST:
        return ()
    return tuple(_scaled(value, exponent) for value in _values(body))


def _scaled(value: Decimal, exponent: int) -> Decimal:
    return value.scaleb(exponent, _EXACT) if exponent else value


def _values(body: str) -> tuple[Decimal, ...]:
    groups = re.split(r"[^\d]", body)
    marks = [sign for sign in body if not sign.isdigit()]
    if not marks:
        return (Decimal(body),)
    *thousands, last = marks
    if body.startswith("."):
        return (Decimal(body),) if len(marks) == 1 else ()
    if not thousands:
        whole, part = groups
        grouped = 1 <= len(whole) <= 3 and len(part) == 3 and not whole.startswith("0")
        if last == ".":
            return (Decimal(f"{whole}.{part}"),)
        if last == ",":
            fraction = Decimal(f"{whole}.{part}")
            return (Decimal(whole + part), fraction) if grouped else (fraction,)
        apart = last != " " or part.startswith("0")  # "1 234" may be two numbers, and "000" is not one
        return (Decimal(whole + part),) if (grouped and apart) or last == "_" else ()
    if len(set(marks)) == 1:
        if last == "_" or _grouped(groups) or (last == "," and _grouped_by_two(groups)):
            return (Decimal("".join(groups)),)
        return ()
    if last in ".," and len(set(thousands)) == 1 and thousands[0] != last:
        *whole_groups, part = groups
        if _grouped(whole_groups) or (thousands[0] == "," and _grouped_by_two(whole_groups)):
            return (Decimal(f"{''.join(whole_groups)}.{part}"),)
    return ()


def _grouped(groups: list[str]) -> bool:
    return 1 <= len(groups[0]) <= 3 and groups[0] != "0" and all(len(group) == 3 for group in groups[1:])


def _grouped_by_two(groups: list[str]) -> bool:
    """As in India: 12,34,567."""
    return 1 <= len(groups[0]) <= 2 and all(len(group) == 2 for group in groups[1:-1]) and len(groups[-1]) == 3
