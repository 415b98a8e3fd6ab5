"""A pipeline in this process, a client of it, and the released loop as its oracle."""

from dataclasses import dataclass, field

import numpy as np

from serving.llava_prompt import LlavaTokenizer
from serving.mediround.pipeline import MediRound
from serving.mediround_prompt import MEDIROUND_ADDED_TOKENS, Turn, conversation_prompt
from serving.reference_region import reference_region
from serving.sequence_control import SequenceControl
from serving.sessions.memory_store import MemoryStore
from tests.serving.mediround.small_models import MODELS, WEIGHTS, InPlace

SETTINGS = {
    "sequence_idle_s": 600.0,
    "max_conversations": 64,
    "max_positions": 2046,
    "cache_mib": 16,
    "session_store": "memory",
    "session_ttl_s": 60.0,
    "session_capacity_mib": 64,
    "session_largest_mib": 64,
}


def picture(seed=0, height=24, width=21):
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3)).astype(np.uint8)


def store():
    return MemoryStore(ttl_s=60, capacity_bytes=1 << 26)


def server(shared=None, **settings):
    """A pipeline over the small models; `shared` is the store it has in common with others."""
    call = InPlace()
    pipeline = MediRound(call=call, **(SETTINGS | settings))
    if shared is not None:
        pipeline._store = shared
    pipeline.small = call
    return pipeline


def never():
    return False


def send(pipeline, name="c", start=False, end=False, is_cancelled=never, **given):
    """One request, its plain values made tensors as a client would."""
    for key in ("reference_rounds", "reference_instances", "mask_instance", "round"):
        if key in given:
            given[key] = np.array(given[key], np.int32).reshape(-1)
    if "beta" in given:
        given["beta"] = np.array([given["beta"]], np.float32)
    if "resume" in given:
        given["resume"] = np.array([given["resume"]])
    if "mask" in given and given["mask"].ndim == 2:
        given["mask"] = np.packbits(given["mask"], axis=-1)[None]
    return pipeline(SequenceControl(name, start, end), is_cancelled, **given)


@dataclass
class Asked:
    """One round of the oracle: its turns, all with the same references."""

    texts: tuple
    references: list = field(default_factory=list)
    """Numbers of instances, or (H, W) bool masks."""


def released_loop(image, rounds, beta=0.6, judge="every"):
    """Masks of a conversation by the paper's loop: every round a full pass over all, nothing kept.

    Returns:
        For each round: (masks as answered (N, H, W), qualities, corrected), and the masks of all
        instances as they stand at the end.
    """
    models = {name: model() for name, model in MODELS.items()}
    seen = models["medsam_image_embedding"](image)
    tokenizer = LlavaTokenizer(WEIGHTS / "tokenizer.model", MEDIROUND_ADDED_TOKENS)
    standing, raw, waiting, rows_of, out = {}, {}, set(), [], []

    def decode(embedding):
        packed = models["mediround_mask_decoder"](text_embedding=embedding[None, None], **seen)
        return np.unpackbits(packed["masks"][0], axis=-1, count=image.shape[1]).astype(bool)

    def judged(embedding):
        found = models["mediround_jcm"](embedding[None, None])
        return found["quality"][0], found["corrected_embedding"][0, 0]

    for number, asked in enumerate(rounds):
        rows = []
        for reference in asked.references:
            if isinstance(reference, int) and judge == "referenced" and reference in waiting:
                waiting.discard(reference)
                quality, correction = judged(raw[reference])
                if quality <= np.float32(beta):
                    standing[reference] = decode(correction)
            mask = standing[reference] if isinstance(reference, int) else reference
            crop, box = reference_region(image, mask)
            rows.append(models["llava_image_tokens"](crop)["cls_token"])
            rows.append(models["mediround_box_encoder"](box[None])["box_token"])
        rows_of.append(rows)
        turns = [Turn(t, len(a.references)) for a in rounds[: number + 1] for t in a.texts]
        ids, positions = conversation_prompt(tokenizer, turns)
        segments = [models["llava_image_tokens"](image)["patch_tokens"]]
        for earlier, its_rows in zip(rounds, rows_of, strict=False):
            segments += its_rows * len(earlier.texts)
        hidden = models["mllm"](
            token_ids=np.array(ids, np.int32),
            embeddings=np.concatenate(segments),
            embedding_lengths=np.array([len(s) for s in segments]),
            hidden_positions=np.array(positions[-len(asked.texts) :]),
        )["hidden_states"]
        answered = []
        for embedding in models["mediround_text_projection"](hidden)["text_embedding"][0]:
            instance = len(standing) + 1
            raw[instance], corrected, quality = embedding, False, np.nan
            if judge == "every":
                quality, correction = judged(embedding)
                corrected = bool(quality <= np.float32(beta))
            else:
                waiting.add(instance)
            standing[instance] = decode(correction if corrected else embedding)
            answered.append((standing[instance], quality, corrected))
        out.append(tuple(map(np.array, zip(*answered, strict=True))))
    return out, standing


def masks_of(answer, image):
    return np.unpackbits(answer["masks"], axis=-1, count=image.shape[1]).astype(bool)
