"""The one way into every pipeline: a question that can be answered, or a refusal."""

import numpy as np

from serving.preprocessing import check_image
from serving.prompts import check_prompt


class CheckedRequest:
    """Picture and question -> the same, once both are in order.

    An ensemble needs exactly one first step. Where several start at once and one fails while
    another is still being started, Triton deadlocks, and its gRPC endpoint with it
    (docs/architecture.md).
    """

    def __call__(self, image: np.ndarray, prompt: str) -> dict[str, np.ndarray | str]:
        """Check a request.

        Args:
            image: (H, W, C) uint8, C = 1 or 3.
            prompt: The question; not blank.

        Returns:
            Both as they came.

        Raises:
            ValueError: if one of them cannot be served.
        """
        check_image(image)
        return {"image": image, "prompt": check_prompt(prompt)}
