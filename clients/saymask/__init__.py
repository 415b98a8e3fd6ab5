"""Client of the saymask serving stack: ask in plain words, get the mask.

Names are imported when first used, so that `from saymask import mask_codec` in the server does
not import gRPC, and `import saymask` imports no file-format library and no framework.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saymask.client import Client
    from saymask.connection import Tls
    from saymask.conversation import Conversation, ConversationLost
    from saymask.conversation_replay import Replay
    from saymask.conversation_round import ConversationRound, Instance
    from saymask.errors import (
        Cancelled,
        DeadlineExceeded,
        InvalidArgument,
        MissingExtra,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        SaymaskError,
        ServerError,
        Unavailable,
    )
    from saymask.explanation_stream import ExplanationStream
    from saymask.frames import Frames, read_frames
    from saymask.organs import OrganFinding
    from saymask.pending_segmentation import PendingSegmentation
    from saymask.readers import read_image
    from saymask.results import Health, ModelInfo, Segmentation, TensorInfo, box_from_mask
    from saymask.source_image import SourceImage
    from saymask.tracks import Track, TrackedFrame

    from . import aio as aio
    from . import mask_codec as mask_codec

_MODULE_OF_NAME = {
    "Client": "client",
    "ExplanationStream": "explanation_stream",
    "PendingSegmentation": "pending_segmentation",
    "Tls": "connection",
    "Conversation": "conversation",
    "ConversationLost": "conversation",
    "Replay": "conversation_replay",
    "ConversationRound": "conversation_round",
    "Instance": "conversation_round",
    "Cancelled": "errors",
    "DeadlineExceeded": "errors",
    "InvalidArgument": "errors",
    "MissingExtra": "errors",
    "NotFound": "errors",
    "PermissionDenied": "errors",
    "ResourceExhausted": "errors",
    "SaymaskError": "errors",
    "ServerError": "errors",
    "Unavailable": "errors",
    "Frames": "frames",
    "read_frames": "frames",
    "OrganFinding": "organs",
    "Health": "results",
    "ModelInfo": "results",
    "Segmentation": "results",
    "TensorInfo": "results",
    "box_from_mask": "results",
    "read_image": "readers",
    "SourceImage": "source_image",
    "Track": "tracks",
    "TrackedFrame": "tracks",
}
_MODULES = ("aio", "mask_codec")

__all__ = [
    "Cancelled",
    "Client",
    "Conversation",
    "ConversationLost",
    "ConversationRound",
    "DeadlineExceeded",
    "ExplanationStream",
    "Frames",
    "Health",
    "Instance",
    "InvalidArgument",
    "MissingExtra",
    "ModelInfo",
    "NotFound",
    "OrganFinding",
    "PendingSegmentation",
    "PermissionDenied",
    "Replay",
    "ResourceExhausted",
    "SaymaskError",
    "Segmentation",
    "ServerError",
    "SourceImage",
    "TensorInfo",
    "Tls",
    "Track",
    "TrackedFrame",
    "Unavailable",
    "__version__",
    "aio",
    "box_from_mask",
    "mask_codec",
    "read_frames",
    "read_image",
]

try:
    __version__ = version("saymask")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"saymask.{name}")
    if name in _MODULE_OF_NAME:
        return getattr(import_module(f"saymask.{_MODULE_OF_NAME[name]}"), name)
    raise AttributeError(f"module 'saymask' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
