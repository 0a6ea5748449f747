"""What is known of one kind of event: the kernel's names for it, its texts by version, and what its row holds.

A template is the kernel's format string with columns in it: ``size=<size:d>`` reads a decimal number into the
``size`` column. Letters: ``d`` decimal, ``n`` a short one, ``o`` an order of pages, ``i`` signed, ``x`` hexadecimal
without and ``p`` with ``0x``, ``w`` a word, ``b`` one without brackets and slashes, ``a`` one that may be missing,
``t`` words up to the literal that follows, ``l`` a list ``{0x1,0x2}``, ``~`` anything to the end. A slot without a
name is checked and dropped. A few names are no columns: ``end`` must be ``addr`` plus ``size``, lists named
``dma_addrs``, ``sizes`` and ``phys_addrs`` with their counts become the row's scatter list, words in ``attrs`` are
joined to ``flags``, ``fault`` makes ``err`` -14.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from swiommu.errors import InvalidArgument
from swiommu.profile import kernel_version

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TEXT_COLUMNS", "EventSpec", "Text"]

TEXT_COLUMNS: Final = ("device", "name", "addr", "phys", "size", "extra", "err", "flags", "sg")
"""The columns that an event's text decides, in the order of a row."""


@attrs.frozen
class Text:
    """One text of an event: its template, and the first and the last kernel that print it so (empty: open).

    Distributions carry later texts back to older kernels, so a reader tries them all. ``adds`` is a word that a
    reader joins to ``flags``.

    >>> Text("name=<name:t> count=<size:d>", since="5.14", until="6.17").is_of("6.12")
    True
    """

    template: str
    since: str = ""
    until: str = ""
    adds: str = ""

    def is_of(self, kernel: str) -> bool:
        """Whether a mainline kernel of this version prints it; `InvalidArgument` for what is no version."""
        version = kernel_version(kernel)
        if self.since and version < kernel_version(self.since):
            return False
        return not self.until or version <= kernel_version(self.until)


@attrs.frozen(eq=False)
class EventSpec:
    """One kind of event, declared once: the readers, the writer and the documentation are made from this.

    ``doc`` says in a few words what happened, ``where`` which function of the kernel prints it, ``system`` is the
    folder of the event below tracefs ``events`` (empty: none, or one of the user's own). ``columns`` says what each
    column of the row holds; what is not listed is 0, empty or -1. ``texts`` are by the kernel's name for the event,
    in the order in which they are tried.

    >>> from swiommu.trace import Kind
    >>> spec = Kind.CMA_RELEASE.spec
    >>> spec.doc, spec.system, list(spec.texts)
    ('pages of an area are given back', 'cma', ['cma_release'])
    """

    doc: str
    where: str
    columns: Mapping[str, str]
    texts: Mapping[str, tuple[Text, ...]]
    system: str = ""

    def text(self, event: str, kernel: str) -> Text:
        """The text that a kernel of this version prints for ``event``; `InvalidArgument` where it prints none.

        >>> from swiommu.trace import Kind
        >>> Kind.CMA_START.spec.text("cma_alloc_start", "6.12").template
        'name=<name:t> count=<size:d> align=<extra:o>'
        """
        for text in self.texts.get(event, ()):
            if text.is_of(kernel):
                return text
        raise InvalidArgument(f"no text of {event!r} is known of kernel {kernel}")
