"""Puts the kind of an error in front of its text, as the name of a gRPC status, and reads it back.

Triton drops the code of an error in two places: in the answer a Python caller gets from another
model (before 25.03), and in a stream. Text only; no Triton API.
"""

import re

from serving.errors import INTERNAL, KINDS, UNAVAILABLE

_OTHER_NAMES = {"INVALID_ARG": "INVALID_ARGUMENT", "UNSUPPORTED": "UNIMPLEMENTED"}
_KIND_OF_STATUS = {_OTHER_NAMES.get(kind, kind): kind for kind in KINDS}
_TAGGED = re.compile(rf"^(?:in ensemble '[^']*', )*(?P<status>{'|'.join(_KIND_OF_STATUS)}): ")

# Answers of Triton's own scheduler, which nobody tags; both mean that a queue is full.
_QUEUE_FULL = ("Exceeds maximum queue size", "Request timeout expired")


def tag(message: str, kind: str) -> str:
    """The message with the gRPC status of its kind in front: "INVALID_ARGUMENT: prompt: ..."."""
    return f"{_OTHER_NAMES.get(kind, kind)}: {message}"


def untag(message: str, kind: str) -> tuple[str, str]:
    """Message and kind of a callee's error.

    Args:
        message: Text as received.
        kind: Kind as received; `INTERNAL` may stand for any.
    """
    found = _TAGGED.match(message)
    if found:
        return message[found.end() :], _KIND_OF_STATUS[found["status"]]
    if kind == INTERNAL and message.endswith(_QUEUE_FULL):
        return message, UNAVAILABLE
    return message, kind
