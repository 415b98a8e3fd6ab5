"""MediSee's own small networks: democratic fusion of the candidate tokens, and the box decoder."""

import torch
from torch import Tensor, nn

from training.networks.profiles import Profile


class Router(nn.Module):
    """Weighs the two candidate tokens for one decoder (paper, Eq. 2).

    The weights are sigmoids divided by their sum, and the gate reads [h_box ; h_seg] in this
    order, as in the released code.
    """

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(2 * width, hidden_size), nn.GELU(), nn.Linear(hidden_size, 2)
        )

    def forward(self, h_box: Tensor, h_seg: Tensor) -> Tensor:
        """Fuse two candidates (..., E) into one (..., E)."""
        weights = torch.sigmoid(self.gate(torch.cat([h_box, h_seg], dim=-1)))
        weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights[..., :1] * h_box + weights[..., 1:] * h_seg


class DemocraticFusion(nn.Module):
    """Both routers and the text projection: from hidden states to what the decoders read."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        width = profile.mistral.hidden_size
        self.router_seg = Router(width, profile.router_hidden_size)
        self.router_box = Router(width, profile.router_hidden_size)
        self.text_projection = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, profile.sam_decoder.hidden_size)
        )

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse the two candidate tokens.

        Args:
            hidden_states: (..., 2, E): h_seg, then h_box, after the final norm.

        Returns:
            text_embedding (..., 1, C) for the mask decoder, box_hidden_state (..., E) for the
            box decoder.
        """
        h_seg, h_box = hidden_states[..., 0, :], hidden_states[..., 1, :]
        text = self.text_projection(self.router_seg(h_box, h_seg))
        return text[..., None, :], self.router_box(h_box, h_seg)


class BoxDecoder(nn.Module):
    """Three-layer MLP from the fused hidden state to a box."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        width, inner = profile.mistral.hidden_size, profile.box_hidden_size
        last = nn.Linear(inner, 4)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, inner), nn.ReLU(), last
        )

    def forward(self, box_hidden_state: Tensor) -> Tensor:
        """(..., E) -> boxes_cxcywh (..., 4) in [0, 1], relative to the original image."""
        return torch.sigmoid(self.layers(box_hidden_state))
