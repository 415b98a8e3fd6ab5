"""What the two image encoders see in a picture when Organ-Seg asks: frames of its own.

The encoders are those of `serving.image_features`. Results are kept apart from MediSee's: the same
picture in another frame is another picture.
"""

import numpy as np

from serving.content_cache import Arrays, digest
from serving.image_features import LlavaImageTokens, MedsamImageEmbedding
from serving.preprocessing import check_image, medsam_frame, square_clip_frame


class OrgansegImageEmbedding(MedsamImageEmbedding):
    """Picture -> MedSAM's image embedding, in MedSAM's own frame."""

    def __call__(self, image: np.ndarray) -> Arrays:
        """Embed a picture.

        Args:
            image: (H, W, C) uint8, C = 1 or 3.

        Returns:
            image_embedding (1, C, h, w) float32 and original_size (1, 2) int64. The picture fills
            the frame, so there is no size inside it to tell.

        Raises:
            ValueError: if the picture is of another shape or type.
        """
        rgb = check_image(image)

        def compute() -> Arrays:
            encoded = self._call(
                "medsam_image_encoder",
                {"pixels": medsam_frame(rgb, self._size)[None]},
                ["image_embedding"],
            )
            return {
                "image_embedding": encoded["image_embedding"],
                "original_size": np.array([rgb.shape[:2]], np.int64),
            }

        return self._cache.get(digest(image), compute)


class OrgansegImageTokens(LlavaImageTokens):
    """Picture -> CLIP's patch tokens of the whole picture, padded to a square.

    The tokens (T, E) alone; Organ-Seg has no use for the CLS token.
    """

    def __call__(self, image: np.ndarray) -> Arrays:
        """Encode a picture.

        Args:
            image: (H, W, C) uint8, C = 1 or 3.

        Returns:
            patch_tokens (T, E) float32.

        Raises:
            ValueError: if the picture is of another shape or type.
        """
        rgb = check_image(image)

        def compute() -> Arrays:
            encoded = self._call(
                "llava_image_encoder",
                {"pixels": square_clip_frame(rgb, self._size)[None]},
                ["patch_tokens"],
            )
            return {"patch_tokens": encoded["patch_tokens"][0]}

        return self._cache.get(digest(image), compute)
