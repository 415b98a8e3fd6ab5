"""MediRound: a conversation about one picture, whose rounds refer to each other's masks.

Algorithm 1 of the paper, one round at a time: what earlier rounds gave comes from the session
store, which alone is the truth, and a round is stored whole or not at all. `docs/mediround.md` has
the protocol and the rules of sequences and resuming.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from serving.errors import Cancelled
from serving.mediround import answers
from serving.mediround.answers import Answer
from serving.mediround.asked import DEFAULT_BETA, Asked, numbers, one
from serving.mediround.components import Call, Components
from serving.mediround.live import LiveConversation, LiveConversations
from serving.mediround.rounds import RoundComputer, corrected_by_user
from serving.sequence_control import SequenceControl
from serving.sessions.conversation import (
    Conversation,
    append_round,
    branch,
    check_conversation_id,
    replace_instance,
    undo,
)
from serving.sessions.open_store import open_store
from serving.sessions.store import ConversationNotFound, DuplicateConversation


@dataclass(frozen=True)
class _Request:
    """One request in its turn."""

    name: str
    """Id of its conversation."""
    start: bool
    """It starts a sequence."""
    asked: Asked
    live: LiveConversation
    is_cancelled: Callable[[], bool]

    @property
    def opens(self) -> bool:
        """Whether the conversation is to begin with it."""
        return self.start and not self.asked.resume


class MediRound:
    """One request of a conversation -> its masks, or what else it asked for.

    Args:
        call: Runs another served model.
        sequence_idle_s: Seconds after which Triton gives up a sequence that nobody continues.
        max_conversations: Conversations that may be open at once.
        max_positions: Prompt positions and generated tokens that the engine takes.
        cache_mib: Bound of what is kept of encoded pictures.
        session_store: See `serving.sessions.open_store`; the environment comes before it.
        session_ttl_s: Seconds a stored conversation is kept after its last use.
        session_capacity_mib: Bound of all conversations stored in memory.
        session_largest_mib: Bound of one conversation stored in Redis.
    """

    def __init__(
        self,
        call: Call,
        sequence_idle_s: float,
        max_conversations: int,
        max_positions: int,
        cache_mib: int,
        session_store: str,
        session_ttl_s: float,
        session_capacity_mib: int,
        session_largest_mib: int,
    ) -> None:
        self._components = Components(call, cache_mib)
        self._rounds = RoundComputer(self._components, max_positions)
        self._live = LiveConversations(max_conversations, sequence_idle_s)
        self._store = open_store(
            session_store,
            ttl_s=session_ttl_s,
            capacity_bytes=session_capacity_mib << 20,
            max_conversation_bytes=session_largest_mib << 20,
        )
        self._actions: dict[str, Callable[[_Request], Answer]] = {
            "ask": self._ask,
            "undo": self._undo,
            "branch": self._branch,
            "recall": self._recall,
            "erase": self._erase,
        }

    def __call__(
        self,
        sequence: SequenceControl,
        is_cancelled: Callable[[], bool],
        action: str = "ask",
        image: np.ndarray | None = None,
        prompt: str | None = None,
        reference_rounds: np.ndarray | None = None,
        reference_instances: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        mask_instance: np.ndarray | None = None,
        round: np.ndarray | None = None,
        source: str | None = None,
        turn_id: str = "",
        resume: np.ndarray | None = None,
        kind: str = "auto",
        beta: np.ndarray | None = None,
        judge: str = "every",
    ) -> dict[str, np.ndarray | str]:
        """Do what one request asks for; the tensors are those of docs/mediround.md.

        Args:
            sequence: The conversation's id, and whether the sequence starts or ends here.
            is_cancelled: Whether the client has given up.
            action: "ask", "undo", "branch", "recall" or "erase".
            image: (H, W, C) uint8, C = 1 or 3; needed where a conversation starts.
            prompt: The question.
            reference_rounds: (R,) int32, rounds the question refers to.
            reference_instances: (R,) int32, masks it refers to.
            mask: (1, H, ceil(W / 8)) uint8, drawn by the user.
            mask_instance: (1,) int32, the instance that `mask` corrects.
            round: (1,) int32, the last round to keep.
            source: Id of the conversation to branch from.
            turn_id: Key of this request; with the key of a stored round, that round is returned.
            resume: (1,) bool, whether a starting sequence continues a stored conversation.
            kind: "auto", "mask" or "text".
            beta: (1,) float32 in [0, 1].
            judge: "every" (Algorithm 1) or "referenced" (the released code).

        Returns:
            The outputs of docs/mediround.md.

        Raises:
            ValueError: if the request cannot be served as it is.
            LookupError: if the conversation is not stored.
            Unavailable: if the store is down, or too many conversations are open.
            Cancelled: if the client gave up; nothing is stored then.
        """
        name = sequence.correlation_id
        check_conversation_id(name)
        with self._live.turn(name, is_cancelled, last=sequence.end) as live:
            flag, beta_value = one(resume, "resume"), one(beta, "beta")
            last_round, corrected = one(round, "round"), one(mask_instance, "mask_instance")
            asked = Asked(
                action=action,
                image=image,
                prompt=prompt,
                reference_rounds=numbers(reference_rounds),
                reference_instances=numbers(reference_instances),
                mask=None if mask is None else mask[0],
                mask_instance=None if corrected is None else int(corrected),
                round=None if last_round is None else int(last_round),
                source=source,
                turn_id=turn_id,
                resume=bool(flag),
                kind=kind,
                beta=DEFAULT_BETA if beta_value is None else float(beta_value),
                judge=judge,
            )
            request = _Request(name, sequence.start, asked, live, is_cancelled)
            return self._actions[action](request).outputs()

    def _ask(self, request: _Request) -> Answer:
        remembered = None if request.start else request.live.stored
        try:
            return self._answered(request)
        except ValueError:
            # Another server may have gone on: what a question refers to can be there by now.
            if remembered is None:
                raise
            if self._continued(request, anew=True).revision == remembered.revision:
                raise
            return self._answered(request)

    def _answered(self, request: _Request) -> Answer:
        asked = request.asked
        conversation = self._conversation(request)
        repeated = conversation.turn(asked.turn_id)
        if repeated is not None:
            request.live.stored = conversation
            return answers.of_round(conversation, repeated)
        if asked.prompt is None:
            assert asked.mask is not None
            assert asked.mask_instance is not None
            corrected = corrected_by_user(conversation, asked.mask_instance, asked.mask)
            conversation = self._saved(
                request, conversation, replace_instance(conversation, corrected)
            )
            return answers.of_correction(conversation, asked.mask_instance)
        computed = self._rounds.compute(conversation, asked, request.is_cancelled)
        conversation = self._saved(
            request, conversation, append_round(conversation, computed.round)
        )
        return answers.of_round(
            conversation, computed.round, computed.cached_tokens, computed.computed_tokens
        )

    def _undo(self, request: _Request) -> Answer:
        conversation = self._continued(request, anew=True)
        last_round = request.asked.round
        assert last_round is not None
        # Asked again after its answer was lost, it finds its work done.
        if last_round != len(conversation.rounds):
            conversation = self._saved(request, conversation, undo(conversation, last_round))
        return answers.of_conversation(conversation)

    def _branch(self, request: _Request) -> Answer:
        source, last_round = request.asked.source, request.asked.round
        assert source is not None
        assert last_round is not None
        if not request.start:
            raise ValueError(
                "action 'branch': expected the start of a sequence with a new conversation id, "
                f"got a request of conversation {request.name!r}"
            )
        stored = self._store.load(request.name) if request.asked.resume else self._found(request)
        if stored is None:
            begun = branch(
                self._store.load(source), request.name, last_round, created_s=time.time()
            )
            self._create(request, begun)
            return answers.of_conversation(begun)
        if stored.branched_from != (source, last_round):
            raise DuplicateConversation(request.name)
        request.live.stored = stored
        return answers.of_conversation(stored)

    def _recall(self, request: _Request) -> Answer:
        return answers.of_conversation(self._continued(request, anew=True))

    def _erase(self, request: _Request) -> Answer:
        request.live.stored = None
        self._store.erase(request.name)
        return Answer(text="Erased.")

    def _conversation(self, request: _Request) -> Conversation:
        """The conversation a question belongs to, which begins with it perhaps."""
        image = request.asked.image
        if not request.opens:
            conversation = self._continued(request)
        else:
            stored = self._found(request)
            if stored is not None:
                # Asked again after its answer was lost, it finds its work done.
                if stored.turn(request.asked.turn_id) is None:
                    raise DuplicateConversation(request.name)
                return stored
            if image is None:
                raise ValueError(
                    "image: missing; a conversation starts with a picture (H, W, C) uint8. To go "
                    "on with one that is stored, send resume with the start"
                )
            return Conversation(id=request.name, image=image, created_s=time.time())
        if image is not None and not np.array_equal(image, conversation.image):
            raise ValueError(
                f"image: conversation {request.name!r} is about another picture; leave the image "
                "out, or start a new conversation with it"
            )
        return conversation

    def _continued(self, request: _Request, *, anew: bool = False) -> Conversation:
        """The stored conversation, as this server last saw it where it did.

        Args:
            request: What came.
            anew: Ask the store, which may know of a change that another server made.

        Raises:
            ValueError: if the request says that a new one starts.
            ConversationNotFound: if it is not stored.
        """
        if request.opens:
            raise ValueError(
                f"action {request.asked.action!r} at the start of a sequence: expected resume to "
                "go on with a stored conversation; a new one starts with 'ask' or 'branch'"
            )
        if anew or request.start or request.live.stored is None:
            request.live.stored = self._store.load(request.name)
        return request.live.stored

    def _found(self, request: _Request) -> Conversation | None:
        try:
            return self._store.load(request.name)
        except ConversationNotFound:
            return None

    def _saved(self, request: _Request, before: Conversation, after: Conversation) -> Conversation:
        """Store a change; the last moment at which a client's giving up still undoes it."""
        if request.is_cancelled():
            raise Cancelled
        if request.opens:
            self._create(request, after)
        else:
            self._store.save(after, before.revision)
            request.live.stored = after
        return after

    def _create(self, request: _Request, begun: Conversation) -> None:
        self._store.create(begun)
        request.live.stored = begun

    def close(self) -> None:
        """Give back threads and the store's connections."""
        self._components.close()
        self._store.close()
