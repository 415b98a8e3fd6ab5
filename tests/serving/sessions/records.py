"""Conversations to test with, and a form of them that `==` compares to the last bit."""

import dataclasses

import numpy as np

from serving.sessions.conversation import Conversation, Instance, Reference, Round, append_round

HEIGHT, WIDTH, C, E = 6, 11, 4, 8
PACKED = (HEIGHT, 2)


def random_mask(rng):
    return np.packbits(rng.random((HEIGHT, WIDTH)) > 0.5, axis=-1)


def an_instance(rng, number, **fields):
    values = {
        "number": number,
        "mask": random_mask(rng),
        "score": float(rng.random()),
        "quality": float(rng.random()),
        "corrected": bool(rng.integers(2)),
        "text_embedding": rng.standard_normal(C).astype(np.float32),
    }
    return Instance(**(values | fields))


def a_round(rng, number, instances=(), references=(), **fields):
    kind = fields.get("kind", "mask")
    values = {
        "number": number,
        "turn_id": f"turn-{rng.integers(1 << 60)}",
        "prompt": "where is its lesion?",
        "kind": kind,
        "subquestions": tuple(f"object {each.number}" for each in instances),
        "references": tuple(references),
        "reference_tokens": rng.standard_normal(
            (len(references) if kind == "mask" else 0, 2, E)
        ).astype(np.float32),
        "instances": tuple(instances),
        "answer": "größer [SEG].",
        "resolution": "“its” → round 1",
        "beta": 0.25,
        "judge": "referenced",
    }
    return Round(**(values | fields))


def a_conversation(conversation_id="c-1", *, seed=0, rounds=0, created_s=1e9, image=None):
    rng = np.random.default_rng(seed)
    if image is None:
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    conversation = Conversation(id=conversation_id, image=image, created_s=created_s)
    for number in range(1, rounds + 1):
        references = [Reference(round=number - 1, instance=number - 1)] if number > 1 else []
        conversation = append_round(
            conversation, a_round(rng, number, [an_instance(rng, number)], references)
        )
    return conversation


def plain(value):
    """Nested tuples of numbers, texts and bytes; NaN equals NaN."""
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return tuple((name, plain(getattr(value, name))) for name in fields)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple | list):
        return tuple(plain(each) for each in value)
    return repr(value) if isinstance(value, float) else value
