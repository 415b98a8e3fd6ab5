import dataclasses
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.sessions.codec import UnreadableConversation, decode, encode_picture, encode_rounds
from serving.sessions.conversation import Conversation, Instance, Reference, Round
from tests.serving.sessions.records import a_conversation, plain

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats32 = st.floats(width=32)  # NaN, infinities and -0 included


@st.composite
def conversations(draw):
    height, width, channels = draw(st.tuples(*[st.integers(1, 9)] * 3))
    packed = (height, (width + 7) // 8)
    masks = arrays.arrays(np.uint8, packed)
    rounds, owner = [], []
    for number in range(1, draw(st.integers(0, 3)) + 1):
        kind = draw(st.sampled_from(["mask", "text"]))
        references = [Reference(round=owner[i], instance=i + 1) for i in range(len(owner))]
        if draw(st.booleans()):
            references.append(Reference(round=0, instance=0, mask=draw(masks)))
        count = draw(st.integers(0, 2)) if kind == "mask" else 0

        def instance(at):
            return Instance(
                number=at,
                mask=draw(masks),
                score=draw(st.floats()),
                quality=draw(st.floats()),
                corrected=draw(st.booleans()),
                text_embedding=draw(arrays.arrays(np.float32, 3, elements=floats32)),
            )

        instances = tuple(instance(len(owner) + 1 + index) for index in range(count))
        revisions = tuple(instance(at) for at in range(1, len(owner) + 1) if draw(st.booleans()))
        tokens = len(references) if kind == "mask" else 0
        rounds.append(
            Round(
                number=number,
                turn_id=f"{number}{draw(texts)}",
                prompt=draw(texts),
                kind=kind,
                subquestions=tuple(draw(texts) for _ in instances),
                references=tuple(references),
                reference_tokens=draw(arrays.arrays(np.float32, (tokens, 2, 5), elements=floats32)),
                instances=instances,
                answer=draw(texts),
                resolution=draw(texts),
                beta=draw(st.floats(0, 1)),
                judge=draw(st.sampled_from(["every", "referenced"])),
                revisions=revisions,
            )
        )
        owner += [number] * count
    return Conversation(
        id="c",
        image=draw(arrays.arrays(np.uint8, (height, width, channels))),
        created_s=draw(st.floats(0, 1e10)),
        branched_from=draw(st.none() | st.tuples(texts, st.integers(0, 100))),
        rounds=tuple(rounds),
        revision=draw(st.integers(0, 2**53)),
    )


@given(conversations())
@settings(max_examples=150, deadline=None)
def test_what_is_decoded_is_what_was_encoded(conversation):
    decoded = decode(encode_picture(conversation), encode_rounds(conversation))
    assert plain(decoded) == plain(conversation)
    assert decoded.instances == tuple(decoded.instance(i.number) for i in conversation.instances)
    assert not decoded.image.flags.writeable


def test_a_round_leaves_the_stored_picture_as_it_was():
    assert encode_picture(a_conversation(rounds=3)) == encode_picture(a_conversation(rounds=0))


def test_scalars_of_numpy_are_stored_as_numbers():
    conversation = a_conversation(rounds=1)
    instance = dataclasses.replace(conversation.instance(1), score=np.float32(0.25))
    odd = dataclasses.replace(conversation.rounds[0], instances=(instance,))
    stored = encode_rounds(dataclasses.replace(conversation, rounds=(odd,)))
    assert decode(encode_picture(conversation), stored).instance(1).score == 0.25


PICTURE, ROUNDS = (encode(a_conversation(rounds=2)) for encode in (encode_picture, encode_rounds))


@given(st.integers(0, len(ROUNDS) - 1), st.integers(1, 255))
@example(4, 3)
@settings(max_examples=300)
def test_every_changed_byte_is_noticed(position, flipped):
    damaged = bytearray(ROUNDS)
    damaged[position] ^= flipped
    with pytest.raises(UnreadableConversation):
        decode(PICTURE, bytes(damaged))


@pytest.mark.parametrize("length", [0, 3, 9, 40, len(ROUNDS) - 1])
def test_every_cut_is_noticed(length):
    with pytest.raises(UnreadableConversation):
        decode(PICTURE, ROUNDS[:length])
    with pytest.raises(UnreadableConversation):
        decode(PICTURE[: min(length, len(PICTURE) - 1)], ROUNDS)


def test_an_unknown_version_is_named():
    newer = PICTURE[:4] + b"\x02" + PICTURE[5:]
    with pytest.raises(UnreadableConversation, match=r"version 2, this server reads 1"):
        decode(newer, ROUNDS)


def test_parts_that_do_not_belong_together_are_refused():
    with pytest.raises(UnreadableConversation, match="expected b'smcP'"):
        decode(ROUNDS, PICTURE)
    for other in (a_conversation("other"), a_conversation(created_s=5.0)):
        with pytest.raises(UnreadableConversation, match="start anew"):
            decode(encode_picture(other), ROUNDS)


def resealed(body):
    return b"smcR\x01" + zlib.crc32(body).to_bytes(4, "big") + body


def changed(change):
    """The rounds with a good checksum over content that this program would not have written."""
    content = msgspec.msgpack.decode(zlib.decompress(ROUNDS[9:]))
    change(content)
    return resealed(zlib.compress(msgspec.msgpack.encode(content)))


def test_a_right_checksum_over_wrong_content_is_refused():
    assert decode(PICTURE, changed(lambda content: None)).revision == 2
    first = lambda content: content["rounds"][0]["instances"][0]  # noqa: E731
    for change in (
        lambda content: content.pop("revision"),
        lambda content: content.update(rounds=7),
        lambda content: content["rounds"].pop(0),
        lambda content: content["rounds"][0].update(kind="video"),
        lambda content: first(content)["mask"].__setitem__(0, "|O8"),
        lambda content: first(content)["mask"].__setitem__(1, [1 << 40, 2]),
    ):
        with pytest.raises(UnreadableConversation):
            decode(PICTURE, changed(change))
    with pytest.raises(UnreadableConversation, match="cannot be read"):
        decode(PICTURE, resealed(b"no zlib"))
