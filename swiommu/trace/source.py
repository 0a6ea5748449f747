"""Where the text of a trace comes from: a file, gzip or plain, or stdin, as batches of whole lines.

Memory is bounded by one block and one line, however long the file and its lines are. What can't be opened,
decompressed or is of another kind is an `InputError` in one sentence.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from swiommu.errors import InputError
from swiommu.trace.bundled import bundled_names

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_LINE", "OVERLONG", "Source", "looks_like"]

MAX_LINE: Final = 1 << 20
_BLOCK: Final = 1 << 18
_SNIFF: Final = 1 << 16
_GZIP: Final = b"\x1f\x8b"

# Stands in a batch for a line that was skipped; recognised by identity, so no file can contain it.
OVERLONG: Final = "<overlong line>"

_SHAPE: Final = re.compile(rb"-\d+ .*\[\d{3,}\].* \d+(?:\.\d+)?: \w+:?")
_MAGIC: Final = (
    (b"\x17\x08\x44tracing", "is a trace-cmd recording (trace.dat): run `trace-cmd report` on it and read its output"),
    (b"PERFILE2", "is a perf.data file: swiommu reads ftrace text, so record with trace-cmd or /sys/kernel/tracing"),
    (b"\xfd7zXZ", "is compressed with xz: decompress it first, or use gzip"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: decompress it first, or use gzip"),
    (b"BZh", "is compressed with bzip2: decompress it first, or use gzip"),
    (b"PK\x03\x04", "is a zip archive: unpack it first"),
)
_TEXTS: Final = (
    (re.compile(rb"^(?:<\d+>)?\[ *\d+\.\d+\] ", re.MULTILINE), "a kernel log (dmesg)"),
    (re.compile(rb"^.{1,32} +\d+(?:/\d+)? +(?:\[\d+\] +)?\d+\.\d+: +\w+:\w+:", re.MULTILINE), "`perf script` output"),
    (re.compile(rb"^(?:vtd_|smmu|amdvi_|virtio_iommu_)\w+ ", re.MULTILINE), "an IOMMU emulator's log"),
    (re.compile(rb"\A\s*<(?:!DOCTYPE|html)", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"\A\s*[{\[]"), "JSON"),
)


class _Readable(Protocol):
    def read1(self, size: int = ..., /) -> bytes: ...


@contextlib.contextmanager
def _standard_input() -> Iterator[io.BufferedReader]:
    """Standard input with `peek`, left open: it is not ours to close, even if it is a test's `io.BytesIO`."""
    reader = io.BufferedReader(cast("io.RawIOBase", sys.stdin.buffer))
    try:
        yield cast("io.BufferedReader", reader)
    finally:
        reader.detach()


def looks_like(head: bytes) -> str:
    """What kind of text ``head``, the beginning of a file, seems to be; for the sentence of a refusal.

    >>> looks_like(b'{"events": []}')
    'JSON'
    >>> looks_like(b"[    0.000000] Linux version 6.12")
    'a kernel log (dmesg)'
    """
    for pattern, name in _TEXTS:
        if pattern.search(head):
            return name
    return "an ftrace text" if _SHAPE.search(head) else "a text of another kind"


class Source:
    """The lines of one trace in batches; iterate it once. ``lines`` counts those handed out so far.

    ``bytes`` counts text (after decompression), ``head`` holds its beginning, ``cut_tail`` tells whether the last
    line had no line feed. ``noun`` and ``text`` are what refusals say that it
    should have been.
    """

    def __init__(self, path: str | Path, *, noun: str = "a trace", text: str = "an ftrace text") -> None:
        self.noun, self.text = noun, text
        self.name = "standard input" if str(path) == "-" else str(path)
        self._path = str(path)
        self.lines = 0
        self.bytes = 0
        self.head = b""
        self.cut_tail = False

    def __iter__(self) -> Iterator[list[str]]:
        try:
            with self._open() as raw:
                packed = raw.peek(2)[:2] == _GZIP
                stream: _Readable = gzip.GzipFile(fileobj=raw) if packed else raw
                yield from self._batches(self._blocks(stream))
        except EOFError:
            raise self._refuse(f"is a truncated gzip file; {self._readable()} before the cut") from None
        except (zlib.error, gzip.BadGzipFile) as error:
            raise self._refuse(f"is a damaged gzip file ({error}); {self._readable()} before the damage") from None
        except OSError as error:
            raise self._refuse(f"can't be read: {error.strerror or error}") from None

    def _readable(self) -> str:
        return f"{self.lines} line{'s were' if self.lines != 1 else ' was'} readable"

    def _refuse(self, reason: str) -> InputError:
        return InputError(reason, path=self.name)

    def _open(self) -> contextlib.AbstractContextManager[io.BufferedReader]:
        if self._path == "-":
            if sys.stdin is None:
                raise self._refuse("is closed")
            return _standard_input()
        try:
            if Path(self._path).is_dir():
                raise self._refuse(f"is a directory, not {self.noun}")
            return Path(self._path).open("rb")
        except FileNotFoundError:
            known = " and ".join(bundled_names())
            raise self._refuse(f"no such file, and no bundled recording of that name (there are {known})") from None
        except PermissionError:
            raise self._refuse("may not be read (permission denied)") from None

    def _blocks(self, stream: _Readable) -> Iterator[bytes]:
        # read1 hands out what could be decompressed before an error; read would lose it.
        while block := stream.read1(_BLOCK):
            self.bytes += len(block)
            if len(self.head) < _SNIFF:
                self.head += block[: _SNIFF - len(self.head)]
                self._sniff()
            yield block
        if not self.bytes:
            raise self._refuse(f"is empty, not {self.noun}")

    def _sniff(self) -> None:
        """Refuse at once what can't be text, so that a disk image is not read to its end."""
        for magic, reason in _MAGIC:
            if self.head.startswith(magic):
                raise self._refuse(reason)
        if b"\0" in self.head and not _SHAPE.search(self.head):
            raise self._refuse(f"is a binary file, not {self.text}")

    def _batches(self, blocks: Iterator[bytes]) -> Iterator[list[str]]:
        line: list[bytes] = []  # the pieces of a line that is not whole yet; a list, as a pipe may give single bytes
        held, skipping = 0, False
        for block in blocks:
            text, feed, rest = block.rpartition(b"\n")
            if feed:
                yield self._split(b"".join([*line, text]), skipping)
                line, held, skipping = [], 0, False
            held += len(rest)
            if held > MAX_LINE:
                skipping, line = True, []
            elif not skipping:
                line.append(rest)
        if held:
            self.cut_tail = True
            yield self._split(b"".join(line), skipping)

    def _split(self, text: bytes, skipping: bool) -> list[str]:
        # Only the first line can have grown over several blocks.
        first = text.find(b"\n")
        if skipping or (first if first >= 0 else len(text)) > MAX_LINE:
            skipping, text = True, text[first:] if first >= 0 else b""
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").removesuffix(b"\r")
        lines = text.decode("utf-8", "backslashreplace").split("\n")
        if skipping:
            lines[0] = OVERLONG
        self.lines += len(lines)
        return lines
