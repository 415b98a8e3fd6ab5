"""Stacks of linear layers from a state, for heads that are stated as formulas."""

from collections.abc import Callable, Sequence

from torch import Tensor

State = dict[str, Tensor]


def linear(state: State, layer: str, x: Tensor) -> Tensor:
    """W x + b of one layer."""
    return x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]


def stack(
    state: State, layers: Sequence[str], activation: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """Linear layers with an activation between each two, and none at the end."""
    *inner, last = layers
    for layer in inner:
        x = activation(linear(state, layer, x))
    return linear(state, last, x)
