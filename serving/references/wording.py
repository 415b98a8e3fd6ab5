"""Words that questions use of rounds, masks and numbers: pieces of regular expressions, English."""

import re


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_NUMBERS = r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_ORDINALS = (
    r"zeroth|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
)
_VALUES = {word: n for names in (_NUMBERS, _ORDINALS) for n, word in enumerate(names.split("|"))}

NUMBER = rf"(?:[0-9]{{1,4}}(?![0-9])|(?:{_NUMBERS})\b)"
ORDINAL = rf"(?:[0-9]{{1,4}}(?:st|nd|rd|th)|{_ORDINALS})\b"
ROUND = r"(?:rounds?|turns?)"
RESULT = r"(?:results?|outputs?|answers?|responses?|predictions?)"
MASK = r"(?:instances?|objects?|masks?|segmentations?|entity|entities|contours?)"
FOUND = (
    r"(?:found|segmented|outlined|marked|showed|shown|located|detected|delineated|masked|"
    r"identified|highlighted|drew|drawn|gave|given|returned|mentioned|discussed)"
)
"""Participles and past forms of what the system did."""
PREPOSITION = (
    r"(?:of|in|on|at|to|from|with|by|inside|within|outside|around|near|below|above|under|behind|"
    r"beside|beneath|over|into|onto|through|between|against|across|along|off|past|underneath)"
)
END = r"(?=\s*(?:[,.;:?!)”\"]|$|['\u2019]s\b|(?:please|and|again|too|now|as)\b))"
"""What follows the last word of a phrase."""
WORD = r"[^\W\d_][\w-]*"

POINTLESS = word_set("organ structure region area part object thing one mask piece")
"""Nouns that tell no mask from another."""
CLASS_NOUNS = POINTLESS | word_set(
    "lesion tumour tumor mass gland vessel artery vein duct lobe nucleus bone muscle ventricle "
    "cavity finding spot tissue"
)
"""Nouns for a kind of thing that a mask can show."""


PICTURE = word_set(
    "image picture slice scan ct mri mr x-ray xray radiograph ultrasound photo t1 t2 section view "
    "study frame"
)
"""Words for what is looked at."""


def value(word: str) -> int:
    """Number that a NUMBER or an ORDINAL says."""
    digits = re.match(r"[0-9]+", word)
    return int(digits.group()) if digits else _VALUES[word.lower()]


def values(words: str) -> list[int]:
    """Numbers of a list such as "1, 2 and 4" or "2 to 4", a span filled up."""
    found = [value(word) for word in re.findall(rf"{ORDINAL}|{NUMBER}", words, re.IGNORECASE)]
    if len(found) == 2 and re.search(r"\bto\b|\bthrough\b|[-\u2013]", words, re.IGNORECASE):
        return list(range(min(found), max(found) + 1))
    return found
