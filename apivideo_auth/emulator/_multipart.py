"""Finding the file in a multipart body and counting its bytes, piece by piece. Keeps no byte of it. Pure."""

import re
from typing import Final, Literal

from attrs import define, field

from apivideo_auth.emulator._problems import body_too_large, file_missing, request_malformed

_CRLF: Final = b"\r\n"
_HEADERS_END: Final = b"\r\n\r\n"
_HEADERS_LIMIT: Final = 16_384
_BOUNDARY_LIMIT: Final = 70
# The first alternative takes a quoted string whole, so that nothing inside one counts.
_PARAMETER: Final = re.compile(r';\s*([^=;\s]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_DISPOSITION: Final = re.compile(rb"(?i)^content-disposition:(.*)$", re.MULTILINE)

_State = Literal["before a part", "at a delimiter", "in headers", "in the file", "behind the file", "behind all parts"]


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a content type names, or raise the 400 for an upload without a file."""
    if content_type.lstrip().lower().startswith("multipart/"):
        boundary = _parameters(content_type).get("boundary", "")
        if 1 <= len(boundary) <= _BOUNDARY_LIMIT:
            return boundary.encode("utf-8", "surrogateescape")
    raise file_missing()


@define
class FileCounter:
    """Fed with a body in pieces, it counts the bytes of the first part that has a filename.

    Raises a 413 when there are more than `limit`, and a 400 for what is no multipart body.
    """

    boundary: bytes
    limit: int
    size: int = field(default=0, init=False)
    # A delimiter begins with the end of the line before it. The first one may have none.
    _buffer: bytearray = field(factory=lambda: bytearray(_CRLF), init=False, repr=False)
    _state: _State = field(default="before a part", init=False)

    @property
    def counted(self) -> bool:
        """Whether the whole file has been seen."""
        return self._state == "behind the file"

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self._buffer += piece
        while self._step():
            pass
        if self.size > self.limit:
            raise body_too_large(self.limit)

    def finish(self) -> None:
        """Take the end of the body, or raise the 400 for one without a file, or cut off."""
        if self._state in ("before a part", "behind all parts"):
            raise file_missing()
        if not self.counted:
            raise request_malformed()

    def _step(self) -> bool:
        """Go on by one element; False if that needs more of the body, or nothing is left to do."""
        match self._state:
            case "before a part" | "in the file":
                return self._skip_to_delimiter()
            case "at a delimiter":
                return self._pass_delimiter()
            case "in headers":
                return self._read_headers()
            case _:
                self._buffer.clear()
                return False

    def _skip_to_delimiter(self) -> bool:
        delimiter = _CRLF + b"--" + self.boundary
        found = self._buffer.find(delimiter)
        # What may be the beginning of a delimiter stays.
        skipped = found if found >= 0 else max(0, len(self._buffer) - len(delimiter) + 1)
        if self._state == "in the file":
            self.size += skipped
        if found < 0:
            del self._buffer[:skipped]
            return False
        del self._buffer[: found + len(delimiter)]
        self.size = max(0, self.size)
        self._state = "behind the file" if self._state == "in the file" else "at a delimiter"
        return True

    def _pass_delimiter(self) -> bool:
        if self._buffer.startswith(b"--"):
            self._state = "behind all parts"
            return True
        end = self._buffer.find(_CRLF)
        if end < 0 and len(self._buffer) <= _BOUNDARY_LIMIT:
            return False
        if end < 0 or self._buffer[:end].strip(b" \t"):
            raise request_malformed()
        del self._buffer[:end]
        self._state = "in headers"
        return True

    def _read_headers(self) -> bool:
        end = self._buffer.find(_HEADERS_END)
        if end < 0:
            if len(self._buffer) > _HEADERS_LIMIT:
                raise request_malformed()
            return False
        has_file = _has_filename(bytes(self._buffer[:end]))
        # The last line end stays, since it may be the one of the next delimiter. It is no part of the file.
        del self._buffer[: end + len(_CRLF)]
        self.size = -len(_CRLF) if has_file else 0
        self._state = "in the file" if has_file else "before a part"
        return True


def _has_filename(headers: bytes) -> bool:
    disposition = _DISPOSITION.search(headers)
    if disposition is None:
        return False
    parameters = _parameters(disposition[1].decode("utf-8", "surrogateescape"))
    return bool(parameters.get("filename") or parameters.get("filename*"))


def _parameters(header: str) -> dict[str, str]:
    return {name.lower(): value.strip().strip('"') for name, value in _PARAMETER.findall(header)}
