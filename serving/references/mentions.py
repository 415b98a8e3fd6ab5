"""Finds where a question says outright which round or mask it means, in English.

Numbers ("the output of round 2", "instances 2 and 3", "the second result"), places in the
conversation ("the previous mask", "the round before last") and earlier names with a wording that
points back ("the liver you found"). Pronouns are left to `serving.references.pronouns`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.references.rounds import Conversation, Reference
from serving.references.wording import (
    CLASS_NOUNS,
    END,
    FOUND,
    MASK,
    NUMBER,
    ORDINAL,
    PICTURE,
    POINTLESS,
    PREPOSITION,
    RESULT,
    ROUND,
    WORD,
    value,
    values,
)


@dataclass(frozen=True)
class Mention:
    """Words of a question and what they were taken for."""

    start: int
    """Offset of the words in the question."""
    end: int
    """Offset behind them."""
    words: str
    """As they stand in the question."""
    references: Sequence[Reference]
    """At least one."""


_LookUp = Callable[[re.Match[str], Conversation], Sequence[Reference]]
_Rule = tuple[re.Pattern[str], _LookUp]


def _single(noun: str) -> bool:
    """Whether a noun counts masks rather than rounds."""
    return (
        re.fullmatch(r"masks?|instances?|objects?|entity|entities|contours?|ones?", noun)
        is not None
    )


def _numbered(match: re.Match[str], talk: Conversation) -> list[Reference]:
    noun = match["noun"].lower()
    look_up = talk.instance if _single(noun) or "segm" in noun else talk.round
    return [found for n in values(match["numbers"]) for found in look_up(n, match[0])]


def _bare_number(match: re.Match[str], talk: Conversation) -> Sequence[Reference]:
    return talk.round(int(match["number"]), match[0])


def _within_round(match: re.Match[str], talk: Conversation) -> Sequence[Reference]:
    """Instance 2 of round 3: by its number, else the second that the round has."""
    of_round = talk.round(value(match["round"] or match["nth_round"]), match[0])
    number = value(match["number"] or match["nth"])
    if match["number"] and (found := [each for each in of_round if each.instance == number]):
        return found
    if not 1 <= number <= len(of_round):
        raise talk.error(match[0], f"that round has no instance {number}")
    return (of_round[number - 1],)


def _ago(match: re.Match[str], talk: Conversation) -> Sequence[Reference]:
    count = 1 if match["number"].lower() == "a" else value(match["number"])
    return talk.round(len(talk.rounds) + 1 - count, match[0])


def _several(match: re.Match[str], talk: Conversation) -> list[Reference]:
    count = value(match["number"])
    units: list[Sequence[Reference]] = (
        [(reference,) for reference in talk.masks]
        if _single(match["noun"].lower())
        else [each.references for each in talk.rounds if each.kind == "mask"]
    )
    if not 0 < count <= len(units):
        raise talk.error(match[0], f"there are {len(units)} with a mask")
    taken = units[:count] if match["from"].lower() == "first" else units[-count:]
    return [reference for unit in taken for reference in unit]


def _all(match: re.Match[str], talk: Conversation) -> Sequence[Reference]:
    if not talk.masks:
        raise talk.error(match[0], "it refers to masks that are not there")
    return talk.masks


def _back(steps: int) -> _LookUp:
    """Rounds are counted as they are; results and masks only where there is a mask."""

    def look_up(match: re.Match[str], talk: Conversation) -> Sequence[Reference]:
        noun = match["noun"].lower()
        if re.fullmatch(ROUND, noun):
            return talk.round(len(talk.rounds) - steps, match[0])
        if _single(noun):
            return talk.latest_instance(match[0], steps)
        return talk.latest_round(match[0], steps)

    return look_up


def _latest_round(match: re.Match[str], talk: Conversation) -> Sequence[Reference]:
    return talk.latest_round(match[0])


def _two(match: re.Match[str], talk: Conversation) -> Sequence[Reference]:
    """Both masks of the latest round where it has two, else the latest two."""
    latest = talk.latest_round(match[0])
    if len(latest) == 2:
        return latest
    if len(talk.masks) < 2:
        raise talk.error(match[0], "there is one mask only")
    return talk.masks[-2:]


def _pointed_at(match: re.Match[str], talk: Conversation) -> Sequence[Reference]:
    """The liver you found: has to be there."""
    name = match["name"].strip().lower()
    if name not in POINTLESS and (found := talk.named(name)):
        return found
    if name.split()[-1] in CLASS_NOUNS:
        return talk.latest_round(match[0])
    raise talk.error(match[0], f"no round asked for “{name}” by this name")


def _perhaps_named(match: re.Match[str], talk: Conversation) -> Sequence[Reference]:
    """That kidney, the same lobe: what an earlier round asked for by this name, or nothing."""
    words = match["name"].lower().split()
    for count in range(len(words), 0, -1):
        name = " ".join(words[:count])
        if name not in POINTLESS and (found := talk.named(name)):
            return found
    return ()


def _rule(pattern: str, look_up: _LookUp) -> _Rule:
    return re.compile(pattern, re.IGNORECASE), look_up


_MEASURE = r"(?!\s*(?:mm|cm|ml|%|percent|x)(?![a-z]))"
_COUNTED = r"(?:\s+(?:number|no\.?|nr\.?))?[\s-]*#?"
_NEXT = rf"#?(?:[0-9]{{1,4}}(?![0-9])|(?!one\b){NUMBER}){_MEASURE}"
_TO = r"(?:to|through|[-\u2013])"
_PLURAL = r"(?:rounds|turns|results|outputs|answers|instances|objects|masks|segmentations|entities)"
_BACK = r"(?:previous|last|preceding|prior|latest|most\s+recent|earlier|foregoing)"
_BEFORE_LAST = (
    r"(?:penultimate|second[\s-](?:to[\s-])?last|"
    r"(?:last|next|previous)[\s-](?:but[\s-]one|to[\s-]last))"
)
_BASED = (
    r"(?:based\s+(?:up)?on|building\s+on|given|using|starting\s+(?:from|with)|"
    r"going\s+by|considering|(?:referring|according|with\s+(?:respect|reference|regard))\s+to)"
)
_YOU = (
    r"(?:that\s+|which\s+)?(?:you|we|i)(?:['\u2019]ve|\s+have|\s+had)?\s+"
    r"(?:(?:just|already|previously|first|last)\s+)?"
)
_NOT_NAME = (
    # "This brain" is the picture, even where the brain was asked for.
    rf"(?!(?:{'|'.join(sorted(PICTURE))}|brain|the|and|or|that|which|you|we|i|was|were|is|are|has|a|an|{PREPOSITION}|{ROUND}|{RESULT}|"
    rf"{MASK})\b)"
)
_NAME = rf"(?P<name>(?:{_NOT_NAME}{WORD}\s+){{1,4}}?)"
_WORDS = rf"(?P<name>{_NOT_NAME}{WORD}(?:\s+{_NOT_NAME}{WORD}){{0,3}})"
_ONE_RESULT = r"(?:result|output|answer|response|prediction|instance|object|mask|segmentation)"
_ANY = rf"(?:{ROUND}|{RESULT}|{MASK}|one)"

# In the order in which they claim words; words that one has claimed are not read by a later one.
_RULES: tuple[_Rule, ...] = (
    _rule(rf"\b(?P<number>{NUMBER}|a)\s+(?:rounds?|turns?)\s+(?:ago|back|earlier)\b", _ago),
    _rule(
        rf"\b(?:(?P<nth>{ORDINAL})\s+{MASK}|{MASK}{_COUNTED}(?P<number>{NUMBER}))\s+(?:of|in|from)\s+"
        rf"(?:the\s+)?(?:round{_COUNTED}(?P<round>{NUMBER})|(?P<nth_round>{ORDINAL})\s+round)",
        _within_round,
    ),
    _rule(
        rf"\b(?P<from>first|{_BACK})\s+(?P<number>{NUMBER})\s+(?P<noun>{ROUND}|{RESULT}|{MASK}|ones)\b",
        _several,
    ),
    _rule(
        rf"\b(?:all|every)\s+(?:of\s+)?(?:the\s+|your\s+|these\s+|those\s+)?(?:{_BACK}\s+)?"
        rf"(?:rounds?|results?|outputs?|masks?|instances?)\b(?!\s+of\b)|\beverything\s+(?:you\s+{FOUND}\s+)?so\s+far\b",
        _all,
    ),
    _rule(
        rf"\b(?P<noun>{_ANY})\s+before\s+(?:that|(?:the\s+)?(?:last|previous|latest)(?:\s+{_ANY})?)\b",
        _back(1),
    ),
    _rule(rf"\b{_BEFORE_LAST}\s+(?P<noun>{_ANY})\b", _back(1)),
    _rule(
        rf"\b(?P<noun>{_PLURAL}){_COUNTED}(?P<numbers>{NUMBER}{_MEASURE}"
        rf"(?:\s*{_TO}\s*{_NEXT}|(?:\s*(?:,\s*(?:and\s+)?|and\s+|&\s*){_NEXT})*))",
        _numbered,
    ),
    _rule(
        # "The round one on the left" is a shape.
        rf"\b(?<!the\s)(?P<noun>{ROUND}|{RESULT}|{MASK}){_COUNTED}"
        rf"(?P<numbers>{NUMBER}{_MEASURE}(?:\s*(?:and\s+|&\s*)#?[0-9]{{1,4}}(?![0-9]){_MEASURE})*)",
        _numbered,
    ),
    _rule(
        rf"\bthe\s+(?P<noun>{ROUND}|{RESULT}|{MASK}){_COUNTED}"
        rf"(?P<numbers>[0-9]{{1,4}}(?![0-9]){_MEASURE}|{NUMBER}(?=\s+{RESULT}|\s+{MASK}))",
        _numbered,
    ),
    _rule(r"(?<![\w#])#(?P<number>[0-9]{1,4})\b", _bare_number),
    _rule(
        rf"\b(?:the|your|that|in|of|from)\s+(?P<numbers>{ORDINAL}(?:\s*(?:,|and|&)\s*(?:the\s+)?{ORDINAL})*)"
        rf"[\s-]+(?P<noun>rounds?|{RESULT}|{MASK}|ones?{END})\b",
        _numbered,
    ),
    _rule(
        rf"\b{_BACK}\s+(?:(?:segment(?:ed|ation)|output|predicted|{FOUND})\s+)?"
        rf"(?P<noun>(?:rounds?|turns?|{RESULT}|{MASK}|one|organ|structure|region|lesion|finding)\b)",
        _back(0),
    ),
    _rule(
        rf"\b(?P<noun>{_ANY})\s+(?:just\s+|right\s+|immediately\s+)?before(?:\s+(?:this|now))?{END}",
        _back(0),
    ),
    _rule(rf"\bwhat\s+{_YOU}{FOUND}\b", _latest_round),
    _rule(
        # "Explain your answer" speaks of the answer to come.
        rf"\b(?:(?:this|that|(?<!explain\s)(?<!justify\s)(?<!give\s)your)\s+{_ONE_RESULT}|(?:these|those)\s+(?:{RESULT}|{MASK})|"
        rf"the\s+(?:{RESULT}|{MASK})\s+(?:above|so\s+far|{_YOU}{FOUND})|the\s+above\s+(?:{RESULT}|{MASK}))\b",
        _latest_round,
    ),
    _rule(
        rf"\b(?:{_BASED}|with|from)\s+the\s+(?:{RESULT}|{MASK})\b(?!\s+(?:of|for|to|from|in)\b)",
        _latest_round,
    ),
    _rule(
        rf"\b(?:in|inside|within|of|outside)\s+the\s+(?:{RESULT}|masks?|segmentations?)\b(?!\s+(?:of|for)\b)",
        _latest_round,
    ),
    _rule(
        rf"\bthe\s+{_NAME}(?:{_YOU}(?:{FOUND}|saw|looked\s+at|asked\s+(?:for|about)|talked\s+about)\b|"
        rf"(?:(?:that|which)\s+)?(?:(?:was|were|has\s+been|have\s+been)\s+)?{FOUND}\s+"
        rf"(?:earlier|previously|already|so\s+far|(?:before|above){END})|"
        rf"(?:from|of)\s+(?:before|earlier)\b)",
        _pointed_at,
    ),
    _rule(
        rf"\b(?:already|previously|just|earlier|last)\s+{FOUND}\s+(?P<name>{WORD}(?:\s+{WORD})??){END}",
        _pointed_at,
    ),
    _rule(
        # Behind a noun, "that" begins a relative clause.
        rf"(?:^|[,;:(]\s*|\b(?:{PREPOSITION}|and|segment|show|outline|mark|find|is|are|does)\s+)"
        rf"(?P<words>(?:this|that|these|those)\s+{_WORDS})",
        _perhaps_named,
    ),
    _rule(rf"\b(?:said|the\s+same|the\s+{_BACK}|the\s+aforementioned)\s+{_WORDS}", _perhaps_named),
    _rule(rf"\b{_BASED}\s+the\s+{_WORDS}", _perhaps_named),
    _rule(rf"\b{PREPOSITION}\s+the\s+{_NAME}(?:mask|segmentation|contour)\b", _perhaps_named),
    _rule(
        rf"\b(?:between|of)\s+the\s+two(?:\s+of\s+them)?{END}|\bboth\s+(?:of\s+(?:them|these|those)\b|"
        rf"(?:{ROUND}|{RESULT}|{MASK}|organs|structures)\b)|\b{PREPOSITION}\s+both{END}",
        _two,
    ),
)
_WITHIN = re.compile(r"\s+(?:in|of|from|at|as|during)\s+(?:the\s+)?(?:\w+\s+of\s+)?", re.IGNORECASE)


def find_mentions(prompt: str, talk: Conversation) -> list[Mention]:
    """Find the words that name earlier masks, in the order of the question.

    Raises:
        ValueError: if words name a round or a mask that is not there.
    """
    found: list[Mention] = []
    for pattern, look_up in _RULES:
        for match in pattern.finditer(prompt):
            start, end = match.span("words" if "words" in pattern.groupindex else 0)
            if any(start < mention.end and mention.start < end for mention in found):
                continue
            if any(_WITHIN.fullmatch(prompt, end, mention.start) for mention in found):
                # "What you outlined in round 2" is said by "round 2".
                continue
            if references := look_up(match, talk):
                found.append(Mention(start, end, prompt[start:end], references))
    return sorted(found, key=lambda mention: mention.start)
