"""A conversation about one picture: its rounds, their masks, and what may be done to them.

Plain frozen records and pure functions; a change gives a new `Conversation` and leaves the old one
as it was. Rounds and instances are numbered from 1, as people say them ("the output of round 2");
instances are counted over the whole conversation. What rounds compute is the pipeline's matter,
where conversations are kept is `serving.sessions.store`'s.

An instance that is replaced (by the user's correction, or by the corrector later) is kept as a
revision of the round in which that happened, not written over: so undo and branch give back the
masks as they were at that round. Tokens of earlier rounds are never revised: prompts only grow.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

MAX_ID_BYTES = 128
"""Longest id in UTF-8: Triton's own bound of a string correlation id."""

RECORD_BYTES = 1024
"""What Python's objects of one record take beside arrays and texts, rounded up."""


def check_conversation_id(conversation_id: str) -> None:
    """Refuse an id that Triton would refuse, or that a log or a terminal would not show.

    Raises:
        ValueError: It is empty, longer than `MAX_ID_BYTES`, or not printable.
    """
    if not conversation_id.isprintable():
        raise ValueError(
            f"conversation id {conversation_id!r}: expected printable characters; "
            "a random UUID as text will do"
        )
    size = len(conversation_id.encode())
    if not 1 <= size <= MAX_ID_BYTES:
        raise ValueError(
            f"conversation id: expected 1 to {MAX_ID_BYTES} bytes of UTF-8, got {size}; "
            "a random UUID as text will do"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Instance:
    """One mask of a conversation."""

    number: int
    """From 1, counted over the whole conversation."""
    mask: np.ndarray
    """(H, ceil(W / 8)) uint8 of the picture's H and W, packed by `numpy.packbits(axis=-1)`."""
    score: float
    """The mask decoder's own estimate of the mask's IoU."""
    quality: float
    """The judge's q in [0, 1]; NaN where it was not asked."""
    corrected: bool
    """Whether the mask was decoded from the corrector's embedding."""
    text_embedding: np.ndarray
    """(C,) float32 before correction."""

    def __post_init__(self) -> None:
        _own(self, "mask", np.uint8, 2)
        _own(self, "text_embedding", np.float32, 1)

    @property
    def size_bytes(self) -> int:
        """Bytes this record takes in memory."""
        return RECORD_BYTES + self.mask.nbytes + self.text_embedding.nbytes


@dataclass(frozen=True, eq=False, kw_only=True)
class Reference:
    """A mask that a round refers to: an instance of an earlier round, or one the user drew."""

    round: int
    """Round of the instance; 0 for a drawn mask."""
    instance: int
    """Number of the instance; 0 for a drawn mask."""
    mask: np.ndarray | None = None
    """(H, ceil(W / 8)) uint8, packed: the drawn mask; None for an instance."""

    def __post_init__(self) -> None:
        if (self.round == 0) != (self.instance == 0) or (self.round == 0) == (self.mask is None):
            raise ValueError(
                f"reference to round {self.round}, instance {self.instance}: expected both from 1 "
                "and no mask, or both 0 and the mask that was drawn"
            )
        if self.mask is not None:
            _own(self, "mask", np.uint8, 2)

    @property
    def size_bytes(self) -> int:
        """Bytes this record takes in memory."""
        return RECORD_BYTES + (0 if self.mask is None else self.mask.nbytes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Round:
    """One question and what came of it."""

    number: int
    """From 1."""
    turn_id: str
    """The client's key of the request, "" where it gave none."""
    prompt: str
    """What the user asked."""
    kind: Literal["mask", "text"]
    """Answered with masks, or in words by the base model: then it is not part of the prompt."""
    subquestions: tuple[str, ...]
    """The turns of the prompt, one for each instance."""
    references: tuple[Reference, ...]
    """What the question refers to, in the order of the prompt."""
    reference_tokens: np.ndarray
    """(R, 2, E) float32: CLS token of the crop and box token of each reference, as they stand in
    the prompt; R = 0 in a round of kind "text"."""
    instances: tuple[Instance, ...]
    """The masks as they were answered; none in a round of kind "text"."""
    answer: str
    """Text of the answer."""
    resolution: str
    """How the references were understood, in words; "" where there are none."""
    beta: float
    """Score up to which its embeddings were corrected."""
    judge: str
    """Whose embeddings are judged: "every" round's, or "referenced" ones."""
    revisions: tuple[Instance, ...] = ()
    """Instances that were replaced in this round or after it, before the next."""

    def __post_init__(self) -> None:
        _own(self, "reference_tokens", np.float32, 3)
        masks = len(self.references) if self.kind == "mask" else 0
        if self.reference_tokens.shape[:2] != (masks, 2):
            raise ValueError(
                f"round {self.number}: {len(self.references)} references of a round of kind "
                f"{self.kind!r} have tokens ({masks}, 2, E), got {self.reference_tokens.shape}"
            )
        if len(self.subquestions) != len(self.instances):
            raise ValueError(
                f"round {self.number}: {len(self.subquestions)} subquestions for "
                f"{len(self.instances)} instances, expected one for each"
            )
        if self.kind == "text" and self.instances:
            raise ValueError(f"round {self.number}: a round of kind 'text' has no instances")

    @property
    def size_bytes(self) -> int:
        """Bytes this record takes in memory, with all it holds."""
        texts = (self.turn_id, self.prompt, self.answer, self.resolution, *self.subquestions)
        instances = (*self.instances, *self.revisions)
        return (
            RECORD_BYTES
            + self.reference_tokens.nbytes
            + sum(len(text.encode()) for text in texts)
            + sum(reference.size_bytes for reference in self.references)
            + sum(instance.size_bytes for instance in instances)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Conversation:
    """One picture and the rounds so far."""

    id: str
    """See `check_conversation_id`."""
    image: np.ndarray
    """(H, W, C) uint8, as it came."""
    created_s: float
    """Seconds since 1970; tells two conversations apart that had the same id one after another."""
    branched_from: tuple[str, int] | None = None
    """Id of the conversation this one began as, and the last round taken from it."""
    rounds: tuple[Round, ...] = ()
    """In order."""
    revision: int = 0
    """Grows by 1 with every change."""
    _current: dict[int, tuple[int, Instance]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_conversation_id(self.id)
        _own(self, "image", np.uint8, 3)
        object.__setattr__(self, "_current", _instances_by_number(self))

    @property
    def size_bytes(self) -> int:
        """Bytes this conversation takes in memory, with all it holds."""
        return RECORD_BYTES + self.image.nbytes + sum(each.size_bytes for each in self.rounds)

    @property
    def packed_shape(self) -> tuple[int, int]:
        """Shape of a packed mask of the picture: (H, ceil(W / 8))."""
        height, width = self.image.shape[:2]
        return height, (width + 7) // 8

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances as they are now, in order."""
        return tuple(instance for _, instance in self._current.values())

    def instance(self, number: int) -> Instance:
        """The instance of a number as it is now.

        Raises:
            ValueError: There is none; the text lists those there are.
        """
        return self._found(number)[1]

    def round_of(self, number: int) -> int:
        """Number of the round that gave an instance.

        Raises:
            ValueError: There is no such instance; the text lists those there are.
        """
        return self._found(number)[0]

    def round(self, number: int) -> Round:
        """The round of a number.

        Raises:
            ValueError: There is none; the text lists those there are.
        """
        if not 1 <= number <= len(self.rounds):
            raise ValueError(f"there is no round {number}: {self.listing}")
        return self.rounds[number - 1]

    def turn(self, turn_id: str) -> Round | None:
        """The round that a request with this key made; None if there is none, or for ""."""
        matching = (each for each in self.rounds if turn_id and each.turn_id == turn_id)
        return next(matching, None)

    def mask_of(self, reference: Reference) -> np.ndarray:
        """The mask a reference stands for now: (H, ceil(W / 8)) uint8, packed.

        Raises:
            ValueError: There is no such instance, or it is of another round.
        """
        if reference.mask is not None:
            return reference.mask
        round_number, instance = self._found(reference.instance)
        if round_number != reference.round:
            raise ValueError(
                f"instance {reference.instance} is of round {round_number}, "
                f"not of round {reference.round}: {self.listing}"
            )
        return instance.mask

    @property
    def listing(self) -> str:
        """The rounds there are and their instances, in words."""
        if not self.rounds:
            return "this conversation has no rounds yet"
        described = []
        for each in self.rounds:
            numbers = ", ".join(str(instance.number) for instance in each.instances)
            described.append(f"{each.number} ({f'instance {numbers}' if numbers else 'no mask'})")
        return f"this conversation has the rounds {', '.join(described)}"

    def _found(self, number: int) -> tuple[int, Instance]:
        if number not in self._current:
            raise ValueError(f"there is no instance {number}: {self.listing}")
        return self._current[number]


def append_round(conversation: Conversation, added: Round) -> Conversation:
    """Add a round, with the instances it replaces in `revisions`.

    Raises:
        ValueError: Its number or its instances' numbers do not follow, its key was used before, it
            refers to what is not there, or a mask has not the picture's size.
    """
    repeated = conversation.turn(added.turn_id)
    if repeated is not None:
        raise ValueError(
            f"the turn {added.turn_id!r} was applied before, as round {repeated.number}; "
            "return that round instead"
        )
    for reference in added.references:
        conversation.mask_of(reference)
    return _changed(conversation, (*conversation.rounds, added))


def replace_instance(conversation: Conversation, instance: Instance) -> Conversation:
    """Put an instance in the place of the one of the same number, as of the last round.

    Raises:
        ValueError: There is no such instance, or the mask has not the picture's size.
    """
    conversation.instance(instance.number)
    last = conversation.rounds[-1]
    kept = tuple(each for each in last.revisions if each.number != instance.number)
    revised = replace(last, revisions=(*kept, instance))
    return _changed(conversation, (*conversation.rounds[:-1], revised))


def undo(conversation: Conversation, last_round: int) -> Conversation:
    """Keep rounds 1 to `last_round`; 0 keeps the picture only.

    Raises:
        ValueError: There is no such round.
    """
    return _changed(conversation, _rounds_up_to(conversation, last_round))


def branch(
    source: Conversation, conversation_id: str, last_round: int, *, created_s: float
) -> Conversation:
    """A new conversation that starts as rounds 1 to `last_round` of another; 0: as its picture.

    Raises:
        ValueError: There is no such round, the id is that of the source, or it is none.
    """
    if conversation_id == source.id:
        raise ValueError(f"branch of {source.id!r}: expected a new id, got the same")
    return Conversation(
        id=conversation_id,
        image=source.image,
        created_s=created_s,
        branched_from=(source.id, last_round),
        rounds=_rounds_up_to(source, last_round),
    )


def _changed(conversation: Conversation, rounds: tuple[Round, ...]) -> Conversation:
    return replace(conversation, rounds=rounds, revision=conversation.revision + 1)


def _rounds_up_to(conversation: Conversation, last_round: int) -> tuple[Round, ...]:
    if last_round != 0:
        conversation.round(last_round)
    return conversation.rounds[:last_round]


def _instances_by_number(conversation: Conversation) -> dict[int, tuple[int, Instance]]:
    """Number -> (round, instance as it is now), from rounds that hold together.

    Raises:
        ValueError: They do not.
    """
    found: dict[int, tuple[int, Instance]] = {}
    for expected, each in enumerate(conversation.rounds, start=1):
        if each.number != expected:
            raise ValueError(f"round {each.number}: expected {expected}, the next number")
        for reference in each.references:
            known = found.get(reference.instance)
            if reference.instance and (known is None or known[0] != reference.round):
                raise ValueError(
                    f"round {each.number} refers to instance {reference.instance} of round "
                    f"{reference.round}, which is not there"
                )
        for instance in each.instances:
            if instance.number != len(found) + 1:
                raise ValueError(
                    f"round {each.number}: instance {instance.number}, "
                    f"expected {len(found) + 1}, the next number"
                )
            found[instance.number] = (each.number, instance)
        for instance in each.revisions:
            if instance.number not in found:
                raise ValueError(
                    f"round {each.number} replaces instance {instance.number}, which is not there"
                )
            found[instance.number] = (found[instance.number][0], instance)
        for mask in _masks(each):
            if mask.shape != conversation.packed_shape:
                raise ValueError(
                    f"round {each.number}: a packed mask is {mask.shape}, the picture's are "
                    f"{conversation.packed_shape}"
                )
    return found


def _masks(each: Round) -> Iterator[np.ndarray]:
    yield from (instance.mask for instance in (*each.instances, *each.revisions))
    yield from (reference.mask for reference in each.references if reference.mask is not None)


def _own(record: object, name: str, dtype: type, rank: int) -> None:
    """Check an array of a record, and keep it as memory of the record's own, read-only.

    An array of a request lies in memory that Triton takes back after the request.
    """
    array = getattr(record, name)
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != rank:
        got = f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}"
        raise ValueError(f"{name}: expected {np.dtype(dtype).name} of rank {rank}, got {got}")
    if array.flags.writeable or not array.flags.owndata or not array.flags.c_contiguous:
        array = array.copy(order="C")
        array.setflags(write=False)
        object.__setattr__(record, name, array)
