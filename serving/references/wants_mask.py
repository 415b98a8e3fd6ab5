"""Tells whether a question wants a mask or plain words, in English.

Everything said here is about a picture, so a question wants a mask unless it plainly asks for
words. It plainly does where it

- asks why, how, when or who, or what something does, means, causes or is called;
- asks for a definition ("what is the spleen?"), while "what is below it?" and "what is the organ
  that ...?" ask for a thing in the picture;
- can be answered with yes or no ("is this a CT?", "does it contain fat?"), unless it asks whether
  something can be seen ("is the liver in this slice?", "is there a lesion?"): a mask answers that;
- says explain, describe, compare or tell me about;
- asks for nothing: thanks, greetings, remarks.

Of several sentences one that wants a mask is enough.
"""

import re
from typing import Literal

from serving.references.wording import CLASS_NOUNS, PREPOSITION

_Asks = Literal["mask", "words", "nothing"]

_NOUNS = CLASS_NOUNS | {"side", "half", "pole", "wall", "tail", "head", "neck"}
_THING = rf"(?:{'|'.join(sorted(_NOUNS))})s?"
_PLACE = rf"(?:{PREPOSITION}|next|left|right|adjacent|attached|connected|there|here)"
_ASKING = r"(?:where|which|what|who|why|how)"
_WHAT_IS = r"what(?:['\u2019]s|\s+(?:is|are|was|were))"
_REQUEST = (
    r"(?:segment|outline|delineate|mask|highlight|contour|locate|mark|draw|show|find|trace|"
    r"point\s+(?:to|out|at)|identify|detect|select|display|output|colou?r|"
    r"give\s+me\s+(?:a|the)\s+(?:mask|segmentation|outline))"
)
_TELL = (
    r"(?:explain|describe|tell|define|summari[sz]e|list|name|compare|translate|discuss|elaborate|"
    r"write|say|count|measure|report|repeat|give\s+me\s+(?:an?|some|more)\s+(?:short\s+)?"
    r"(?:explanation|summary|description|definition|overview|details?|information|joke))"
)
_YES_OR_NO = (
    r"(?:is|are|was|were|do|does|did|can|could|has|have|had|should|would|will|may|might|"
    r"isn['\u2019]t|doesn['\u2019]t)"
)
_SEEN = (
    r"(?:visible|seen|shown|present|here|(?:in|on)\s+(?:this|the)\s+(?:\w+\s+)?"
    r"(?:slice|image|picture|scan|ct|mri|section|view))"
)
_LEADS_TO = (
    r"(?:drain|empty|open|connect|attach|touch|border|lie|sit|rest|surround|cover|enclose|supply|"
    r"join|lead|flow|adjoin|cross|pass|continue|run|feed)"
)
_PROPERTY = (
    r"(?:name|function|role|purpose|job|task|size|volume|cause|reason|meaning|difference|"
    r"definition|diagnosis|capital|weather|modality|time|colou?r|shape|length|weight|treatment|"
    r"use|point|matter|problem|wrong|going\s+on|happening|new|normal|called|your)s?"
)
_KIND = (
    r"(?:disease|modality|plane|sequence|symptoms?|signs?|kind|type|sort|drug|treatment|test|age|"
    r"sex|doctor|colou?r|time|percentage|view|size)"
)
_STATEMENT = (
    r"(?:(?:i|we|you|he|she)(?:['\u2019](?:m|re|ve|ll)|\s+(?!(?:see|want|need)\b)\w+)|"
    r"(?:this|that|these|those|it|here|they)(?:['\u2019](?:s|re)|\s+(?:also|\w+s|are|were))\b|"
    r"(?:my|our)\s+(?:\w+\s+){1,3}(?:is|was|are|were|\w+ed)\b)"
)
_REMARK = (
    r"(?:cool|nice|perfect|wonderful|bye|goodbye|sorry|wow|sure|what|right|exactly|correct|you|"
    r"interesting|a\s+lot|very\s+much|much|job|work|again|morning|evening|stop|help|wait)\b"
    r"(?:\s+(?:you|one|again|then|indeed|job|work|so\s+much))?\W*$"
)

