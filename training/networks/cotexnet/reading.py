"""Where CoTexNet's paper and its released code say different things."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reading:
    """One choice for each difference; the defaults are the released code's."""

    student_map: Literal["perceptron", "projection"] = "perceptron"
    """From the class token to the predicted embedding: three linear layers with ReLU (code), or
    two with GELU and a norm, as for the regions of interest (paper, section 3.2)."""
    double_sigmoid: bool = True
    """The map ends in a sigmoid of its own before the one of Eq. 8, so that the predicted
    embedding lies in (0.5, 0.731)."""
    noise: Literal["after_sigmoid", "before_sigmoid"] = "after_sigmoid"
    """Eq. 9: mix sigmoid(T_e) with T_c (code), or take the sigmoid of the mixture (paper)."""
    dropout: float = 0.0
    """Of the conditional embedding in training, Eq. 11; the code makes the layer but never calls
    it."""
    pseudo_text: Literal["overwrite", "template"] = "overwrite"
    """Regions of interest take the place of words of the real text (code), or stand behind a
    template in front of it (paper, Eq. 3 and 4)."""
    divergence: Literal["softmax", "elementwise"] = "softmax"
    """Eq. 10: between softmaxes over the embedding, of the text without noise (code), or between
    the embeddings' own values, of the text with noise (paper)."""
    distillation_weight: float = 10.0
    """Factor of the divergence in the joint loss; 1 in the paper's Eq. 15."""
    probabilities_as_logits: bool = True
    """The cross-entropy is given probabilities where it expects logits (code)."""

    def __post_init__(self) -> None:
        if self.divergence == "elementwise" and self.noise == "after_sigmoid":
            raise ValueError(
                'divergence: "elementwise" takes the logarithm of the embedding with noise, which '
                'is positive for any learned ratio only where noise is "before_sigmoid"'
            )


RELEASED = Reading()
PAPER = Reading(
    student_map="projection",
    double_sigmoid=False,
    noise="before_sigmoid",
    dropout=0.2,
    pseudo_text="template",
    divergence="elementwise",
    distillation_weight=1.0,
    probabilities_as_logits=False,
)
