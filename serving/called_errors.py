"""Carries the kind of an error from a called model to the model that called it.

Triton before 25.03 hands a Python caller the text of the callee's error and drops its code. So a
request made by `PythonModel.call` says so in its id, and the answer to such a request has its kind
in front of the text. Requests of clients are answered without it. Text only; no Triton API.
"""

import re

from serving.errors import INTERNAL, KINDS, UNAVAILABLE

_CALLED = re.compile(r" \(called by [^()]+\)$")
_TAGGED = re.compile(rf"^(?:in ensemble '[^']*', )?(?P<kind>{'|'.join(KINDS)}): ", re.DOTALL)

# Answers of Triton's own scheduler, which nobody tags; both mean that a queue is full.
_QUEUE_FULL = ("Exceeds maximum queue size", "Request timeout expired")


def called_id(request_id: str, caller: str) -> str:
    """Id of a request that a model makes while it answers another one."""
    return f"{_CALLED.sub('', request_id) or 'without id'} (called by {caller})"


def tag(message: str, kind: str, request_id: str) -> str:
    """The message, with its kind in front when a model asked and the kind says anything."""
    return f"{kind}: {message}" if kind != INTERNAL and _CALLED.search(request_id) else message


def untag(message: str, kind: str) -> tuple[str, str]:
    """Message and kind of a callee's error.

    Args:
        message: Text as received.
        kind: Kind as received; `INTERNAL` may stand for any.
    """
    found = _TAGGED.match(message)
    if found:
        return message[found.end() :], found["kind"]
    if kind == INTERNAL and message.endswith(_QUEUE_FULL):
        return message, UNAVAILABLE
    return message, kind
