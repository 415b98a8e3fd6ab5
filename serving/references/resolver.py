"""Says which earlier masks a question refers to, in English and without any network.

MR-MedSeg's questions refer to earlier rounds in three ways (MediRound, section D.1): "the output of
round N", "instance N", and "its ..." for the latest. A server must read them itself, as the network
is handed the masks they mean. Questions in other languages give their references explicitly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.references.mentions import Mention, find_mentions
from serving.references.pronouns import Pronoun, find_pronouns
from serving.references.rounds import Conversation, Reference, RoundSummary
from serving.references.wants_mask import wants_mask


@dataclass(frozen=True)
class Resolution:
    """How a question was understood."""

    references: tuple[Reference, ...]
    """The masks it refers to, each once, in the order of the words; none if it stands alone."""
    prompt: str
    """What to give the model: the question as it came, as MR-MedSeg keeps the referring words."""
    description: str
    """What was taken for what: “its” -> round 1, instance 1; empty without references."""
    wants_mask: bool
    """Whether it asks for a mask, or plainly for words."""


def resolve(prompt: str, rounds: Sequence[RoundSummary]) -> Resolution:
    """Find what a question refers to.

    Words that name a round or a mask come before pronouns: in "based on round 2, segment its left
    part", "its" is round 2. A pronoun stands for the masks of the latest round that has any. In a
    question that asks for words alone, a pronoun that stands for nothing is let be.

    Args:
        prompt: The question.
        rounds: All rounds so far, in their order.

    Raises:
        ValueError: if the question refers to a round or a mask that is not there, or to one of
            several with a word for one; the text lists the rounds there are.
    """
    talk = Conversation(rounds)
    asks_for_mask = wants_mask(prompt)
    taken = find_mentions(prompt, talk)
    if not taken:
        pronouns = find_pronouns(prompt)[:1]
        taken = [
            mention
            for pronoun in pronouns
            if (mention := _latest(pronoun, talk, asks_for_mask)) is not None
        ]
    references = tuple(dict.fromkeys(each for mention in taken for each in mention.references))
    return Resolution(references, prompt, "; ".join(map(_described, taken)), asks_for_mask)


def _latest(pronoun: Pronoun, talk: Conversation, asks_for_mask: bool) -> Mention | None:
    if not talk.masks and not (pronoun.certain and asks_for_mask):
        return None
    references = talk.latest_round(pronoun.words)
    if len(references) > 1 and not pronoun.plural and asks_for_mask:
        raise talk.error(
            pronoun.words,
            f"round {references[0].round} has {len(references)} masks; say which, as in "
            f"“instance {references[0].instance}”, or “their” for all",
        )
    end = pronoun.start + len(pronoun.words)
    return Mention(pronoun.start, end, pronoun.words, references)


def _described(mention: Mention) -> str:
    places = ", ".join(
        f"round {each.round}, instance {each.instance}" for each in mention.references
    )
    return f"“{mention.words}” -> {places}"
