"""Computes one round of a conversation, from its question and the rounds before; stores nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from serving.content_cache import Arrays
from serving.errors import Cancelled
from serving.mediround.asked import Asked
from serving.mediround.components import Components
from serving.mediround.taken import drawn_mask, take_references
from serving.mediround.wording import mask_answer, reference_words
from serving.mediround_prompt import Turn
from serving.preprocessing import check_image
from serving.reference_region import reference_region
from serving.references.wants_mask import wants_mask
from serving.sessions.conversation import Conversation, Instance, Reference, Round
from serving.several_objects import split_objects

BY_THE_USER = 1.0
"""Score and quality of a mask that the user corrected; nobody judges it any more."""


@dataclass(frozen=True)
class Computed:
    """A round, and what the language model did for it."""

    round: Round
    """Not yet part of the conversation."""
    cached_tokens: int
    """Prompt positions taken from the prefix cache."""
    computed_tokens: int
    """Prompt positions computed."""


class RoundComputer:
    """Computes rounds.

    Args:
        components: The served models.
        max_positions: Prompt positions and generated tokens that the engine takes.
    """

    def __init__(self, components: Components, max_positions: int) -> None:
        self._components, self._max_positions = components, max_positions

    def compute(
        self, conversation: Conversation, asked: Asked, is_cancelled: Callable[[], bool]
    ) -> Computed:
        """Answer a question.

        Args:
            conversation: As it is.
            asked: With a prompt.
            is_cancelled: Whether the client has given up; asked before each costly step.

        Raises:
            ValueError: if it refers to what is not there, or the conversation became too long.
            Cancelled: if the client gave up.
        """
        assert asked.prompt is not None
        pointed = asked.reference_rounds or asked.reference_instances or asked.mask is not None
        plain = asked.kind == "auto" and not pointed and not wants_mask(asked.prompt)
        if asked.kind == "text" or plain:
            return self._in_words(conversation, asked)
        return self._with_masks(conversation, asked, is_cancelled)

    def _in_words(self, conversation: Conversation, asked: Asked) -> Computed:
        """The base model's answer about the picture; it knows nothing of other rounds."""
        prompt = asked.prompt or ""
        token_ids, token_limit = self._components.question(prompt)
        picture = self._components.picture(check_image(conversation.image))
        patch_tokens = picture["patch_tokens"]
        self._check_length(len(token_ids) - 1 + len(patch_tokens) + token_limit)
        words = self._components.words(token_ids, patch_tokens, token_limit)
        width = patch_tokens.shape[1]
        given = Round(
            number=len(conversation.rounds) + 1,
            turn_id=asked.turn_id,
            prompt=prompt,
            kind="text",
            subquestions=(),
            references=(),
            reference_tokens=np.zeros((0, 2, width), np.float32),
            instances=(),
            answer=words.text,
            resolution="",
            beta=asked.beta,
            judge=asked.judge,
        )
        return Computed(given, words.cached_tokens, words.computed_tokens)

    def _with_masks(
        self, conversation: Conversation, asked: Asked, is_cancelled: Callable[[], bool]
    ) -> Computed:
        prompt = asked.prompt or ""
        # Whatever the words may be refused for comes before the picture costs anything.
        references, resolution = take_references(conversation, asked)
        subquestions = tuple(split_objects(prompt))
        image = check_image(conversation.image)
        picture = self._components.picture(image)

        token_ids, positions = self._components.conversation(
            [
                *(turn for each in conversation.rounds for turn in _turns(each)),
                *(Turn(text, len(references)) for text in subquestions),
            ]
        )
        self._check_length(len(token_ids) - 1 + len(picture["patch_tokens"]) + 1)
        _give_up_if(is_cancelled)

        revisions = self._revisions(conversation, asked, references, picture)
        masks = {each.number: each.mask for each in revisions}
        tokens = np.zeros((len(references), 2, picture["patch_tokens"].shape[1]), np.float32)
        for row, reference in zip(tokens, references, strict=True):
            packed = masks.get(reference.instance)
            row[:] = self._reference_token(
                image, conversation.mask_of(reference) if packed is None else packed
            )
        _give_up_if(is_cancelled)

        segments = [picture["patch_tokens"]]
        for each in conversation.rounds:
            segments += _segments(each.reference_tokens, len(each.subquestions))
        segments += _segments(tokens, len(subquestions))
        read = self._components.embeddings(token_ids, positions[-len(subquestions) :], segments)
        instances = self._decoded(
            read.text_embedding, picture, asked, first=len(conversation.instances) + 1
        )
        given = Round(
            number=len(conversation.rounds) + 1,
            turn_id=asked.turn_id,
            prompt=prompt,
            kind="mask",
            subquestions=subquestions,
            references=references,
            reference_tokens=tokens,
            instances=instances,
            answer=mask_answer(
                [bool(each.mask.any()) for each in instances],
                [_named(conversation, reference) for reference in references],
                [each.quality for each in instances if each.corrected],
                asked.beta,
            ),
            resolution=resolution,
            beta=asked.beta,
            judge=asked.judge,
            revisions=revisions,
        )
        return Computed(given, read.cached_tokens, read.computed_tokens)

    def _decoded(
        self, text_embedding: np.ndarray, picture: Arrays, asked: Asked, first: int
    ) -> tuple[Instance, ...]:
        """Judge, perhaps correct, and decode (N, 1, C); instances are numbered from `first`."""
        quality = np.full(len(text_embedding), np.nan, np.float32)
        corrected = np.zeros(len(text_embedding), np.bool_)
        decoded = text_embedding
        if asked.judge == "every":
            # In fp32 throughout; the released code compares a bf16 score.
            quality, correction = self._components.judged(text_embedding)
            corrected = quality <= np.float32(asked.beta)
            decoded = np.where(corrected[:, None, None], correction, text_embedding)
        masks, scores = self._components.masks(picture, decoded)
        return tuple(
            Instance(
                number=first + index,
                mask=masks[index],
                score=float(scores[index]),
                quality=float(quality[index]),
                corrected=bool(corrected[index]),
                text_embedding=text_embedding[index, 0],
            )
            for index in range(len(text_embedding))
        )

    def _revisions(
        self,
        conversation: Conversation,
        asked: Asked,
        references: Sequence[Reference],
        picture: Arrays,
    ) -> tuple[Instance, ...]:
        """Instances that change because this round refers to them, before it sees their masks."""
        by_user: list[Instance] = []
        if asked.mask_instance is not None and asked.mask is not None:
            by_user.append(corrected_by_user(conversation, asked.mask_instance, asked.mask))
        if asked.judge != "referenced":
            return tuple(by_user)
        done = {each.number for each in by_user}
        numbers = dict.fromkeys(each.instance for each in references if each.instance)
        waiting = [
            instance
            for instance in map(conversation.instance, numbers)
            if instance.number not in done and np.isnan(instance.quality)
        ]
        if not waiting:
            return tuple(by_user)
        embeddings = np.stack([each.text_embedding for each in waiting])[:, None]
        quality, correction = self._components.judged(embeddings)
        judged = [replace(each, quality=float(q)) for each, q in zip(waiting, quality, strict=True)]
        low = np.flatnonzero(quality <= np.float32(asked.beta))
        if len(low):
            masks, scores = self._components.masks(picture, correction[low])
            for index, mask, score in zip(low, masks, scores, strict=True):
                judged[index] = replace(
                    judged[index], mask=mask, score=float(score), corrected=True
                )
        return (*by_user, *judged)

    def _reference_token(self, image: np.ndarray, packed: np.ndarray) -> np.ndarray:
        mask = np.unpackbits(packed, axis=-1, count=image.shape[1]).astype(np.bool_)
        return self._components.reference_token(*reference_region(image, mask))

    def _check_length(self, positions: int) -> None:
        if positions > self._max_positions:
            raise ValueError(
                f"prompt: the conversation would take {positions} positions of the language model "
                f"with this question, expected at most {self._max_positions}; undo rounds, branch "
                "from an earlier one, or start a new conversation with the image"
            )


def corrected_by_user(conversation: Conversation, number: int, packed: np.ndarray) -> Instance:
    """An instance with the mask that the user put in its place.

    Raises:
        ValueError: if there is no such instance, or the mask is not one of the picture.
    """
    return replace(
        conversation.instance(number),
        mask=drawn_mask(conversation, packed),
        score=BY_THE_USER,
        quality=BY_THE_USER,
        corrected=False,
    )


def _turns(given: Round) -> list[Turn]:
    return [Turn(text, len(given.references)) for text in given.subquestions]


def _segments(tokens: np.ndarray, turns: int) -> list[np.ndarray]:
    """Crop and box rows (1, E) of every reference (R, 2, E), once for every turn of the round."""
    return [row[None] for _ in range(turns) for pair in tokens for row in pair]


def _named(conversation: Conversation, reference: Reference) -> str:
    if reference.mask is not None:
        return "the mask you drew"
    named = conversation.round(reference.round)
    index = [each.number for each in named.instances].index(reference.instance)
    return reference_words(reference.round, reference.instance, named.subquestions[index])


def _give_up_if(is_cancelled: Callable[[], bool]) -> None:
    if is_cancelled():
        raise Cancelled
