"""The base model's last RMSNorm, applied outside the engine.

vLLM hands out the residual stream before it; the systems read hidden states after it.
"""

from __future__ import annotations

import torch


def apply_final_norm(rows: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Normalise rows in float32.

    Args:
        rows: (P, E) residual stream, any float dtype.
        weight: (E,) float32.
        eps: Added to the mean square.

    Returns:
        (P, E) float32.
    """
    rows = rows.float()
    return rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + eps) * weight
