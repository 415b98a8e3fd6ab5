"""Names that `segment_anything` gives to the parameters of our SAM networks.

SAM, MedSAM and MediSee publish weights under these names; our networks are built from
`transformers`, whose names differ and whose arithmetic is the same.
"""

import re
from pathlib import Path

from export.torch_files import check_tensors, read_torch_files
from training.networks.sam import SamImageEncoder

_HEAD = r"(mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+))"

# Applied in this order: the head's `layers.0` makes room for `proj_in`.
_RENAMES = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
        (r"^vision_encoder\.", "image_encoder."),
        (r"patch_embed\.projection\.", "patch_embed.proj."),
        (r"neck\.conv1\.", "neck.0."),
        (r"neck\.layer_norm1\.", "neck.1."),
        (r"neck\.conv2\.", "neck.2."),
        (r"neck\.layer_norm2\.", "neck.3."),
        (
            r"shared_embedding\.positional_embedding$",
            "pe_layer.positional_encoding_gaussian_matrix",
        ),
        (r"\.point_embed\.", ".point_embeddings."),
        (r"mask_embed\.conv1\.", "mask_downscaling.0."),
        (r"mask_embed\.layer_norm1\.", "mask_downscaling.1."),
        (r"mask_embed\.conv2\.", "mask_downscaling.3."),
        (r"mask_embed\.layer_norm2\.", "mask_downscaling.4."),
        (r"mask_embed\.conv3\.", "mask_downscaling.6."),
        (r"upscale_conv1\.", "output_upscaling.0."),
        (r"upscale_layer_norm\.", "output_upscaling.1."),
        (r"upscale_conv2\.", "output_upscaling.3."),
        (_HEAD + r"\.layers\.0\.", r"\1.layers.1."),
        (_HEAD + r"\.proj_in\.", r"\1.layers.0."),
        (_HEAD + r"\.proj_out\.", r"\1.layers.2."),
        (r"\.layer_norm", ".norm"),
    )
)


def segment_anything_name(name: str) -> str:
    """Name in a `segment_anything` checkpoint.

    Args:
        name: Name in the state of `SamImageEncoder` or `PromptedMaskDecoder`.
    """
    for ours, theirs in _RENAMES:
        name = ours.sub(theirs, name)
    return name


def load_medsam(encoder: SamImageEncoder, file: Path) -> None:
    """Give an image encoder the weights of MedSAM's or SAM's published file.

    Args:
        encoder: Of the file's size, ViT-B for MedSAM.
        file: `.pth`; its prompt encoder and mask decoder are not used.

    Raises:
        ValueError: if names or shapes of the image encoder are not as expected.
    """
    tensors = {
        name: tensor
        for name, tensor in read_torch_files([file]).items()
        if not name.startswith(("prompt_encoder.", "mask_decoder."))
    }
    names = {name: segment_anything_name(name) for name in encoder.state_dict()}
    expected = {names[name]: tensor.shape for name, tensor in encoder.state_dict().items()}
    check_tensors(tensors, expected, file)
    encoder.load_state_dict({name: tensors[theirs] for name, theirs in names.items()})
