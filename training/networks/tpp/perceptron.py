"""Stacks of linear layers: the heads' perceptron and the transformers' feed-forward block."""

from torch import Tensor, nn


class Perceptron(nn.Sequential):
    """Linear layers with ReLU between them.

    Args:
        inputs: Width of the input.
        hidden: Width of the two layers inside.
        outputs: Width of the output.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs),
        )


class FeedForward(nn.Module):
    """Two linear layers, residual and layer norm: tokens (..., C) -> (..., C)."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.norm(tokens + self.layers(tokens))
