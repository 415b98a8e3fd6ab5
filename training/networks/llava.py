"""LLaVA's image side: CLIP's vision tower and the projector into the language model's space."""

from torch import Tensor, nn
from transformers import CLIPVisionModel

from training.networks.conv_stem import ConvStem
from training.networks.profiles import Profile


class LlavaImageEncoder(nn.Module):
    """CLIP ViT up to the selected hidden state, then `mlp2x_gelu`.

    The layers after the selected hidden state (one, for -2) are never computed; they are not
    built.
    """

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        config = type(profile.clip).from_dict(profile.clip.to_dict())
        # hidden_states[k] is the output of layer k, hidden_states[-1] of the last layer.
        config.num_hidden_layers += profile.clip_select_layer + 1
        self.vision_tower = CLIPVisionModel(config)
        if profile.convolutional_stem:
            self.embeddings.patch_embedding = ConvStem(config.hidden_size, profile.clip_patch)
        width = profile.mistral.hidden_size
        self.projector = nn.Sequential(
            nn.Linear(config.hidden_size, width), nn.GELU(), nn.Linear(width, width)
        )

    @property
    def embeddings(self) -> nn.Module:
        """CLIP's patch, class and position embeddings."""
        return getattr(self.vision_tower, "vision_model", self.vision_tower).embeddings

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode preprocessed images.

        Args:
            pixels: (B, 3, S, S) float, CLIP-normalised by `serving.preprocessing`.

        Returns:
            patch_tokens (B, T, E) and cls_token (B, 1, E), projected; T = (S / patch size)^2.
        """
        hidden = self.features(pixels)
        tokens = self.projector(hidden)
        return tokens[:, 1:], tokens[:, :1]

    def features(self, pixels: Tensor) -> Tensor:
        """CLIP's selected hidden state before the projector, (B, 1 + T, E_clip), CLS first."""
        return self.vision_tower(pixels).last_hidden_state
