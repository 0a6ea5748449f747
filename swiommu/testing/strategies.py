"""Hypothesis strategies for stacks and probes, small enough that borders and collisions are the rule.

Everything drawn is a value (`Recipe`, `Probe`), so that a counterexample can be read, shrunk and pasted into a test.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from swiommu.address import PAGE_SIZE, Access, Prot
from swiommu.testing.formats import DRAWN
from swiommu.testing.probes import Probe
from swiommu.testing.stacks import BASES, DATA, SLOT, TABLES, Patch, Recipe, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["accesses", "formats", "leaves", "probes", "prots", "recipes", "spans", "stages"]

RW = Prot.READ | Prot.WRITE
_BLOCKS = (1 << 16, 1 << 14, 1 << 12)
_PROTS = (*(RW,) * 8, Prot.READ, Prot.WRITE, RW | Prot.NOEXEC, Prot.READ | Prot.CACHE, RW | Prot.MMIO, RW | Prot.PRIV)
_ACCESSES = (Access.READ, Access.READ, Access.WRITE, Access.EXEC, Access.READ | Access.WRITE)
_KINDS = (*("paged",) * 6, "window", "flat", "router", "shadow", "identity")
_SHAPES = ("hole", "leaf", "leaf", "leaf", "run", "run", "run", "split", "split", "split", "split")
_LAST = ("hole", "leaf", "leaf", "leaf", "leaf", "leaf")
_MOSTLY = (False, *(True,) * 6)
_OFFSETS = (0, 1, 0x3FF, 0x400, 0x800, 0xFFF)
_SIZES = (1, 2, 0x400, 0x1000, 0x1001, 0x3000, 0x6000)


def prots() -> SearchStrategy[Prot]:
    """What a leaf may allow: mostly reading and writing."""
    return st.sampled_from(_PROTS)


def formats(names: Sequence[str] = DRAWN) -> SearchStrategy[str]:
    """Which of ``names`` a page table has the format of: mostly "tiny", but each of `LAW_FORMATS` at times.

    >>> from hypothesis import find
    >>> find(formats(), lambda name: True), find(formats(("amd-v1", "riscv-sv39")), lambda name: "sv" in name)
    ('tiny', 'riscv-sv39')
    """
    return st.sampled_from(names)


def accesses() -> SearchStrategy[Access]:
    """What a device may want."""
    return st.sampled_from(_ACCESSES)


def probes(
    base: int = BASES[0], size: int = DATA, *, min_size: int = 1, max_size: int = 6
) -> SearchStrategy[list[Probe]]:
    """Accesses at and around the borders of ``size`` bytes from ``base``, and some that are far from it.

    >>> from hypothesis import find
    >>> find(probes(0x1000, 0x2000), lambda drawn: drawn[0].size > 2)[0].size
    1024
    """
    pages = st.integers(base // PAGE_SIZE, (base + size) // PAGE_SIZE)
    near = st.builds(lambda page, offset: page * PAGE_SIZE + offset, pages, st.sampled_from(_OFFSETS))
    far = st.sampled_from((0, max(base - 1, 0), base + TABLES, base + size + DATA, (1 << 26) - 1, 1 << 26, 1 << 47))
    starts = st.integers(0, 19).flatmap(lambda n: far if n == 13 else near)
    return st.lists(st.builds(Probe, starts, st.sampled_from(_SIZES), accesses()), min_size=min_size, max_size=max_size)


@st.composite
def leaves(
    draw: DrawFn, start: int = 0, size: int = DATA, outputs: int = DATA, *, granule: int = PAGE_SIZE
) -> tuple[Patch, ...]:
    """Leaves of all sizes for ``size`` bytes from ``start``, with holes, leading anywhere in ``outputs`` bytes.

    None is smaller than ``granule``. Several may lead to one place, and neighbours go up, down or nowhere.
    """
    pieces: list[Patch] = []
    for at in range(start, start + size, _BLOCKS[0]):
        _fill(draw, pieces, at, 0, outputs, granule)
    return tuple(pieces)


def _fill(draw: DrawFn, pieces: list[Patch], at: int, depth: int, outputs: int, granule: int) -> None:
    size = _BLOCKS[depth]
    last = size == granule
    what = draw(st.sampled_from(_LAST if last else _SHAPES))
    if what == "hole":
        return
    if what == "leaf":
        output = draw(st.integers(0, outputs // size - 1)) * size
        pieces.append(Patch(at, output, size, draw(prots()), size))
        return
    if what == "run":
        # A run of pages, forwards or backwards, of one protection or two: what real maps look like.
        first = draw(st.integers(0, outputs // size - 1)) * size
        allowed, down = (draw(prots()), draw(prots())), draw(st.booleans())
        cut = draw(st.integers(1, size // granule - 1)) * granule
        for n in range(0, size, granule):
            output = first + (size - granule - n if down else n)
            pieces.append(Patch(at + n, output, granule, allowed[n >= cut], granule))
        return
    for inner in range(at, at + size, _BLOCKS[depth + 1]):
        _fill(draw, pieces, inner, depth + 1, outputs, granule)


@st.composite
def spans(draw: DrawFn, *, unit: int = 0x400, size: int = DATA) -> tuple[Patch, ...]:
    """Windows over ``size`` bytes, cut at multiples of ``unit``, with holes; each with a delta of its own.

    >>> from hypothesis import find
    >>> find(spans(), lambda drawn: len(drawn) == 2)[1].start % 0x400
    0
    """
    cuts = sorted(draw(st.sets(st.integers(1, size // unit - 1), max_size=3)))
    borders = [0, *(cut * unit for cut in cuts), size]
    pieces = []
    for start, stop in pairwise(borders):
        if draw(st.sampled_from(_MOSTLY)):
            output = draw(st.integers(0, (size - (stop - start)) // unit)) * unit
            pieces.append(Patch(start, output, stop - start))
    return tuple(pieces)


def _table_blocks(number: int) -> list[int]:
    # Blocks of the spaces where the stages above `number` have their tables.
    return list(range(TABLES, TABLES + number * SLOT, _BLOCKS[0]))


@st.composite
def _tables_of_others(draw: DrawFn, number: int, *, sound: bool, granule: int) -> list[Patch]:
    # The slots of the tables above, mapped onto themselves: whole, in pieces that change places, with defects.
    pieces = []
    for at in _table_blocks(number):
        style = draw(st.sampled_from("wwwrp" if sound else "wwwwwwrrphod"))
        prot = {"o": Prot.WRITE, "d": Prot.READ}.get(style, RW)
        if style in "wod":
            pieces.append(Patch(at, at, _BLOCKS[0], prot, _BLOCKS[0]))
            continue
        size = max(granule, _BLOCKS[2] if style == "p" and at == TABLES else _BLOCKS[1])
        offsets = range(size if style == "h" else 0, _BLOCKS[0], size)
        pieces += [Patch(at + n, at + _BLOCKS[0] - size - n, size, RW, size) for n in offsets]
    return pieces


@st.composite
def stages(
    draw: DrawFn,
    number: int = 0,
    *,
    kinds: Sequence[str] = _KINDS,
    walkers: Sequence[str] = ("nested", "nested", "nested", "physical", "own"),
    sound: bool = False,
    unit: int = 0x400,
    formats: Sequence[str] = DRAWN,
) -> Stage:
    """One stage of a recipe, the ``number``-th from the top; ``sound``: walkers of the stages above get through.

    ``unit``: where windows may be cut; ``formats``: the names, in `LAW_FORMATS`, of those that tables may have. Tables
    that are too large for a place that the stages below map are not read through these.

    >>> from hypothesis import find
    >>> drawn = find(stages(kinds=["paged"], formats=["arm-lpae-64k-s1"]), lambda stage: stage.pieces)
    >>> drawn.walker, drawn.pieces[0].page
    ('physical', 65536)
    """
    kind = draw(st.sampled_from(kinds))
    if kind == "identity":
        return Stage(kind)
    if kind in {"window", "router"}:
        tables = (Patch(TABLES, TABLES, 4 * SLOT),)
        return Stage(kind, draw(spans(unit=unit)) + tables)
    form = "tiny" if kind == "flat" else draw(st.sampled_from(formats))
    fitting = Stage(kind, format=form)
    walker = draw(st.sampled_from(walkers))
    if walker == "nested" and not fitting.fits_slot:
        walker = draw(st.sampled_from(("physical", "own")))
    others = draw(_tables_of_others(number, sound=sound, granule=fitting.granule))
    pieces = (*draw(leaves(granule=fitting.granule)), *others)
    marked, hardware_ad = draw(st.booleans()), draw(st.integers(0, 3)) == 3
    return Stage(kind, pieces, walker, hardware_ad=hardware_ad and kind == "paged", marked=marked, format=form)


@st.composite
def recipes(
    draw: DrawFn,
    /,
    *,
    min_stages: int = 1,
    max_stages: int = 4,
    memory: SearchStrategy[int] | None = None,
    **options: Any,
) -> Recipe:
    """A stack of up to four stages, over a memory (perhaps a short one), over two, or open below; few are deep.

    ``options`` go to `stages`: which kinds, which ``formats`` of tables.

    >>> from hypothesis import find
    >>> [stage.kind for stage in find(recipes(min_stages=2), lambda recipe: not recipe.split).stages]
    ['paged', 'paged']
    """
    depths = [depth for depth in (1, 2, 2, 2, 3, 3, 4) if min_stages <= depth <= max_stages]
    count = draw(st.sampled_from(depths))
    split = not draw(st.sampled_from(_MOSTLY))
    kinds = [{"kinds": ("router",)} if split and number + 1 == count else {} for number in range(count)]
    drawn = tuple(draw(stages(number, **{**options, **kinds[number]})) for number in range(count))
    sizes = st.sampled_from((0, 0, *(TABLES + 4 * SLOT,) * 5, DATA - 0x800)) if memory is None else memory
    return Recipe(drawn, draw(sizes), split)
