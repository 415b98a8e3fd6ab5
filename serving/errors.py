"""The kinds of failure a served model may answer with, and how Python exceptions map to them.

A kind is the name of one of Triton's error codes. Pipelines raise plain exceptions (`ValueError`,
`LookupError`) or the classes below; `kind_of` reads the kind of any exception and `error_of` builds
one from a kind, so that the error of a called model keeps its kind on the way up. Knows nothing of
Triton's Python API: `serving.triton_error` turns a kind into a response.
"""

import asyncio
from collections.abc import Callable

INVALID_ARG = "INVALID_ARG"
NOT_FOUND = "NOT_FOUND"
UNAVAILABLE = "UNAVAILABLE"
UNSUPPORTED = "UNSUPPORTED"
ALREADY_EXISTS = "ALREADY_EXISTS"
CANCELLED = "CANCELLED"
INTERNAL = "INTERNAL"

KINDS = (
    INVALID_ARG,
    NOT_FOUND,
    UNAVAILABLE,
    UNSUPPORTED,
    ALREADY_EXISTS,
    CANCELLED,
    INTERNAL,
)
"""All of them."""


class Unavailable(RuntimeError):  # noqa: N818
    """The server is full; the same request may succeed later. Never used for a broken request."""


class Unsupported(RuntimeError):  # noqa: N818
    """The request is well formed, and this model does not do what it asks."""


class AlreadyExists(RuntimeError):  # noqa: N818
    """The request would create something that is there already."""


class Cancelled(asyncio.CancelledError):
    """The client has given up; nobody reads the answer."""


class CalleeFailed(RuntimeError):  # noqa: N818
    """A model called from a pipeline failed for a reason that is neither the caller's nor load."""


class LaunchError(RuntimeError):
    """The server could not be started; the text says what is missing or wrong."""


# Order matters: the first class an exception is an instance of gives its kind.
_CLASSES: tuple[tuple[type[BaseException], str], ...] = (
    (Unavailable, UNAVAILABLE),
    (Unsupported, UNSUPPORTED),
    (AlreadyExists, ALREADY_EXISTS),
    (asyncio.CancelledError, CANCELLED),
    (ValueError, INVALID_ARG),
    (LookupError, NOT_FOUND),
)

_ERRORS: dict[str, Callable[[str], BaseException]] = {
    INVALID_ARG: ValueError,
    NOT_FOUND: LookupError,
    UNAVAILABLE: Unavailable,
    UNSUPPORTED: Unsupported,
    ALREADY_EXISTS: AlreadyExists,
    CANCELLED: Cancelled,
}


def kind_of(error: BaseException) -> str:
    """Name of the Triton error code for an exception; `INTERNAL` for those nobody planned."""
    return next((kind for cls, kind in _CLASSES if isinstance(error, cls)), INTERNAL)


def error_of(kind: str, message: str) -> BaseException:
    """Exception whose `kind_of` is `kind`; `CalleeFailed` for `INTERNAL` and unknown kinds."""
    return _ERRORS.get(kind, CalleeFailed)(message)


def message_of(error: BaseException) -> str:
    """Text of an exception as a person wants it: `KeyError` without the quotes `str` gives it."""
    if isinstance(error, KeyError) and len(error.args) == 1:
        return str(error.args[0])
    return str(error)
