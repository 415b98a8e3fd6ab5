"""What can go wrong in a call, by kind, and what the caller does next.

Every error of this package is a `SaymaskError`. The kinds are those of gRPC, so what the server
answers keeps its kind; an error found before anything is sent has `code` None. This module does
not import grpc: status codes arrive by name.
"""

# ruff: noqa: N818  (the kinds carry gRPC's names, so that NOT_FOUND is NotFound)

import re
from typing import ClassVar

__all__ = [
    "Cancelled",
    "DeadlineExceeded",
    "InvalidArgument",
    "MissingExtra",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "SaymaskError",
    "ServerError",
    "Unavailable",
    "error_of_status",
    "error_of_text",
]


class SaymaskError(Exception):
    """Base of all errors of this package.

    Args:
        message: what came and what was expected.
        code: name of the gRPC status the server answered with, such as `"NOT_FOUND"`; None where
            the client raised the error itself.
        request_id: id under which the server logged the request; None where none was sent.
    """

    next_step: ClassVar[str] = ""
    """What the caller does next, for answers of the server; an error found before sending says it
    in its message."""

    def __init__(
        self, message: str, *, code: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id

    def __str__(self) -> str:
        if self.code is None or not self.next_step:
            return self.message
        return f"{self.message.rstrip('.')}. {self.next_step}"


class InvalidArgument(SaymaskError, ValueError):
    """The image, the prompt or an option is not what the pipeline takes."""

    next_step = "Change the image or the prompt as said; the same request will fail again."


class NotFound(SaymaskError, LookupError):
    """The server does not know the model, or the thing the request names."""

    next_step = "See what the server has with `saymask models`."


class Unavailable(SaymaskError):
    """The server cannot be reached, is starting, or is overloaded."""

    next_step = "Check the address and `saymask health`; a busy or starting server answers later."


class DeadlineExceeded(SaymaskError, TimeoutError):
    """The answer did not come within `timeout_s`, all attempts together."""

    next_step = "Raise timeout_s, or look at the server's load."


class Cancelled(SaymaskError):
    """The call was cancelled, here or by the server."""

    next_step = "Send the request again if the answer is still wanted."


class PermissionDenied(SaymaskError):
    """The server refuses this call to this caller."""

    next_step = "Pass the credentials the server's operator gave you with Client(headers={...})."


class ResourceExhausted(SaymaskError):
    """A message is larger than one side allows, or the server is out of memory."""

    next_step = "Send a smaller image, or raise Client(max_message_bytes=...)."


class ServerError(SaymaskError):
    """The server failed, or answered something this client does not understand."""

    next_step = "Give the request id to the server's operator: its log has the cause."


class MissingExtra(SaymaskError, ImportError):
    """A file format needs a package that is not installed; the message names it."""


_KIND_OF_STATUS: dict[str, type[SaymaskError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "OUT_OF_RANGE": InvalidArgument,
    "NOT_FOUND": NotFound,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "PERMISSION_DENIED": PermissionDenied,
    "UNAUTHENTICATED": PermissionDenied,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
}

# Saymask's models put the status in front of their texts, and Triton the pipeline's name.
_TAGGED = re.compile(
    rf"^(?:in ensemble '[^']*', )*"
    rf"(?P<status>{'|'.join([*_KIND_OF_STATUS, 'INTERNAL', 'UNIMPLEMENTED', 'ALREADY_EXISTS'])}): "
)

_BROKEN_OFF = "Stream removed"  # gRPC's text where a proxy lost the server while it answered

_STOPPING = "has no available versions"  # of a model that the server has, while it starts or stops

# Triton's own texts, which carry no status; the first that fits counts.
_STATUS_OF_TEXT = {
    _STOPPING: "UNAVAILABLE",
    "Request for unknown model": "NOT_FOUND",
    "Exceeds maximum queue size": "UNAVAILABLE",
    "Request timeout expired": "UNAVAILABLE",
}


def error_of_text(text: str, *, url: str, request_id: str | None = None) -> SaymaskError:
    """Return the error, not raised, for a text that came inside a stream, in place of a status.

    Args:
        text: what Triton put into `error_message`.
        url: as for `error_of_status`.
        request_id: as for `error_of_status`.
    """
    found = _TAGGED.match(text)
    known = (status for part, status in _STATUS_OF_TEXT.items() if part in text)
    status = found["status"] if found else next(known, "UNKNOWN")
    return error_of_status(status, text, url=url, request_id=request_id)


def error_of_status(
    status: str, details: str, *, url: str, request_id: str | None = None
) -> SaymaskError:
    """Return the error, not raised, for a gRPC status.

    Args:
        status: name of the gRPC status code, such as `"INVALID_ARGUMENT"`.
        details: the text that came with it.
        url: address that was called; named where the fault may lie in it.
        request_id: id the request was sent with.
    """
    # Triton answers a call to a restricted protocol with UNAVAILABLE; retrying cannot help.
    if status == "UNAVAILABLE" and "protocol is restricted" in details:
        status = "PERMISSION_DENIED"
    if status == "NOT_FOUND" and _STOPPING in details:
        status = "UNAVAILABLE"
    if status == "UNKNOWN" and details.startswith(_BROKEN_OFF):
        status = "UNAVAILABLE"
    kind = _KIND_OF_STATUS.get(status, ServerError)
    message = _TAGGED.sub("", details).strip() or f"the server gave no reason ({status})"
    if message.startswith("failed to connect to all addresses"):
        message = _why_not_connected(message, url)
    elif "errors resolving" in message or message.startswith("DNS resolution failed"):
        reason = message.rpartition(": ")[2].rstrip("]")
        message = f"the host name {url.rpartition(':')[0]} is not known ({reason})"
    elif message == "Deadline Exceeded":  # gRPC's own words, on this side
        message = f"no answer from {url} within timeout_s"
    elif kind is Unavailable:
        message = f"{url}: {message}"
    elif kind is ServerError:
        message = f"{message} (status {status}, request id {request_id})"
    return kind(message, code=status, request_id=request_id)


def _why_not_connected(details: str, url: str) -> str:
    """Return in one sentence what gRPC says at length."""
    if "handshake failed" in details.lower() or "Hostname Verification Check failed" in details:
        return (
            f"a server answers at {url}, but not with TLS, or not with a certificate this client "
            "trusts"
        )
    return f"no server answers at {url} ({details.rpartition(': ')[2]})"
