"""One question for each object that a prompt asks for, in English.

A network answers one question with one mask, so "segment the stomach and the liver" becomes two
questions. A list is taken apart only where the objects themselves stand, behind "segment", "where
are" and the like; what a clause says about one object ("the organ that makes albumin and stores
glycogen") stays together. The rest of the prompt is kept around every object.
"""

import re

from serving.references.wording import word_set

MOST_OBJECTS = 8
"""Of one prompt."""

_VERB = (
    r"(?:segment|outline|delineate|mask|highlight|contour|locate|mark|draw|show|find|trace|identify|"
    r"detect|select|display|see|point\s+(?:out|to)|give|(?:want|need|like)(?=\s+(?:the|both|its)\b))"
)
_CLASS = (
    r"(?:organ|structure|region|area|part|one|gland|vessel|artery|vein|lobe|nucleus|muscle|bone|"
    r"duct|spot|thing)"
)
_PREPOSITIONS = word_set(
    "of in on at to from with by inside within outside near below above under behind beside over "
    "into through between against across along next around"
)
_REQUEST = re.compile(
    rf"(?:(?!\b(?:which|what|where|that|who)\b).)*?(?<![a-z])(?:(?<=[,:;])\s*|(?:please|now|then|and|"
    rf"also|to|you|next|kindly|just|again|i|we|me|us|would|['\u2019]d|let['\u2019]s|[0-9]|first|^)\s*)\b"
    rf"{_VERB}(?:\s*(?:,|and|or)\s*(?:then\s+)?{_VERB})*(?:\s+(?:me|us))?"
    r"(?:\s+(?:the\s+)?(?:masks?|segmentations?|outlines?)\s+(?:of|for))?\s*:?\s+",
    re.IGNORECASE,
)
_WHERE = re.compile(
    r".*?\bwhere(?:['\u2019]s|\s+(?:exactly\s+)?(?:is|are|(?:can|do|could)\s+(?:i|we|you)\s+"
    r"(?:see|find)))\s+",
    re.IGNORECASE,
)
_SEEN = re.compile(r"(?:is|are)\s+(?!(?:there|this|that|it|these|they)\b)", re.IGNORECASE)
_BEING = re.compile(r"\b(?:is|are)(?=\s+$)", re.IGNORECASE)
_WHICH = re.compile(r"(?:.*,\s*)?(?:which|what|who)\b", re.IGNORECASE)
_STATEMENT = re.compile(
    r"(?:i\s+(?:am|have|do|think|see)|this|that|here|it|my|we|he|she|they|these|there)\b|"
    r"thanks?(?:\s+you)?\W*$",
    re.IGNORECASE,
)
_POLITE = re.compile(
    r"(?:(?:thanks|thank\s+you|ok|okay|great|good|now|next|then|and|also|please|what\s+about|"
    r"how\s+about)\b[\s,:!]*)+",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"(?:[\s,]+(?:based\s+on|using|given|according\s+to|referring\s+to|from)\b[^,]*"
    r"\b(?:rounds?|instances?|outputs?|results?|masks?)\b[^?]*?)?"
    r"(?:[\s,]*\b(?:(?:in|on|from|of)\s+(?:this|the|that)\s+(?:\w+\s+)?"
    r"(?:image|picture|slice|scan|ct|mri|section|view|x-ray|radiograph)|here|please|for\s+me|"
    r"as\s+well|too|separately|now|visible|shown|present)(?!\w))*[\s.?!;]*$",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"\b(?:that|which|who|whose|what|where|when|if|because|while|is|are|was|were|has|have|does|do|"
    r"can|(?:it|they|i|you|we)\s+(?!(?:and|or|on|in|at|to|with|from|as)\b)\w+)\b",
    re.IGNORECASE,
)
_ONE_OBJECT = re.compile(
    r"\b(?:together|combined|as\s+(?:one|a\s+whole)|in(?:to)?\s+one|not|except|but|without|excluding|"
    r"besides|apart\s+from|or|overlap|union|rounds?|instances?|turns?)\b|[0-9]",
    re.IGNORECASE,
)
"""Words that make a list of names something else than several objects."""
_JOINED = re.compile(
    r"\bhead\s+and\s+neck\b|\blumen\s+and\s+wall\b|\bgyri\s+and\s+sulci\b|"
    r"\b(?:gr[ae]y\s+and\s+white|white\s+and\s+gr[ae]y)\s+matter\b|\bbetween\b.*|"
    r"\b(?:left\s+and\s+(?:the\s+)?right|right\s+and\s+(?:the\s+)?left)\s+(?=(?:[a-z]+\s+)?(?:thalam|putam|"
    r"caudate|hippocamp|insul|amygdal|pallid|accumbens|cerebell|cerebr|hemispher|cingul|cortex|"
    r"matter|lateral\s+ventricle|(?:frontal|parietal|temporal|occipital)\s+lobe))",
    re.IGNORECASE,
)
"""One object with "and" in its name; the atlas has the two sides of a brain structure as one."""
_SEPARATOR = re.compile(
    r"\s*,\s*(?:(?:and|plus|as\s+well\s+as)\s+)?(?:also\s+)?|"
    r"\s+(?:and|plus|as\s+well\s+as|along\s+with|also)\s+(?:(?:also|then)\s+)?|\s*&\s*",
    re.IGNORECASE,
)
_SECOND_CLAUSE = re.compile(
    rf"(?:\s*,)?\s+(?:and|plus|as\s+well\s+as)\s+(?:also\s+)?(?=(?:the|an?)\s+(?:\w+\s+)?{_CLASS}\s+"
    r"(?:that|which)\b)",
    re.IGNORECASE,
)
_SECOND_QUESTION = re.compile(
    r"\s*[,;]?\s+and\s+(?:also\s+)?(?=(?:which|what|where)\b(?!\s+also\b))", re.IGNORECASE
)
_SECOND_REQUEST = re.compile(
    rf"\s*[,;]?\s+(?:and|then)\s+(?:(?:then|also|please)\s+)*"
    rf"(?={_VERB}\s+(?:me\s+)?(?!it\b|them\b|this\b|that\b))",
    re.IGNORECASE,
)
_TWO_QUESTIONS = re.compile(
    r"(?P<first>(?:which|what)\s+(?P<noun>\w+)\s+\w+\s+(?P<object>(?:the\s+)?\w+))\s*\x01"
    r"(?P<asks>which|what)(?:\s+one)?\s+(?P<verb>\w+)\s+(?:it|them)(?P<tail>\W*)$",
    re.IGNORECASE,
)
_SIDE_WORDS = word_set(
    "left right upper lower anterior posterior superior inferior medial lateral middle proximal "
    "distal internal external"
)
_LOOKS = word_set(
    "small big large bright dark white black grey gray long short thin thick smooth irregular "
    "hollow round solid soft hard"
)
_PARTS = re.compile(
    r"\b(?:head|neck|body|tail|wall|pole|cortex|apex|base|horn|fundus|antrum|roof|floor|tip|root|"
    r"surface|hilum|lobe|lobes|artery|arteries|vein|veins|vessel|vessels|duct|ducts)$",
    re.IGNORECASE,
)
_NO_OBJECT = _PREPOSITIONS | word_set(
    "explain tell describe say output why how it them this that these those is are then only also "
    "not me you please segment outline delineate mask highlight locate mark show find give"
)
_DETERMINER = re.compile(r"(?:the|its|their|an?|both|my|each)\s+", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.?!;\n]+[.?!;\n]*\s*")
_MOST_WORDS = 8


