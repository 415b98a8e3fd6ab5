"""Where the server is, how the channel to it is made, and whether it is closed; holds no calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from saymask.errors import InvalidArgument, SaymaskError, error_of_status, error_of_text

__all__ = ["DEFAULT_MAX_MESSAGE_BYTES", "DEFAULT_URL", "Tls"]

DEFAULT_URL = "localhost:8001"
"""Triton's gRPC port on this machine."""

DEFAULT_MAX_MESSAGE_BYTES = 256 * 2**20
"""Room for one colour image of 9,400 x 9,400 pixels; gRPC's own default is 4 MiB."""


@dataclass(frozen=True)
class Tls:
    """Files for an encrypted channel, PEM each."""

    root_certificates: str | Path | None = None
    """Certificates of the authorities to trust; None takes those gRPC carries."""
    private_key: str | Path | None = None
    """Key of this client, where the server asks clients to identify themselves."""
    certificate_chain: str | Path | None = None
    """Certificate of this client, with `private_key`."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files and return gRPC's credentials.

        Raises:
            InvalidArgument: if a file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            *(
                None if file is None else _content(file)
                for file in (self.root_certificates, self.private_key, self.certificate_chain)
            )
        )


def _content(file: str | Path) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"tls: {file} cannot be read: {error.strerror}") from error


def check_url(url: str) -> str:
    """Return `host:port` of `url`; "grpc://" in front of it is accepted.

    Raises:
        InvalidArgument: if it is an HTTP address or has no port that exists.
    """
    address = url.removeprefix("grpc://").rstrip("/")
    if "://" in address:
        raise InvalidArgument(
            f"url: expected host:port of Triton's gRPC endpoint, as in 'localhost:8001', got "
            f"{url!r}; HTTP is another endpoint, on port 8000 where gRPC is on 8001 (for TLS pass "
            "tls=True)"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:  # gRPC takes it modulo 65536
        raise InvalidArgument(f"url: expected host:port, as in 'localhost:8001', got {url!r}")
    return address


class Connection:
    """Where and how one client connects; checked, not yet connected.

    Args:
        url: host:port of Triton's gRPC endpoint.
        tls: None or False for plain text, True for the authorities gRPC carries, or a `Tls`.
        headers: sent with every call.
        max_in_flight: requests that the client keeps in flight at once; at least 1.
        max_message_bytes: limit of one message in either direction.

    Raises:
        InvalidArgument: if an argument cannot be meant so.
    """

    def __init__(
        self,
        url: str,
        tls: Tls | bool | None,
        headers: Mapping[str, str] | None,
        max_in_flight: int,
        max_message_bytes: int,
    ) -> None:
        if not (isinstance(max_in_flight, int) and max_in_flight >= 1):
            raise InvalidArgument(
                f"max_in_flight: expected a count from 1 on, got {max_in_flight!r}"
            )
        self.url = check_url(url)
        self.closed = False  # set by the client; its streams look here too
        self.max_in_flight = max_in_flight
        self.max_message_bytes = max_message_bytes
        self.credentials = (Tls() if tls is True else tls).credentials() if tls else None
        # gRPC takes lower-case keys only.
        self.metadata = tuple((key.lower(), value) for key, value in (headers or {}).items())
        self.options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            # A server that comes back is found again within the deadline of a waiting call.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]

    def check_open(self) -> None:
        """Raise `SaymaskError` if the client is closed."""
        if self.closed:
            raise SaymaskError("this client is closed; make a new one")

    def error_of(self, error: Any, request_id: str | None = None) -> SaymaskError:
        """Return this package's error for an error of gRPC, blocking or asyncio."""
        return error_of_status(
            error.code().name, error.details() or "", url=self.url, request_id=request_id
        )

    def error_in(self, streamed: Any, request_id: str) -> SaymaskError | None:
        """Return the error that a response of a stream carries as a text, if any."""
        text = streamed.error_message
        return error_of_text(text, url=self.url, request_id=request_id) if text else None
