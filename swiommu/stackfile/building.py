"""What is common to the building of all layers of one file: sentences about it, places of tables, bounds on numbers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from swiommu.errors import InputError, InvalidArgument, SwiommuError
from swiommu.input_file import BadValue
from swiommu.layer.graph import Graph
from swiommu.layer.placed_tables import PlacedTables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.input_file import InputFile, Where
    from swiommu.layer.node import Node
    from swiommu.stackfile.keys import LayerKeys

__all__ = ["Builder"]

_MOST_ENTRIES: Final = 1 << 20
_MOST_LEAVES: Final = 1 << 16
_MOST_TABLE_PAGES: Final = 1 << 16


class Builder:
    """The graph of one file as far as it is built; a kind of layer builds its own with this.

    ``where`` says in which table of the file each name is.

    >>> from swiommu.layer import Identity
    >>> from swiommu.stackfile import LayerKeys, LayerKind
    >>> def build(builder: Builder, name: str, keys: LayerKeys) -> Identity:
    ...     if not keys.on:
    ...         raise builder.error(name, "is missing: an echo needs something below", "on")
    ...     return Identity(name, width=48)
    >>> kind = LayerKind(LayerKeys, build)  # for `LAYER_KINDS.register("echo", kind)`, or as an entry point
    """

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self.graph = Graph()
        self.where: dict[str, Where] = {}
        self._claimed: dict[tuple[int, int], str] = {}
        self._entries = 0
        self._leaves = 0
        self._table_pages = 0

    def error(self, name: str, reason: str, *inside: str | int) -> InputError:
        """The sentence about what has ``name``, or about a part of it."""
        return self.file.error(self.where[name] + inside, reason if reason.startswith("is ") else f": {reason}")

    @contextmanager
    def located(self, name: str, *inside: str | int) -> Iterator[None]:
        """Errors of the library inside become errors of the file, with path, line and key."""
        try:
            yield
        except InputError:
            raise
        except BadValue as error:
            raise self.error(name, error.reason, *inside, error.key) from error
        except SwiommuError as error:
            raise self.error(name, str(error), *inside) from error

    # -- tables

    def through(self, name: str, keys: LayerKeys, tables: int | None) -> tuple[Node | None, int]:
        """Where table reads of ``name`` enter (None: at physical addresses), and the first address of its tables."""
        on = list(keys.on.values())
        if keys.walker == "physical" or (keys.walker == "nested" and not on):
            return None, 0x1000 if tables is None else tables
        if tables is None:
            raise self.error(name, "is missing", "tables")
        return self.graph[on[0] if keys.walker == "nested" else keys.walker], tables

    def placed_tables(self, name: str, keys: LayerKeys, tables: int | None, *, limit: int) -> PlacedTables:
        """Table pages of ``name`` from ``tables`` on; no two layers of a file have the same."""
        through, base = self.through(name, keys, tables)
        return PlacedTables(name, base, through, limit=limit, claimed=self._claimed)

    # -- bounds: a few lines can make more than anybody would wait for

    def count_leaves(self, count: int) -> None:
        """``count`` pages more are mapped; `InvalidArgument` beyond what a file may map."""
        self._leaves += count
        if self._leaves > _MOST_LEAVES:
            raise InvalidArgument(f"{count} pages are more than a file may map, {_MOST_LEAVES} in all")

    def count_entries(self, size: int) -> None:
        """An aperture of ``size`` bytes more; `InvalidArgument` beyond the entries that a file may have."""
        self._entries += size >> 12
        if self._entries > _MOST_ENTRIES:
            raise InvalidArgument(
                f"an aperture of {size:#x} bytes has {size >> 12} entries, more than {_MOST_ENTRIES} of all apertures"
            )

    def require_table_pages(self, building: int) -> None:
        """`InvalidArgument` if ``building`` pages, of the table that is being built, are too many with all others."""
        if self._table_pages + building > _MOST_TABLE_PAGES:
            raise InvalidArgument(f"pages of 4 KiB for tables are more than {_MOST_TABLE_PAGES} in all by now")

    def count_table_pages(self, built: int) -> None:
        """A table of ``built`` pages is done."""
        self._table_pages += built
