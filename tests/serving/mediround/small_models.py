"""The models that `mediround` calls, made of a few lines of NumPy each; E = 6, C = 2, T = 3.

Served by Triton in some tests and called in place in others. They keep what the pipeline relies on:
the language model is causal and remembers prefixes, the decoder depends on picture and embedding.
"""

import threading
import time
import zlib
from functools import partial

import numpy as np

from serving.model_config import ROOT
from serving.prompts import ExplanationPrompt, MediroundPrompt

WIDTH, CHANNELS, PATCHES = 6, 2, 3


def _mixed(*numbers):
    """Numbers in [-1, 1] that follow from numbers."""
    return np.sin(np.float32(12.9898) * np.asarray(numbers, np.float32)).astype(np.float32)


class MedsamImageEmbedding:
    def __init__(self):
        self.calls = 0

    def __call__(self, image: np.ndarray):
        self.calls += 1
        height, width = image.shape[:2]
        mean = image.mean(axis=(0, 1), dtype=np.float64)[:CHANNELS] / 255
        return {
            "image_embedding": np.float32(mean).reshape(1, CHANNELS, 1, 1),
            "input_size": np.array([[8, 8]], np.int64),
            "original_size": np.array([[height, width]], np.int64),
        }


class LlavaImageTokens:
    def __init__(self):
        self.calls = 0

    def __call__(self, image: np.ndarray):
        self.calls += 1
        seed = zlib.crc32(image.tobytes()) % 1000 / 1000
        rows = _mixed(*(seed + k / 7 for k in range((PATCHES + 1) * WIDTH)))
        rows = rows.reshape(PATCHES + 1, WIDTH)
        return {"patch_tokens": rows[1:], "cls_token": rows[:1]}


class Mllm:
    """h(t) = tanh(h(t - 1) / 2 + row(t)) along the prompt."""

    def __init__(self, wait_s: float = 0.0):
        self.seen = set()
        self.lock = threading.Lock()
        self.wait_s = wait_s

    def __call__(
        self,
        token_ids: np.ndarray,
        embeddings: np.ndarray | None = None,
        embedding_lengths: np.ndarray | None = None,
        hidden_positions: np.ndarray | None = None,
        adapter: str = "",
        max_tokens: np.ndarray | None = None,
        temperature: np.ndarray | None = None,
    ):
        time.sleep(self.wait_s)
        lengths = [len(embeddings)] if embedding_lengths is None else embedding_lengths
        segments = iter(np.split(embeddings, np.cumsum(lengths)[:-1]))
        rows = np.concatenate(
            [
                next(segments) if token < 0 else _mixed(*(token + k for k in range(WIDTH)))[None]
                for token in token_ids
            ]
        )
        assert next(segments, None) is None
        states, state, cached, digest = [], np.zeros(WIDTH, np.float32), 0, 0
        for place, row in enumerate(rows, start=1):
            state = np.tanh(state / 2 + row)
            states.append(state)
            digest = hash((digest, row.tobytes(), adapter))
            with self.lock:
                cached = place if digest in self.seen and cached == place - 1 else cached
                self.seen.add(digest)
        wanted = [] if hidden_positions is None else hidden_positions
        said = b"" if max_tokens is None else f" {len(rows)} positions, no adapter".encode()
        return {
            "hidden_states": np.array([states[k] for k in wanted], np.float32).reshape(
                1, len(wanted), WIDTH
            ),
            "text": np.array([said], object),
            "cached_tokens": np.array([min(cached, len(rows) - 1)], np.int32),
            "computed_tokens": np.array([len(rows) - min(cached, len(rows) - 1)], np.int32),
        }


class TextProjection:
    def __call__(self, hidden_states: np.ndarray):
        return {"text_embedding": np.ascontiguousarray(hidden_states[..., :CHANNELS])}


class BoxEncoder:
    def __call__(self, boxes_xyxy: np.ndarray):
        return {"box_token": np.pad(boxes_xyxy, ((0, 0), (0, WIDTH - 4)))}


class Jcm:
    def __call__(self, text_embedding: np.ndarray):
        quality = np.float32(0.5) + text_embedding[:, 0, 0] / 2
        return {"quality": quality, "corrected_embedding": np.float32(-0.5) * text_embedding}


class MaskDecoder:
    """A rectangle, whose corner and size follow from the embeddings."""

    def __call__(
        self,
        image_embedding: np.ndarray,
        text_embedding: np.ndarray,
        input_size: np.ndarray,
        original_size: np.ndarray,
    ):
        height, width = map(int, original_size[0])
        masks = np.zeros((len(text_embedding), height, width), np.bool_)
        for mask, embedding in zip(masks, text_embedding[:, 0], strict=True):
            a, b = (np.float64(embedding) + np.float64(image_embedding.reshape(-1)) + 2) / 4
            top, left = int(a * height * 0.6), int(b * width * 0.6)
            mask[top : top + 1 + int(b * height * 0.4), left : left + 1 + int(a * width * 0.4)] = 1
        return {
            "masks": np.packbits(masks, axis=-1),
            "scores": np.abs(text_embedding[:, 0, 1]),
        }


MODELS = {
    "medsam_image_embedding": MedsamImageEmbedding,
    "llava_image_tokens": LlavaImageTokens,
    "mllm": Mllm,
    "mediround_text_projection": TextProjection,
    "mediround_box_encoder": BoxEncoder,
    "mediround_jcm": Jcm,
    "mediround_mask_decoder": MaskDecoder,
}


WEIGHTS = ROOT / "training" / "weights" / "demo"
"""Folder of the tokenizer, the one thing that is not small."""

TOKEN_LIMIT = 16

PROMPTS = {
    "mediround_prompt": MediroundPrompt,
    "explanation_prompt": partial(ExplanationPrompt, token_limit=TOKEN_LIMIT),
}
"""The models that write prompts; these are the served ones."""


class InPlace:
    """`PythonModel.call` without a server: calls the models above, and counts the calls."""

    def __init__(self):
        self.models = {name: model() for name, model in MODELS.items()}
        self.models |= {name: prompt(WEIGHTS) for name, prompt in PROMPTS.items()}
        self.counts = dict.fromkeys(self.models, 0)
        self.fail = {}

    def __call__(self, name, inputs, outputs):
        self.counts[name] += 1
        if name in self.fail:
            raise self.fail[name]
        found = self.models[name](**inputs)
        return {output: found[output] for output in outputs}
