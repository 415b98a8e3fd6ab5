"""What the two image encoders see in a picture, computed once per picture.

Each class brings a picture into its encoder's frame, calls the encoder's model, and keeps the
result by the picture's content, so that a second question about the picture costs neither.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from serving.content_cache import Arrays, ContentCache, digest
from serving.preprocessing import check_image, clip_frame, sam_frame

Call = Callable[[str, dict[str, np.ndarray], list[str]], Arrays]


class MedsamImageEmbedding:
    """Picture -> MedSAM's image embedding.

    Args:
        version_folder: Holds `preprocessing.json` with the encoder's `image_size`.
        call: Runs another served model.
        cache_mib: Bound of the cache; a full-size embedding takes 4 MiB.
    """

    def __init__(self, version_folder: Path, call: Call, cache_mib: int) -> None:
        self._size = read_image_size(version_folder)
        self._call = call
        self._cache = ContentCache(cache_mib << 20)

    def __call__(self, image: np.ndarray) -> Arrays:
        """Embed a picture.

        Args:
            image: (H, W, C) uint8, C = 1 or 3.

        Returns:
            image_embedding (1, C, h, w) float32; input_size and original_size (1, 2) int64.

        Raises:
            ValueError: if the picture is of another shape or type.
        """
        rgb = check_image(image)

        def compute() -> Arrays:
            pixels, input_size = sam_frame(rgb, self._size)
            encoded = self._call(
                "medsam_image_encoder", {"pixels": pixels[None]}, ["image_embedding"]
            )
            return {
                "image_embedding": encoded["image_embedding"],
                "input_size": np.array([input_size], np.int64),
                "original_size": np.array([rgb.shape[:2]], np.int64),
            }

        return self._cache.get(digest(image), compute)


class LlavaImageTokens:
    """Picture -> CLIP's patch tokens and CLS token in the language model's space.

    Args:
        version_folder: Holds `preprocessing.json` with the encoder's `image_size`.
        call: Runs another served model.
        cache_mib: Bound of the cache; full-size tokens take 9 MiB.
    """

    def __init__(self, version_folder: Path, call: Call, cache_mib: int) -> None:
        self._size = read_image_size(version_folder)
        self._call = call
        self._cache = ContentCache(cache_mib << 20)

    def __call__(self, image: np.ndarray) -> Arrays:
        """Encode a picture.

        Args:
            image: (H, W, C) uint8, C = 1 or 3.

        Returns:
            patch_tokens (T, E) and cls_token (1, E) float32.

        Raises:
            ValueError: if the picture is of another shape or type.
        """
        rgb = check_image(image)

        def compute() -> Arrays:
            encoded = self._call(
                "llava_image_encoder",
                {"pixels": clip_frame(rgb, self._size)[None]},
                ["patch_tokens", "cls_token"],
            )
            return {name: tokens[0] for name, tokens in encoded.items()}

        return self._cache.get(digest(image), compute)


def read_image_size(version_folder: Path) -> int:
    """Side of the encoder's frame, written beside the model by the export."""
    return int(json.loads((version_folder / "preprocessing.json").read_text())["image_size"])
