"""Tells which pronouns of a question point back to an earlier round, in English.

A pronoun points back unless its own question offers something that it can stand for. The rules
follow how English binds pronouns, as far as word order shows it:

- "segment the gland on top of it": no clause of its own, so "it" is not "the gland".
- "which organ lies below it?": an object is never the subject of its own clause.
- "which organ stores the bile it makes?": a pronoun right behind a noun begins a clause of its own.
- "which organ sends its urine into the bladder?": "its" is taken for the subject of its clause.
  It points back only behind a place ("lies on its left side") or a verb that relates two things
  ("enters its hilum").
- "find the liver and outline it", "makes the gait unsteady when alcohol impairs it": something
  before the "and", the comma or the "when" is what is meant.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serving.references.wording import CLASS_NOUNS, END, PICTURE, PREPOSITION, word_set


@dataclass(frozen=True)
class Pronoun:
    """A pronoun that points back."""

    start: int
    """Offset in the question."""
    words: str
    """As they stand in the question."""
    plural: bool
    """Whether it can stand for several masks."""
    certain: bool
    """Whether it can stand for nothing in the question or the picture."""


_REQUESTS = word_set(
    "segment show find outline locate mark highlight delineate mask draw contour give get point "
    "see look want need like identify detect trace select display pick add include"
)
_CONJUNCTIONS = word_set(
    "if when whenever because since so as while until although though unless once whether"
)
_COORDINATORS = frozenset(["and", "or", "but", "then", ",", ";", "—"])
_SUBJECTS = frozenset(["which", "what", "that", "who"])
_ASKING = frozenset(["which", "what", "where"])
_EMPTY = (
    _REQUESTS
    | _CONJUNCTIONS
    | _COORDINATORS
    | _SUBJECTS
    | PICTURE
    | word_set(
        "the a an this that these those my your our of in on at to from for with by into onto over "
        "between inside within outside around near next below above under behind beside i you we "
        "me us it its they them their there here please now then also next again too just only can "
        "could would will shall let let's may might do does did is are was were be been am ok okay "
        "yes no not thanks thank great good well right left upper lower inner outer first finally "
        "round step "
        'part side top bottom hand where whose how why and or ? ! . : ( ) “ ” " based given using '
        "so what's where's hello hi sorry alright still other same both all any some one "
        "happen happens mean means"
    )
)
"""Words that no pronoun can stand for."""
_PLACES = (
    r"(?:on|at|in|inside|within|below|above|under|beneath|behind|beside|near|around|along|over)"
)
_RELATION = (
    r"(?:enter|leave|touch|border|cover|surround|cap|cross|reach|supply|supplie|feed|drain|receive|"
    r"store|collect|carry|carrie|hold|join|line|support|protect|occupy|occupie|pierce|encircle|"
    r"adjoin|share|take|continue|overlap|fill|form|meet|enclose|compresse|indent|invade|include)(?:s|es)?"
)
_PLACED = re.compile(
    rf"\b(?:lies?|sits?|is|are|rests?|hangs?|runs?|pass|passes|found|located)\s+"
    rf"(?:\w+\s+){{0,2}}?(?:{_PLACES}|(?:in\s+front|on\s+top|to\s+the\s+(?:left|right))\s+of|next\s+to|"
    rf"attached\s+to|part\s+of|(?:left|right)\s+of)\s*$|"
    r"\b(?:that|which)\s+\w+s\s+(?:around|round|below|above|behind|beside|near|along|over|under)\s+$"
)
_RELATED = re.compile(rf"\b{_RELATION}\s*$")
_IS_ITS = re.compile(r"\b(?:that|which|what)\s+(?:\w+\s+)?(?:is|are)\s+$")
_INTRANSITIVE = re.compile(r"\b(?:that|which)\s+\w+s\s+(?:when|if|once)\s+(?:one\s+of\s+)?$")
_ASKED_PART = re.compile(
    rf"\b(?:which|what)(?:\s+(?:is|are)|(?:\s+\w+)?\s+of|(?:\s+(?!\w+s\b)\w+)?\s+{PREPOSITION})?\s*$"
)
_HAS_WITHIN = re.compile(
    r"\b(?:has|have|had|holds?|contains?|carries|carry|bears?)\s+[^,]*\b(?:in|on|inside|within|at|around|"
    r"above|over|below|beneath|under|behind|beside|near|into|(?:front|top)\s+of)\s+$"
)
_PLEONASTIC = re.compile(
    r"it(?:\s+(?:is|was|will|would|might|may|seems?|looks?|appears?|turns?|has\s+been)|['\u2019]s)"
    r"(?:\s+(?:be|not|very|quite|also|still|really))*\s*"
    r"(?:rain|snow|possible|impossible|true|likely|unlikely|necessary|important\s+(?:to|that)|known|"
    r"time\b|late\b|early\b|ok\b|okay\b|safe\s+to|hard\s+to|easy\s+to|difficult\s+to|clear\s+that|"
    r"like\b|that\b|out\b|said|thought|believed|called\s+for)"
)
_ASKED_PLEONASTIC = re.compile(
    r"\b(?:is|was|will|would)\s+it\s+(?:be\s+)?(?:rain|snow|possible|impossible|true|likely|necessary|"
    r"ok\b|okay\b|time\b|late\b|safe\s+to|hard\s+to|easy\s+to|cold|warm|hot\b|sunny)"
)
_IDIOM = re.compile(
    r"what\s+time\s+is\s+it|\bin\s+its\s+entirety|\bon\s+its\s+own|\bin\s+their\s+entirety|"
    r"\bthat['\u2019]s\s+it\b|\bgot\s+it\b|\b(?:do|try|make|find)\s+it\s+(?:again|hard|easy|possible)|"
    r"\b(?:what|where|which|who)(?:\s+\w+)?\s+(?:is|was)\s+it\s+(?:that|which)\b|"
    r"\bit\s+be\s+(?:seen|shown)\s+(?:what|which|where|that)\b|"
    r"\bforget\s+it|\bhow\s+is\s+it\s+going|\bput\s+it\s+(?:differently|another)"
)
_TOKEN = re.compile(r"[\w'\u2019-]+|[^\w\s]")
_SENTENCE_END = re.compile(r"[.?!;\n]+(?=\s|$)")
_QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"")
_PERSONAL = re.compile(
    r"\b(?:(its|it)(?!['\u2019-]?self|[-'\u2019]?selves)|(their|them|they|theirs))\b", re.IGNORECASE
)
_DEMONSTRATIVE = re.compile(
    # A noun must follow, as "that" alone mostly begins a relative clause.
    rf"\b(?:(?:this|that)\s+(?:one|organ|structure|region|area|part|lesion|tumou?r|mass|gland|vessel|"
    rf"artery|vein|duct|lobe|nucleus|bone|muscle|ventricle|cavity|spot|finding|piece)\b(?!['\u2019]s\s+body)|"
    rf"(?P<plural>(?:these|those)\s+(?:ones|two|three|organs|structures|regions|areas|parts|lesions|"
    rf"vessels|glands|lobes|nuclei|bones|muscles)\b|(?:these|those){END}))",
    re.IGNORECASE,
)
_COMPARED = re.compile(
    rf"\bthe\s+(?:same|other|opposite|contralateral)\s+"
    rf"(?:side|one|ones|organ|structure|region|hemisphere|half|place|object|thing|level)\b"
    rf"(?!\s+(?:of(?!\s+(?:it|that|them)\b)|that|which|as|from\s+the)\b)|\bthe\s+same{END}|\bcontralaterally{END}",
    re.IGNORECASE,
)
_BARE = re.compile(
    rf"\b(?:{PREPOSITION}|{'|'.join(sorted(_REQUESTS))})\s+(?:this|that){END}", re.IGNORECASE
)
_THERE = re.compile(
    r"\bthere\b(?!\s+(?:is|are|was|were|be|been|seems?|may|might|must|exists?|any|a|an|no)\b|['\u2019]s|['\u2019]re)",
    re.IGNORECASE,
)
_EXISTENTIAL = re.compile(r"\b(?:is|are|was|were|hi|hello|hey|be|not)\s+$", re.IGNORECASE)
_WHAT_IS_THERE = re.compile(r"\bwhat(?:\s+\w+)?\s+(?:is|are)\s+$", re.IGNORECASE)


def find_pronouns(prompt: str) -> list[Pronoun]:
    """Find what points back, in the order of the question."""
    text = _QUOTED.sub(lambda match: " " * len(match[0]), prompt)
    return sorted(_found(text), key=lambda pronoun: pronoun.start)


def _found(text: str) -> Iterator[Pronoun]:
    idioms = [
        match.span()
        for pattern in (_IDIOM, _ASKED_PLEONASTIC)
        for match in pattern.finditer(text.lower())
    ]
    for match in _PERSONAL.finditer(text):
        idiomatic = any(start <= match.start() < end for start, end in idioms)
        if idiomatic or match[0] == "IT" or _PLEONASTIC.match(text.lower(), match.start()):
            continue
        if _points_back(text, match.start(), match[0].lower()):
            before = text[: match.start()].lower()
            certain = not (_RELATED.search(before) or _INTRANSITIVE.search(before))
            yield Pronoun(match.start(), match[0], match[2] is not None, certain)
    for match in _DEMONSTRATIVE.finditer(text):
        yield Pronoun(match.start(), match[0], match["plural"] is not None, True)
    for pattern in (_COMPARED, _BARE):
        for match in pattern.finditer(text):
            yield Pronoun(match.start(), match[0], False, pattern is _COMPARED)
    for match in _THERE.finditer(text):
        before = text[: match.start()]
        if not _EXISTENTIAL.search(before) or _WHAT_IS_THERE.search(before):
            yield Pronoun(match.start(), match[0], True, False)


def _points_back(text: str, at: int, pronoun: str) -> bool:
    sentences = _SENTENCE_END.split(text[:at].lower())
    before = sentences[-1]
    if any(_names_something(_TOKEN.findall(each)) for each in sentences[:-1]):
        return False
    if _is_of_the_picture(sentences[:-1], before, pronoun):
        return False
    if _INTRANSITIVE.search(before):
        # "The space that widens when it shrinks" does not say of itself both.
        return True
    words = _TOKEN.findall(before)
    if _has_antecedent(words, pronoun):
        return False
    possessive = pronoun in ("its", "their")
    if not possessive:
        # What "has a tumour in it" has it in itself.
        return not (_in_clause(words) and _HAS_WITHIN.search(before))
    if words[-1:] == ["with"] and _names_something(words):
        return False
    if not _in_clause(words):
        return True
    if any(pattern.search(before) for pattern in (_PLACED, _IS_ITS, _ASKED_PART)):
        return True
    # What it drains "into" something, or receives "from" something, is its own.
    moved = {"into", "from"} & set(text[at:].lower().split()[:4])
    return _RELATED.search(before) is not None and not moved


def _is_of_the_picture(earlier: Sequence[str], before: str, pronoun: str) -> bool:
    """Whether "in it" speaks of the picture that a sentence before introduces."""
    shown = any(word in PICTURE for each in earlier for word in _TOKEN.findall(each))
    return shown and pronoun == "it" and re.search(r"\b(?:in|on)\s+$", before) is not None


def _names_something(words: Sequence[str]) -> bool:
    """Whether words, taken together, name something of the body."""
    if set(words) & PICTURE:
        return bool(set(words) & (_REQUESTS | _ASKING)) and any(_is_name(word) for word in words)
    return any(_is_name(word) for word in words)


def _is_name(word: str) -> bool:
    return word not in _EMPTY and word not in CLASS_NOUNS and not word.isdigit()


def _in_clause(words: Sequence[str]) -> bool:
    """Whether a question or relative word has opened a clause: "which organ", "the organ that"."""
    return bool(set(words) & _SUBJECTS)


def _has_antecedent(words: Sequence[str], pronoun: str) -> bool:
    """Whether something before a conjunction or a coordinator is what the pronoun stands for."""
    for place in range(len(words) - 1, -1, -1):
        word, first = words[place], words[:place]
        if word in _CONJUNCTIONS:
            about = any(_is_name(each) or each in CLASS_NOUNS for each in first)
            if about and not (
                word == "as" and {"well", "such"} & set(words[place - 1 : place + 2])
            ):
                return True
        elif word in _COORDINATORS:
            outlined = bool(set(words[place + 1 :]) & _REQUESTS) and pronoun not in ("its", "their")
            named = any(_is_name(each) for each in first)
            classed = outlined and any(each in CLASS_NOUNS for each in first)
            if (named or classed) and not _is_second_of_between(words, place):
                return True
    return False


def _is_second_of_between(words: Sequence[str], place: int) -> bool:
    """Whether the pronoun is the other end of "between the liver and it"."""
    return "between" in words[:place] and place == len(words) - 1
