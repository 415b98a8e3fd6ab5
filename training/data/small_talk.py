"""Sentences beside the point, put before or after a training question.

People wrap a question in words that no list of templates foresees ("my cousin said yesterday ...").
A network that has met few such words takes every unknown one for an unknown subject, and refuses.
With small talk around questions of all premises, only the subject is left to decide. Holds no word
of the test split's templates that those of training lack.
"""

import random

_WORDS = """
    yesterday today again please really maybe very quickly slowly your our their some every
    another these this that a the friend cousin teacher nurse boss class course exam report screen
    patient hospital ward morning evening week minute question answer wants needs said told thinks
    knows saw shows reads writes look check explain help learn study compare wonder hope try with
    about before after while because if when here there now good new old small strange clear
    difficult important simple I you we they she he it am are was will can should image picture
    slice page view colleague student visitor family
""".split()  # noqa: SIM905  (as a list it fills a hundred lines)

SHARE = 0.4
"""Share of texts that get a sentence."""


def with_small_talk(text: str, rng: random.Random) -> str:
    """A question as it is, or with a sentence of random words before it, less often after it."""
    if rng.random() > SHARE:
        return text
    words = [rng.choice(_WORDS) for _ in range(rng.randint(2, 9))]
    sentence = " ".join(words)
    sentence = sentence[0].upper() + sentence[1:] + rng.choice(".,!")
    if text == text.lower():
        sentence = sentence.lower()
    if rng.random() < 0.7:
        return f"{sentence} {text}"
    return f"{text} {sentence}"
