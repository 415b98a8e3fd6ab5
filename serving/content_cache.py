"""A bounded cache of arrays by the content they were computed from.

Asked for the same content twice at once, it computes once: the second waits for the first.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

Arrays = dict[str, np.ndarray]


def digest(array: np.ndarray) -> bytes:
    """SHA-256 of an array's type, shape and values.

    Cryptographic on purpose: a collision would show one patient's result for another's picture.
    """
    hasher = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    hasher.update(np.ascontiguousarray(array).data)
    return hasher.digest()


class ContentCache:
    """Keeps the least recently used results within a number of bytes; safe to share by threads.

    Args:
        capacity_bytes: Bytes of all arrays together. A result larger than that is not kept; 0
            keeps nothing (requests in flight at once still share one computation).
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._entries: OrderedDict[bytes, Arrays] = OrderedDict()
        self._bytes = 0
        self._running: dict[bytes, Future[Arrays]] = {}
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    def get(self, key: bytes, compute: Callable[[], Arrays]) -> Arrays:
        """Return what is kept for a key, or compute and keep it.

        Args:
            key: From `digest`.
            compute: Called at most once at a time for a key; if it raises, all who wait for it
                raise the same, and nothing is kept.

        Returns:
            Arrays by name, read-only: they are shared.
        """
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
            running = self._running.get(key)
            if running is None:
                mine = self._running[key] = Future()
        if running is not None:
            return running.result()
        try:
            arrays = compute()
            for array in arrays.values():
                array.setflags(write=False)
        except BaseException as error:
            with self._lock:
                del self._running[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._running[key]
            self._keep(key, arrays)
        mine.set_result(arrays)
        return arrays

    def _keep(self, key: bytes, arrays: Arrays) -> None:
        size = _bytes_of(arrays)
        if size > self._capacity_bytes:
            return
        self._entries[key] = arrays
        self._bytes += size
        while self._bytes > self._capacity_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= _bytes_of(dropped)


def _bytes_of(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