def split_objects(prompt: str) -> list[str]:
    """Take a prompt apart into one question for each object it asks for.

    Args:
        prompt: A question or request.

    Returns:
        The questions in the order of the prompt; the prompt itself, as it came, where it asks for
        one object.

    Raises:
        ValueError: if it asks for more than `MOST_OBJECTS`.
    """
    sentences = _SENTENCE.findall(prompt)
    asking = [i for i, sentence in enumerate(sentences) if _asks_for_object(sentence)]
    if not asking:
        asking = [i for i, each in enumerate(sentences) if not _STATEMENT.match(each.strip())][:1]
    if not asking:
        return [prompt]
    questions = []
    for i, after in zip(asking, [*asking[1:], len(sentences)], strict=True):
        context = "".join(sentences[: asking[0]])
        behind = "".join(sentences[i + 1 : after])
        for part in _parts(sentences[i].strip()):
            questions.append(f"{context}{part} {behind}".strip())
    if len(questions) > MOST_OBJECTS:
        raise ValueError(
            f"prompt: expected at most {MOST_OBJECTS} objects, got {len(questions)}; "
            "ask for the others in another request"
        )
    return questions if len(questions) > 1 else [prompt]


def _asks_for_object(sentence: str) -> bool:
    """Whether a sentence asks for something by itself: "Outline it." does not."""
    sentence = sentence.strip()
    if _STATEMENT.match(sentence):
        return False
    request = _REQUEST.match(sentence)
    if request:
        return not re.match(r"(?:it|them)\b|how\b|why\b", sentence[request.end() :], re.IGNORECASE)
    return bool(_WHERE.match(sentence) or re.match(r"which\b", sentence, re.IGNORECASE))


def _parts(sentence: str) -> list[str]:
    """The questions of one sentence."""
    if _WHICH.match(sentence) or _WHERE.match(sentence):
        pieces = _SECOND_QUESTION.split(sentence)
        if len(pieces) > 1:
            return _standing_alone(pieces)
    if _WHICH.match(sentence):
        return [sentence]
    pieces = _SECOND_REQUEST.split(sentence)
    if len(pieces) > 1 and _REQUEST.match(pieces[0]) and not _CLAUSE.search(pieces[0]):
        mark = _end_mark(sentence)
        return [_ended(part, mark) for piece in pieces for part in _listed(piece)]
    return _listed(sentence)


