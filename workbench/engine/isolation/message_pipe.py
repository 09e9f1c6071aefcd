"""Lists of plain values over a socket between two processes that trust each other: pickled, with a length before."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from typing import Any

__all__ = ["MessagePipe"]

_LENGTH = struct.Struct("!Q")
_READ_BUFFER_BYTES = 256 * 1024
# The other side reads in a thread that does nothing else. If it has not read for so long, it never will.
_SEND_TIMEOUT_S = 60


class MessagePipe:
    """One end. Any thread may send; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        # The system's own timeout, since Python's would hold for receiving as well.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _SEND_TIMEOUT_S, 0))
        self._end = end
        self._reader = end.makefile("rb", buffering=_READ_BUFFER_BYTES)
        self._sending = threading.Lock()

    def send(self, messages: list[Any]) -> None:
        """Send messages, which arrive together. Raises OSError when the other side is gone or does not read."""
        content = pickle.dumps(messages, protocol=pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self._end.sendall(_LENGTH.pack(len(content)) + content)

    def receive(self) -> list[Any]:
        """Wait for messages. Raises EOFError when the other side is gone, OSError when this one is closed."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        messages: list[Any] = pickle.loads(self._read(length))
        return messages

    def close(self) -> None:
        """Give the socket back. Once more is harmless."""
        self._reader.close()
        self._end.close()

    def _read(self, num_bytes: int) -> bytes:
        content: bytes = self._reader.read(num_bytes)
        if len(content) < num_bytes:
            raise EOFError("the other side is gone")
        return content