_POLITE = re.compile(
    r"^(?:(?:please|now|next|then|and|also|so|ok(?:ay)?|well|great|thanks|thank\s+you|hello|hi|yes|"
    r"no|finally|first|alright|good|kindly|actually|but)\b[\s,:!]*"
    r"|(?:can|could|would|will)\s+you\s+(?:please\s+|kindly\s+|also\s+|now\s+)*"
    r"|(?:i(?:['\u2019]d|\s+would)?\s+(?:want|like|need|wish)|let['\u2019]s|let\s+(?:me|us))\s+"
    r"(?:you\s+)?(?:to\s+)?"
    rf"|(?:(?:tell|ask)\s+(?:me|us)|do\s+you\s+know|know|learn|understand)\s+(?={_ASKING}\b)"
    r"|i\s+wonder\s+)+",
    re.IGNORECASE,
)
_LEADING_REFERENCE = re.compile(
    r"^(?:based\s+(?:up)?on|building\s+on|from|given|using|with|for|in|on|at|after|regarding|"
    r"concerning|as\s+for|starting\s+from|taking|looking\s+at|considering|referring\s+to|"
    r"according\s+to|relative\s+to|about|(?:rounds?|instances?|objects?|masks?)\s+#?[0-9])\b"
    rf"[^,:]*?(?:[,:]\s*|\s+(?=(?:{_ASKING}|segment|outline|show|find|locate|please|explain|"
    r"describe)\b))",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.?!\n]+[.?!]*")

# Tried in order on a sentence without its polite opening and without "based on ...,".
_OPENINGS: tuple[tuple[str, _Asks], ...] = (
    (rf"{_REQUEST}\b(?!\s+(?:me\s+)?(?:how|why|out\s+(?:why|how)))", "mask"),
    (rf"{_TELL}\b", "words"),
    (r"(?:where|how\s+about|what\s+about)\b", "mask"),
    (r"(?:why|how|when|who|whom|whose)\b", "words"),
    (rf"which\s+{_KIND}\b", "words"),
    (r"which\b", "mask"),
    (r"(?:is|are)\s+there\b|(?:do|can)\s+(?:you|i|we)\s+see\b", "mask"),
    (rf"(?:is|are)\s+(?!(?:this|that|it|these)\s+an?\b).*\b{_SEEN}\b", "mask"),
    (r"do\s+(?:the\s+same|(?:it|that|this)\s+(?:again|for|with))\b", "mask"),
    (rf"{_YES_OR_NO}\b", "words"),
    (r"what\s+(?:it|this|that|they|these|the\s+\w+)\s+(?:does|do|is|are|means?|looks?)\b", "words"),
    (
        rf"what\s+(?:does|do|did)\s+.*\b{_LEADS_TO}(?:\s+(?:in|on|to|onto|into|with|from))*\W*$",
        "mask",
    ),
    (r"what\s+(?:does|do|did|can|could|would|should|will|has|have|happen\w*|if|else)\b", "words"),
    # "What causes ataxia when damaged?" asks for what is damaged.
    (r"what\s+causes?\b(?!.*\b(?:when|if)\b)", "words"),
    (rf"what\s+{_KIND}\b", "words"),
    (rf"{_WHAT_IS}\s+(?:(?:the|its|their|an?)\s+)?(?:\w+\s+)?{_PROPERTY}\b", "words"),
    (rf"{_WHAT_IS}\s+.*\b(?:called|named|for|doing|like)\W*$", "words"),
    (rf"{_WHAT_IS}\s+(?:\w+\s+)?{_PLACE}\b", "mask"),
    (rf"{_WHAT_IS}\s+(?:the|that|this)\s+(?:[\w-]+\s+){{0,4}}{_THING}\s+\w", "mask"),
    (rf"{_WHAT_IS}\s+(?:(?:its|their)\b|it\s+that\b|\w+ed\b)", "mask"),
    (rf"{_WHAT_IS}\b", "words"),
    (r"what\s+\w", "mask"),
    (r"(?:i|we)(?:['\u2019](?:m|re)|\s+(?:am|are))\s+(?:looking|searching)\s+for\b", "mask"),
    (_STATEMENT, "nothing"),
    (_REMARK, "nothing"),
)
_COMPILED = tuple((re.compile(opening, re.IGNORECASE), asks) for opening, asks in _OPENINGS)
_LATER_REQUEST = re.compile(
    r"(?:,|\b(?:and|then|to|please))\s+(?:(?:please|also|then|now)\s+)*"
    r"(?:segment|outline|delineate|highlight|locate|mark|find|draw|"
    r"show\s+me\s+(?:the|its|their|where))\b(?!\s+(?:how|why))",
    re.IGNORECASE,
)


def wants_mask(prompt: str) -> bool:
    """Whether to answer with masks; else in words."""
    return any(_asks(sentence) == "mask" for sentence in _SENTENCE.findall(prompt))


def _asks(sentence: str) -> _Asks:
    body = _POLITE.sub("", sentence.strip())
    body = _POLITE.sub("", _LEADING_REFERENCE.sub("", body))
    if not re.search(r"\w", body):
        return "nothing"
    for opening, asks in _COMPILED:
        if opening.match(body):
            return "mask" if _LATER_REQUEST.search(body) else asks
    return "mask"