def _standing_alone(pieces: list[str]) -> list[str]:
    """Questions joined by "and", each with what it takes from the one before."""
    joined = _TWO_QUESTIONS.match("\x01".join(pieces))
    if joined:
        second = f"{joined['asks']} {joined['noun']} {joined['verb']} {joined['object']}"
        pieces = [joined["first"], second + joined["tail"]]
    capital = pieces[0][0].isupper()
    mark = _end_mark(pieces[-1])
    ended = [_ended(piece, mark) for piece in pieces]
    return [each[0].upper() + each[1:] if capital else each for each in ended]


def _end_mark(text: str) -> str:
    return text[-1] if text[-1:] in (".", "?", "!") else ""


def _ended(text: str, mark: str) -> str:
    return text.rstrip(" ,;.?!") + mark


def _listed(sentence: str) -> list[str]:
    """The sentence once for each object of its list."""
    opening = next(
        (m for pattern in (_REQUEST, _WHERE, _SEEN, _POLITE) if (m := pattern.match(sentence))),
        None,
    )
    start = opening.end() if opening else 0
    tail = _TAIL.search(sentence, start)
    end = tail.start() if tail else len(sentence)
    prefix, objects, suffix = sentence[:start], sentence[start:end], sentence[end:]
    items = _items(re.sub(r"^both\s+(?:of\s+)?", "", objects, flags=re.IGNORECASE))
    if len(items) < 2 or (_CLAUSE.search(objects) and not _asks_for_object(sentence)):
        return [sentence]
    return [_agreeing(prefix, item) + item + suffix for item in items]


def _agreeing(prefix: str, item: str) -> str:
    """The opening with "is" or "are" as the object has it."""

    def being(match: re.Match[str]) -> str:
        word = "are" if _is_plural(item) else "is"
        return word.capitalize() if match[0][0].isupper() else word

    return _BEING.sub(being, prefix)


def _is_plural(item: str) -> bool:
    noun = re.split(r"\s+(?:of|in|on|behind|below|above|near)\s", item)[0].lower()
    return noun.endswith("s") and not noun.endswith(("ss", "us", "is", "as", "pons"))


def _items(text: str) -> list[str]:
    """The objects of a list; one where it is no list of several."""
    if _ONE_OBJECT.search(_CLAUSE.split(text)[0]):
        return [text]
    clause = _CLAUSE.search(text)
    head, rest = (text[: clause.start()], text[clause.start() :]) if clause else (text, "")
    hidden = _JOINED.sub(lambda match: match[0].replace("and", "\x00").replace(",", "\x02"), head)
    separators = _SEPARATOR.findall(hidden)
    items = [item.replace("\x00", "and").replace("\x02", ",") for item in _SEPARATOR.split(hidden)]
    if not _is_list(items, separators, bool(rest)):
        items = [head]
    described = _SECOND_CLAUSE.split(rest)
    items = [*items[:-1], items[-1] + described[0], *described[1:]]
    return _completed(items) if len(items) > 1 else items


def _is_list(items: list[str], separators: list[str], with_clause: bool) -> bool:
    words = [_DETERMINER.sub("", item.lower(), count=1).split() for item in items]
    if with_clause and any(word[:1] in ([], ["which"]) for word in words):
        return False
    if any(not word or word[0] in _NO_OBJECT or len(word) > _MOST_WORDS for word in words):
        return False
    if any(set(word) <= _LOOKS for word in words):
        return False
    commas_only = all(not re.search(r"\w|&", separator) for separator in separators)
    # "The liver, the largest organ of the abdomen" is one object.
    return not commas_only or all(
        len(word) <= 2 and not set(word) & _PREPOSITIONS for word in words
    )


def _completed(items: list[str]) -> list[str]:
    """Objects with the article, the noun and the possessor that the list says once."""
    first_article = re.match(r"(the|its|their)\s", items[0], re.IGNORECASE)
    noun = items[-1].split()
    while noun and (noun[0].lower() in _SIDE_WORDS or _DETERMINER.match(noun[0] + " ")):
        noun = noun[1:]
    sided = any(_is_side(item) for item in items)
    whole = re.search(r"\sof\s.*$", items[-1], re.IGNORECASE)
    completed: list[str] = []
    for item in items:
        owned = re.match(r"(?:its|their)\s+(.*)", item, re.IGNORECASE)
        if owned and completed and not re.match(r"its\b|their\b", completed[0], re.IGNORECASE):
            item = f"the {owned[1]} of {completed[0]}"
        elif first_article and not _DETERMINER.match(item):
            item = f"{first_article[1].lower()} {item}"
        if _is_side(item):
            item = f"{item} {_singular(' '.join(noun))}"
        elif sided:
            item = _singular(item)
        elif whole and not re.search(r"\sof\s", item) and _PARTS.search(item):
            item += whole[0]
        completed.append(item)
    return completed


def _is_side(item: str) -> bool:
    words = _DETERMINER.sub("", item.lower(), count=1).split()
    return bool(words) and set(words) <= _SIDE_WORDS


def _singular(name: str) -> str:
    """One of a pair: kidneys -> kidney, arteries -> artery."""
    whole = re.search(r"\sof\s.*$", name)
    head, behind = (name[: whole.start()], whole[0]) if whole else (name, "")
    if head.endswith("ies"):
        return head[:-3] + "y" + behind
    return (head[:-1] if _is_plural(head) else head) + behind
