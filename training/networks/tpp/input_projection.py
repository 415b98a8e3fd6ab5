"""The four levels of the deformable transformer, made from the backbone's last three stages."""

from collections.abc import Sequence

from torch import Tensor, nn

from training.networks.tpp.profile import LEVELS, TppProfile


class InputProjection(nn.ModuleList):
    """Maps of one width, of strides 8, 16, 32 and 64.

    The last is a strided convolution of the backbone's last stage, not of its projection.
    """

    def __init__(self, profile: TppProfile) -> None:
        channels = profile.stage_channels
        width = profile.width
        convolutions = [nn.Conv2d(inputs, width, 1) for inputs in channels[1:]]
        convolutions.append(nn.Conv2d(channels[-1], width, 3, stride=2, padding=1))
        super().__init__(nn.Sequential(conv, nn.GroupNorm(32, width)) for conv in convolutions)
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """From (B, C_s, h_s, w_s) of strides 4 to 32 to four times (B, C, h, w)."""
        sources = [*stages[1:], stages[-1]]
        assert len(sources) == LEVELS
        return [project(source) for project, source in zip(self, sources, strict=True)]
