"""What a page-table format is: level shapes plus a few pure functions. One walker serves all of them.

Levels are written **top first**, the uppermost that the format can have at *depth* 0; ``start`` is the depth where the
root of a new table stands, so that a table that grows changes its root and no depth. An entry is one 64-bit word; 0
is empty in every format, so that a zeroed page is an empty table. Reading an entry has exactly three outcomes:
`Empty`, `Table`, `Leaf`. A word that no format writes is empty: it leads nowhere.

A leaf has the size of its level, or is ``2**order`` times as large: then it is so many equal words, one behind the
other, of which any one is read.
"""

from __future__ import annotations

from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, SupportsIndex

import attrs

from swiommu.address import PAGE_SIZE, Prot
from swiommu.errors import InvalidArgument
from swiommu.pagetable.rules import GENERIC_PT, Rules
from swiommu.profile import DEFAULT_PROFILE, Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["EMPTY", "Empty", "Format", "Item", "Leaf", "Level", "Table", "remembered"]

P = ParamSpec("P")

_MOST_ENTRIES: Final = 1 << 16
_EVERYTHING: Final = Prot.READ | Prot.WRITE


@attrs.frozen
class Level:
    """One level: an entry covers ``2**shift`` bytes, a table holds ``2**bits`` entries.

    ``can_leaf``: whether one entry can be a leaf. ``orders``: leaves of ``2**order`` entries that there can be beside.

    >>> Level(shift=21, bits=9, can_leaf=True).pgsize
    2097152
    >>> Level(shift=12, bits=9, can_leaf=True, orders=(4,)).sizes, Level(shift=30, bits=11).table_bytes
    ({0: 4096, 4: 65536}, 16384)
    """

    shift: int
    bits: int
    can_leaf: bool = False
    orders: tuple[int, ...] = ()

    @property
    def pgsize(self) -> int:
        """Bytes that one entry covers."""
        return 1 << self.shift

    @property
    def sizes(self) -> dict[int, int]:
        """Bytes of a leaf of each order that can stand here."""
        return {order: 1 << self.shift + order for order in ((0,) if self.can_leaf else ()) + self.orders}

    @property
    def table_bytes(self) -> int:
        """Bytes of one table: its entries, but at least a page of 4 KiB."""
        return max(PAGE_SIZE, 8 << self.bits)


@attrs.frozen
class Empty:
    """An entry that leads nowhere."""


@attrs.frozen
class Table:
    """An entry that points to the next table, at ``oa``; ``allows``: READ and WRITE as far as it lets them through.

    ``prot``: what it says of everything below beside that (NOEXEC).
    """

    oa: int
    allows: Prot = _EVERYTHING
    prot: Prot = Prot.NONE


@attrs.frozen
class Leaf:
    """An entry that ends the walk: output address of the leaf's first byte, what is allowed, ``2**order`` entries."""

    oa: int
    prot: Prot
    order: int = 0


Item = Empty | Table | Leaf
EMPTY = Empty()


