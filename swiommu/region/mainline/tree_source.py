"""Device-tree source (DTS), compiled by ``dtc`` in a process of its own: bounded, and without reading any other file.

``dtc`` opens what source names (``/include/``, ``/incbin/``), a device without end or somebody's secrets included, so
that such source is refused before it runs. Its words are found as its lexer finds them: texts, character literals,
comments and paths are skipped. Source: ``dtc-lexer.l`` of the Device Tree Compiler.
"""

from __future__ import annotations

import contextlib
import re
import resource
import shutil
import subprocess
from typing import Final

from swiommu.errors import InputError, NotSupported
from swiommu.words import clean

__all__ = ["compile_tree"]

_SECONDS: Final = 10
_MEMORY: Final = 256 << 20
_LONGEST: Final = 200
# What is not closed goes to the end, as dtc reads nothing behind it: a lone quote or slash is a syntax error.
_WORD: Final = re.compile(
    rb"""/\*.*?(?:\*/|\Z)|//[^\n]*|"(?:[^\\"]|\\.)*+(?:"|\\?\Z)|'(?:\\'|[^'])*'|&\{[\w,.+*#?@/-]*\}"""
    rb"""|(?P<file>/include/|/incbin/)|(?P<cpp>^[ \t]*\#[ \t]*include\b)""",
    re.DOTALL | re.MULTILINE,
)
_REFUSED: Final = {
    b"/include/": "/include/ would read another file: put its text here, or give a DTB",
    b"/incbin/": "/incbin/ would read another file: put its bytes here, or give a DTB",
    b"#include": "#include is for the preprocessor: run `cpp -undef -x assembler-with-cpp` first, or give a DTB",
}
_ERROR: Final = re.compile(r"(?:Error: )?<stdin>:(\d+)\.[\d.-]+:? (?:ERROR )?(.*)")


def compile_tree(source: bytes, path: str) -> bytes:
    """The flattened tree of device-tree source; ``path`` is what sentences name.

    `InputError` with the line for source that names other files or that ``dtc`` refuses, and for source that takes it
    longer than 10 s or more than 256 MiB (a limit that only Linux knows); `NotSupported` where there is no ``dtc``.

    >>> compile_tree(b'/dts-v1/; / { key = /incbin/("key.bin"); };', "board.dts")
    Traceback (most recent call last):
    swiommu.errors.InputError: board.dts:1: /incbin/ would read another file: put its bytes here, or give a DTB
    """
    for found in _WORD.finditer(source):
        if found["file"] or found["cpp"]:
            line = source.count(b"\n", 0, found.start()) + 1
            raise InputError(_REFUSED[found["file"] or b"#include"], path=path, line=line)
    compiler = shutil.which("dtc")
    if compiler is None:
        raise NotSupported(
            f"{path} is device-tree source, and there is no dtc to compile it: install it (device-tree-compiler), or "
            "give a DTB"
        )
    return _run([compiler, "-I", "dts", "-O", "dtb", "-q", "-o", "-", "-"], source, path)


def _run(command: list[str], source: bytes, path: str) -> bytes:
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:  # noqa: S603 - no shell
            if hasattr(resource, "prlimit"):
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    # It reads nothing yet, so that nothing is too late.
                    resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            try:
                tree, said = process.communicate(source, timeout=_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise InputError(f"dtc can't compile it in {_SECONDS} s", path=path) from None
            except BaseException:
                process.kill()
                raise
    except OSError as error:
        raise InputError(f"dtc can't be run: {error.strerror}", path=path) from error
    if process.returncode:
        first = next(iter(said.decode("utf-8", "backslashreplace").strip().splitlines()), "it does not say why")
        place = _ERROR.match(first)
        reason = clean(place[2] if place else first, most=_LONGEST)
        raise InputError(f"dtc can't compile it: {reason}", path=path, line=int(place[1]) if place else None)
    return tree
