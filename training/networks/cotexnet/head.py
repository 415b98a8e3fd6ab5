"""What one task has of its own where it is served: class token map, inverse z-score, decoder."""

from torch import Tensor, nn
from transformers.models.clipseg.modeling_clipseg import CLIPSegDecoderLayer

from training.networks.cotexnet.maps import ClassTokenMap, InverseZScore
from training.networks.cotexnet.profile import CoTexNetProfile
from training.networks.cotexnet.reading import RELEASED, Reading


def planes_of(classes: int) -> int:
    """Mask planes K of a task: one if it is binary, otherwise background and one per class.

    Raises:
        ValueError: if there is no class.
    """
    if classes < 1:
        raise ValueError(f"classes: expected at least 1, got {classes}; background is not counted")
    return 1 if classes == 1 else classes + 1


class CoTexNetDecoder(nn.Module):
    """CLIPSeg's decoder: modulates the deepest tap, adds the others, upsamples."""

    def __init__(self, profile: CoTexNetProfile, planes: int) -> None:
        super().__init__()
        config, width = profile.decoder_config(), profile.decoder.width
        self.grid = profile.grid
        self.film_mul = nn.Linear(profile.embedding_width, width)
        self.film_add = nn.Linear(profile.embedding_width, width)
        self.reduces = nn.ModuleList(nn.Linear(profile.vision.width, width) for _ in profile.taps)
        self.layers = nn.ModuleList(CLIPSegDecoderLayer(config) for _ in profile.taps)
        stride = profile.patch_size // 4
        self.convolution = nn.Conv2d(width, width, 3, padding=1)
        self.expansion = nn.ConvTranspose2d(width, width // 2, 4, stride=4)
        self.output = nn.ConvTranspose2d(width // 2, planes, stride, stride=stride)
        if planes > 1:
            nn.init.xavier_normal_(self.output.weight)
            nn.init.constant_(self.output.get_parameter("bias"), 0)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Decode one stack of planes per image.

        Args:
            features: (B, 3, T, E), from `CoTexNetImageEncoder`.
            condition: (B, D), the embedding after the inverse z-score.

        Returns:
            Logits (B, K, S, S).
        """
        hidden = self.decode_tokens(features, self.film_mul(condition), self.film_add(condition))
        maps = hidden[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return self.output(self.expansion(self.convolution(maps).relu()).relu())

    def decode_tokens(self, features: Tensor, factor: Tensor, term: Tensor) -> Tensor:
        """The transformer part, up to the class token's removal.

        Args:
            features: (B, 3, T, E).
            factor: (B, C), times the deepest features (FiLM).
            term: (B, C), added to them.

        Returns:
            (B, T, C).
        """
        *others, deepest = range(len(self.layers))
        hidden = factor[:, None] * self.reduces[0](features[:, deepest]) + term[:, None]
        hidden = self.layers[0](hidden, None)
        for tap, reduce, layer in zip(
            reversed(others), self.reduces[1:], self.layers[1:], strict=True
        ):
            hidden = layer(reduce(features[:, tap]) + hidden, None)
        return hidden


class CoTexNetHead(nn.Module):
    """All that is learned for a task and served.

    Args:
        profile: Sizes.
        classes: Classes without background.
        reading: The paper's or the code's.
    """

    def __init__(self, profile: CoTexNetProfile, classes: int, reading: Reading = RELEASED) -> None:
        super().__init__()
        self.class_token_map = ClassTokenMap(profile, reading)
        self.inverse_z_score = InverseZScore()
        self.decoder = CoTexNetDecoder(profile, planes_of(classes))

    def forward(self, features: Tensor, class_token: Tensor) -> Tensor:
        """Segment from the image alone (Eq. 12); arguments from `CoTexNetImageEncoder`.

        Returns:
            Logits (B, K, S, S).
        """
        return self.decode(features, self.class_token_map(class_token))

    def decode(self, features: Tensor, class_embedding: Tensor) -> Tensor:
        """The part after the class token map: T_c (B, D) -> logits (B, K, S, S)."""
        return self.decoder(features, self.inverse_z_score(class_embedding))


def label_map(mask_logits: Tensor) -> Tensor:
    """Class of every pixel.

    The planes of several classes are independent probabilities, background among them, and the
    released code decides nothing for them; here the largest wins.

    Args:
        mask_logits: (B, K, H, W).

    Returns:
        (B, H, W) int64, 0 for background.
    """
    if mask_logits.shape[1] == 1:
        return (mask_logits[:, 0] > 0).long()
    return mask_logits.argmax(dim=1)