@attrs.frozen(kw_only=True)
class Format:
    """A page-table format as a value; see `swiommu.pagetable.formats` for the ones there are.

    ``leaf_entry(oa, depth, prot, order)`` and ``table_entry(oa, depth)`` encode, ``depth`` being that of the table that
    holds the word; ``decode(word, depth)`` is their inverse, and `EMPTY` for every word that hardware would refuse.
    ``even``: whether the words of neighbouring leaves differ by one step, as they do if the address is one field.
    ``sign_extended``: addresses are canonical, the upper half of them at the top of 64 bits. ``coherent``: the bits
    that a leaf gets once cache coherency is enforced (0: it always is), None if that can't be. ``rules``: what the
    code for such tables does in the kernel of ``profile``. ``maker``: the function and the arguments that make it, see
    `remembered`. Raises `InvalidArgument` when the levels do not follow one another.

    >>> from swiommu.pagetable.formats import MOCK
    >>> hex(MOCK.pgsize_bitmap), MOCK.input_width
    ('0x40201000', 48)
    """

    name: str
    levels: tuple[Level, ...] = attrs.field()
    output_width: int
    leaf_entry: Callable[[int, int, int, int], int] = attrs.field(repr=False)
    table_entry: Callable[[int, int], int] = attrs.field(repr=False)
    decode: Callable[[int, int], Item] = attrs.field(repr=False)
    start: int = 0
    even: bool = True
    sign_extended: bool = False
    coherent: int | None = None
    rules: Rules = GENERIC_PT
    profile: Profile = DEFAULT_PROFILE
    maker: tuple[Callable[..., Format], tuple[Any, ...], tuple[tuple[str, Any], ...]] | None = attrs.field(
        default=None, eq=False, repr=False
    )

    @levels.validator
    def _levels_follow(self, _attribute: object, levels: tuple[Level, ...]) -> None:
        if not levels or not levels[-1].can_leaf:
            raise InvalidArgument(f"format {self.name!r}: the last level must be able to hold leaves")
        for depth, (upper, lower) in enumerate(pairwise(levels)):
            if upper.shift != lower.shift + lower.bits:
                raise InvalidArgument(
                    f"format {self.name!r}: an entry of level {depth} covers 2**{upper.shift} bytes, "
                    f"its table 2**{lower.shift + lower.bits}"
                )
        if any(1 << level.bits > _MOST_ENTRIES for level in levels):
            raise InvalidArgument(f"format {self.name!r}: a table holds at most {_MOST_ENTRIES} entries")
        if any(not 0 < order < level.bits for level in levels for order in level.orders):
            raise InvalidArgument(f"format {self.name!r}: a leaf is less than a table")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self  # nothing of it ever changes

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        if self.maker is not None:
            return _made, self.maker
        names = [getattr(each, "__qualname__", "") for each in (self.leaf_entry, self.table_entry, self.decode)]
        local = [name for name in names if "<" in name]
        if local:
            raise TypeError(
                f"format {self.name!r} can't be pickled: {local[0]} is no function of a module. A function of a module "
                "that makes the format, with @remembered, helps"
            )
        return object.__reduce_ex__(self, protocol)

    def leaf_run(self, oa: int, depth: int, prot: int, order: int, count: int) -> Sequence[int]:
        """The words of ``count`` leaves for consecutive pages from ``oa`` on, for filling a table at once.

        >>> from swiommu.address import Prot
        >>> from swiommu.pagetable.formats import MOCK
        >>> [hex(word) for word in MOCK.leaf_run(0x8000, 3, Prot.READ, 0, 2)]
        ['0x8007', '0x9007']
        """
        entry, pgsize = self.leaf_entry, 1 << self.levels[depth].shift + order
        if not self.even:
            words: Sequence[int] = [entry(oa + pgsize * n, depth, prot, order) for n in range(count)]
        else:
            first = entry(oa, depth, prot, order)
            step = entry(oa + pgsize, depth, prot, order) - first if count > 1 else 1
            words = range(first, first + count * step, step)
        return words if not order else [word for word in words for _ in range(1 << order)]

    def unsaid(self, word: int, depth: int, leaf: Leaf) -> int:
        """In which bits ``word``, read as ``leaf``, differs from what ``leaf_entry`` writes for it; no address bits.

        Leaves of another size that are to say the same differ in them too: those of hardware, of software, of memory
        types that a protection can't tell apart.

        >>> from swiommu.address import Prot
        >>> from swiommu.pagetable.formats import arm_lpae
        >>> form = arm_lpae()
        >>> word = form.leaf_entry(0x4000_0000, 2, Prot.READ | Prot.WRITE | Prot.CACHE | Prot.MMIO, 0)
        >>> hex(word), form.decode(word, 2).prot, hex(form.unsaid(word, 2, form.decode(word, 2)))
        ('0x40000f49', <Prot.READ|WRITE|MMIO: 19>, '0x100')
        """
        entry, last, prot = self.leaf_entry, len(self.levels) - 1, int(leaf.prot)
        address = entry((1 << self.output_width) - self.granule, last, prot, 0) ^ entry(0, last, prot, 0)
        return (word ^ entry(leaf.oa, depth, prot, leaf.order)) & ~address

    def checked(self, item: Item, depth: int) -> Item:
        """What was decoded, unless it can't be there: a leaf in an upper level or a misaligned one, one table too many.

        >>> from swiommu.pagetable.formats import MOCK
        >>> MOCK.checked(Leaf(0x1000, 3), 2), MOCK.checked(Leaf(0x1000, 3), 3).oa
        (Empty(), 4096)
        """
        level = self.levels[depth]
        if isinstance(item, Leaf):
            pgsize = level.sizes.get(item.order)
            return EMPTY if pgsize is None or item.oa & (pgsize - 1) else item
        return item if depth + 1 < len(self.levels) else EMPTY

    def effective(self, prot: Prot) -> Prot:
        """What a leaf written with ``prot`` allows when it is read: not every format can say everything.

        >>> from swiommu.address import Prot
        >>> from swiommu.pagetable.formats import MOCK
        >>> MOCK.effective(Prot.WRITE)
        <Prot.WRITE: 2>
        """
        depth = len(self.levels) - 1
        leaf = self.decode(self.leaf_entry(0, depth, int(prot), 0), depth)
        return leaf.prot if isinstance(leaf, Leaf) else Prot.NONE

    @property
    def input_width(self) -> int:
        """Bits of an input address that the levels decode."""
        return self.levels[0].shift + self.levels[0].bits

    @property
    def aperture_width(self) -> int:
        """Bits of the addresses that a kernel gives out: of a sign-extended format the lower half only."""
        return self.input_width - self.sign_extended

    @property
    def granule(self) -> int:
        """The smallest page, in bytes."""
        return self.levels[-1].pgsize

    @property
    def pgsize_bitmap(self) -> int:
        """The page sizes that leaves can have, one bit each (the kernel's ``pgsize_bitmap``)."""
        return sum({size for level in self.levels for size in level.sizes.values()})


def remembered(make: Callable[P, Format]) -> Callable[P, Format]:
    """Let a function of a module make each format once: it is pickled as the function and its arguments.

    >>> import pickle
    >>> from swiommu.pagetable.formats import vtd_ss
    >>> vtd_ss(3) is vtd_ss(3), pickle.loads(pickle.dumps(vtd_ss(3))) is vtd_ss(3)
    (True, True)
    """
    made: dict[tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]], Format] = {}

    @wraps(make)
    def once(*args: P.args, **kwargs: P.kwargs) -> Format:
        key = args, tuple(sorted(kwargs.items()))
        if key not in made:
            made[key] = attrs.evolve(make(*args, **kwargs), maker=(once, *key))
        return made[key]

    return once


def _made(make: Callable[..., Format], args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> Format:
    return make(*args, **dict(kwargs))
