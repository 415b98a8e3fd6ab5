"""CoTexNet as it is served: the trunk once for all tasks, and a small head per task.

Built over a trained network's weights, and the same mathematics with less of it: no text, the last
layer for the class token alone, and a head without transposed convolutions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.clipseg.modeling_clipseg import CLIPSegEncoderLayer

from training.networks.cotexnet.head import CoTexNetHead
from training.networks.cotexnet.image_encoder import CoTexNetImageEncoder
from training.networks.cotexnet.maps import InverseZScore


class ImageEncoderGraph(nn.Module):
    """The component `cotexnet_image_encoder`.

    Args:
        encoder: With its weights; they are shared, not copied.
    """

    def __init__(self, encoder: CoTexNetImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Same as the encoder's: features (B, 3, T, E) and class_token (B, E)."""
        hidden, taps = self.encoder.embed(pixels), []
        *layers, last = self.encoder.layers
        assert isinstance(last, CLIPSegEncoderLayer)
        for number, layer in enumerate(layers):
            hidden = layer(hidden, None)
            if number in self.encoder.taps:
                taps.append(hidden)
        return torch.stack(taps, dim=1), class_token_after(last, hidden)


def class_token_after(layer: CLIPSegEncoderLayer, hidden: Tensor) -> Tensor:
    """First row of a layer's output, without computing the others: (B, T, E) -> (B, E)."""
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)

    def heads(rows: Tensor) -> Tensor:
        return rows.unflatten(2, (attention.num_heads, attention.head_dim)).transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        heads(attention.q_proj(normed[:, :1])),
        heads(attention.k_proj(normed)),
        heads(attention.v_proj(normed)),
    )
    row = hidden[:, :1] + attention.out_proj(attended.transpose(1, 2).flatten(2))
    return (row + layer.mlp(layer.layer_norm2(row)))[:, 0]


class HeadGraph(nn.Module):
    """The component `cotexnet_head_<task>`.

    The inverse z-score is folded into the two modulations, which become one linear layer.

    Args:
        head: With its weights; those that are folded or rearranged are copied.
    """

    def __init__(self, head: CoTexNetHead) -> None:
        super().__init__()
        decoder = head.decoder
        self.class_token_map, self.decoder = head.class_token_map, decoder
        self.modulation = folded_modulation(
            head.inverse_z_score, decoder.film_mul, decoder.film_add
        )
        self.expansion = PatchExpansion(decoder.expansion)
        self.output = PatchExpansion(decoder.output)

    def forward(self, features: Tensor, class_token: Tensor) -> Tensor:
        """Same as the head's: logits (B, K, S, S); > 0, or the largest plane, is foreground."""
        modulation = self.modulation(self.class_token_map(class_token))
        factor, term = modulation.chunk(2, dim=1)
        hidden = self.decoder.decode_tokens(features, factor, term)
        grid = self.decoder.grid
        maps = hidden[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
        rows = self.decoder.convolution(maps).relu().permute(0, 2, 3, 1)
        # (B, h, w, k, k, C), then (B, h, w, k, k, s, s, K): pixels of one patch side by side.
        pixels = self.output(self.expansion(rows).relu())
        return pixels.permute(0, 7, 1, 3, 5, 2, 4, 6).flatten(2, 4).flatten(3, 5)


def folded_modulation(z_score: InverseZScore, factor: nn.Linear, term: nn.Linear) -> nn.Linear:
    """One linear layer for both modulations of `z_score(x)`, the factor's rows first.

    W (s x + m) + b = (s W) x + (b + m W 1).
    """
    weight = torch.cat([factor.weight, term.weight]).detach()
    bias = torch.cat([factor.bias, term.bias]).detach()
    scale, shift = z_score.scale.detach(), z_score.shift.detach()
    folded = nn.Linear(weight.shape[1], weight.shape[0])
    folded.weight.data = weight * scale
    folded.bias.data = bias + shift * weight.sum(dim=1)
    return folded


class PatchExpansion(nn.Module):
    """A transposed convolution whose stride is its kernel's size, as one matrix product.

    Args:
        convolution: (C, K, s, s) with stride s.
    """

    def __init__(self, convolution: nn.ConvTranspose2d) -> None:
        super().__init__()
        weight, bias = convolution.weight.detach(), convolution.bias
        assert convolution.stride == convolution.kernel_size
        assert bias is not None
        channels, planes, self.side, _ = weight.shape
        self.linear = nn.Linear(channels, weight[0].numel())
        self.linear.weight.data = weight.permute(2, 3, 1, 0).reshape(-1, channels)
        self.linear.bias.data = bias.detach().repeat(self.side**2)
        self.planes = planes

    def forward(self, rows: Tensor) -> Tensor:
        """(..., C) -> (..., s, s, K): the s x s pixels that each row becomes."""
        return self.linear(rows).unflatten(-1, (self.side, self.side, self.planes))
