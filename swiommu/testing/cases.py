"""Each law with what it is tried on: `CASES` draws stacks, domains, caches and changes, and asks the law about them.

The page tables in these are of all formats, most of them "tiny"; `cases_of` draws those that it is told.

A case is a strategy of plain values and a function that builds what they say and runs the check, so that it can be run
as a test, with a bug planted, or for long.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs
from hypothesis import assume
from hypothesis import strategies as st

from swiommu.address import PAGE_SIZE, Access, BusSpace, Prot
from swiommu.errors import AddressInUse
from swiommu.layer import CacheShape, Marks, Node, Paged, ReplacementPolicy, Shadow, TranslationCache, Walker
from swiommu.pagetable import MOCK, CountingTables, Format, Level, RadixTable
from swiommu.testing import laws
from swiommu.testing.case import Case
from swiommu.testing.domain_cases import domain_cases_of
from swiommu.testing.format_cases import format_cases_of
from swiommu.testing.formats import DRAWN, LAW_FORMATS, SIGNED, TINY, leaves_empty_tables
from swiommu.testing.probes import Probe
from swiommu.testing.stacks import BASES, DATA, SLOT, TABLES, Patch, Recipe, Stack, Stage, chained
from swiommu.testing.strategies import probes, prots, stages
from swiommu.testing.strategies import recipes as _recipes
from swiommu.testing.twin import Twin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["CASES", "cases_of"]

_OPEN = st.just(0)
_SOLID = st.sampled_from((0, TABLES + 4 * SLOT, TABLES + 4 * SLOT))
_PLACED = ("paged", "paged", "paged", "window", "flat", "router", "shadow")  # no identity: each space lies elsewhere
_UPPER = (1 << 64) - (1 << 25)  # an input of the upper half of every format that has one
_WITH_TABLE = ("paged", "paged", "paged", "paged", "flat", "window")


def _identity(recipe: Recipe, asked: list[Probe]) -> None:
    laws.identity(recipe.build().path, asked)


def _zero(recipe: Recipe, asked: list[Probe]) -> None:
    laws.zero(recipe.build().path, asked)


def _associativity(recipe: Recipe, asked: list[Probe]) -> None:
    stack = recipe.build()
    laws.associativity(stack.parts, asked, [stack.linked()[0]])


def _pipeline(recipe: Recipe, asked: list[Probe], cut: int) -> None:
    stack = recipe.build()
    cut = 1 + cut % (len(stack.parts) - 1)
    laws.pipeline(chained(stack.parts[:cut]), chained(stack.parts[cut:]), asked)


def _flattening(recipe: Recipe, asked: list[Probe]) -> None:
    formats = {stage.format if stage.kind == "paged" else "" for stage in recipe.stages}
    same = len(formats) == 1 and formats != {""}
    form = LAW_FORMATS[formats.pop()] if same else TINY
    laws.flattening(recipe.build().path, asked, format=form, one_geometry=same)


def _shadow(recipe: Recipe, asked: list[Probe], changes: list[tuple[int, Patch, str]]) -> None:
    stack = recipe.build()
    stand_in = Shadow("shadow", stack.path, format=TINY)
    todo, near = [], list(asked)
    for number, piece, what in changes:
        stage = number % len(stack.nodes)
        if stack.has_table(stage):
            piece = recipe.stages[stage].fitted(piece)  # noqa: PLW2901 - in whole pages of the stage
            existing = _existing(recipe, stack, stage, piece)
            todo.append(_change(stack, stage, existing, piece, what))
            near += _leading_to(stack, stage, piece) + _leading_to(stack, stage, existing)
    laws.shadow(stand_in, todo, near)
    stand_in.check()


def _change(stack: Stack, stage: int, existing: Patch, piece: Patch, what: str) -> Callable[[], None]:
    # Map a piece, if there is room, or unmap one that was there at the beginning, or let it lead elsewhere. Whatever
    # the rules of the format make of that, a leaf that goes whole or live pages that are replaced: a shadow follows.
    def change() -> None:
        if what != "map":
            stack.unmap(stage, existing)
        with suppress(AddressInUse):
            if what != "unmap":
                stack.map(stage, piece if what == "map" else _moved(existing, piece))

    return change


def _existing(recipe: Recipe, stack: Stack, stage: int, piece: Patch) -> Patch:
    # One of a stage's pieces, as chance has it, if possible one that the top leads to; else what was drawn.
    data = [each for each in recipe.stages[stage].pieces if each.start < DATA]
    ways, base = _ways(stack, stage), stack.bases[stage]
    reached = [
        each
        for each in data
        if any(output < base + each.start + each.size and base + each.start < output + size for _, output, size in ways)
    ]
    chosen = reached or data or [piece]
    return chosen[piece.start // PAGE_SIZE % len(chosen)]


def _ways(stack: Stack, stage: int) -> list[tuple[int, int, int]]:
    # Which data addresses of the top lead to which inputs of a stage.
    return list(Twin(stack.layers[:stage]).pieces(stack.bases[0], DATA))


def _moved(piece: Patch, to: Patch) -> Patch:
    return piece._replace(output=to.output // piece.page * piece.page, prot=to.prot)


def _leading_to(stack: Stack, stage: int, piece: Patch) -> list[Probe]:
    # Where at the top accesses start that pass a piece of a stage: its first byte, its last, and the next one.
    start = stack.bases[stage] + piece.start
    bytes_, ways = (start, start + piece.size - 1, start + piece.size), _ways(stack, stage)
    found = [at + byte - output for byte in bytes_ for at, output, size in ways if output <= byte < output + size]
    return [Probe(at) for at in found[:6]]


def _window_algebra(base: int, size: int, one: int, two: int, lower: tuple[int, int]) -> None:
    assume(lower[0] + two >= 0 and base + one >= 0)
    laws.window_algebra(base, size, (one, two), lower)


def _monotonicity(recipe: Recipe, asked: list[Probe], stage: int, piece: Patch, existing: bool) -> None:
    stack = recipe.build()
    stage %= len(stack.nodes)
    assume(stack.has_table(stage))
    piece = recipe.stages[stage].fitted(piece)
    if existing:  # one of the stage's own is left out, so that the law is tried with neighbours around
        piece = _existing(recipe, stack, stage, piece)
        recipe = _without(recipe, stage, piece)
        stack = recipe.build()
    if stack.replaces_live_pages(stage, piece) or _taken(recipe.stages[stage], piece):
        return  # the law is about an empty range: such a map is refused, or takes away what was there
    if leaves_empty_tables(recipe.stages[stage].form):
        stack.map(stage, piece)
        stack.unmap(stage, piece)
    laws.monotonicity(
        stack.path,
        asked + _leading_to(stack, stage, piece),
        lambda: stack.map(stage, piece),
        lambda: stack.unmap(stage, piece),
        layer=stack.nodes[stage].name,
        state=lambda: stack.table_bytes(stage),
    )


def _without(recipe: Recipe, number: int, piece: Patch) -> Recipe:
    stages = list(recipe.stages)
    left = tuple(each for each in stages[number].pieces if each != piece)
    stages[number] = attrs.evolve(stages[number], pieces=left)
    return attrs.evolve(recipe, stages=tuple(stages))


def _taken(stage: Stage, piece: Patch) -> bool:
    return any(each.start < piece.start + piece.size and piece.start < each.start + each.size for each in stage.pieces)


def _permission(recipe: Recipe, asked: list[Probe], some: list[Prot]) -> None:
    upper, lower = recipe.build().nodes
    laws.permission(upper, lower, asked, some)


def _attribution(recipe: Recipe, asked: list[Probe]) -> None:
    laws.attribution(recipe.build().parts, asked)


def _no_leak(recipe: Recipe, asked: list[Probe]) -> None:
    stack = recipe.build()
    foreign = [
        BusSpace(f"space {number}", width=48).at(base + probe.start % DATA)
        for number, base in enumerate(stack.bases[1:], 1)
        for probe in asked[:2]
    ]
    laws.no_leak(stack.parts, asked, foreign)


def _segments(recipe: Recipe, asked: list[Probe]) -> None:
    laws.segments(recipe.build().path, asked)


def _dirty(recipe: Recipe, asked: list[Probe]) -> None:
    stack = recipe.build()
    for node in stack.nodes:
        if isinstance(node.layer, Paged):
            node.layer.marks = Marks()
            node.layer.keeps_marks = True
    laws.dirty(stack.parts, asked)


def _cost(recipe: Recipe, asked: list[Probe]) -> None:
    laws.cost(recipe.build().parts, asked)


def _uniform(shape: list[tuple[int, bool]], page: int) -> None:
    nodes = []
    for number, (levels, nested) in enumerate(shape):
        table = RadixTable(_levels(levels), CountingTables())
        table.map_run(0, 0, PAGE_SIZE, 16, Prot.READ | Prot.WRITE)
        nodes.append(Node(Paged(f"s{number}", table), walker=Walker.NESTED if nested else Walker.PHYSICAL))
    laws.cost(nodes, [Probe(page * PAGE_SIZE)], [levels for levels, _ in shape])


def _levels(count: int) -> Format:
    # A format with so many levels of 16 entries.
    levels = tuple(Level(8 + 4 * n, 4, n == 1) for n in range(count, 0, -1))
    form: Format = attrs.evolve(MOCK, name=f"levels{count}", levels=levels)
    return form


def _renaming(recipe: Recipe, asked: list[Probe], shifts: list[int]) -> None:
    # The top and the bottom stay where they are, and both sides of an identity move together.
    same = [number for number, stage in enumerate(recipe.stages) if stage.kind == "identity"]
    moved = [0, *(shift << 20 for shift in shifts[: len(recipe.stages) - 1]), 0]
    for number in same:
        moved[number + 1] = moved[number]
    moved[-1] = 0
    for number in reversed(same):
        moved[number] = moved[number + 1]
    laws.renaming(recipe.build().path, recipe.build(shifts=moved).path, asked)


def _caches(
    recipe: Recipe,
    asked: list[Probe],
    geometry: list[tuple[int | None, int | None, int, str]],
    stage: int,
    where: Patch,
    moves: bool,
    linked: bool,
) -> None:
    stack = recipe.build()
    stage %= len(stack.nodes)
    assume(stack.has_table(stage))
    assume(any(each.start < DATA for each in recipe.stages[stage].pieces))
    where = recipe.stages[stage].fitted(where)
    piece = _existing(recipe, stack, stage, where)
    nodes = stack.linked() if linked else stack.parts
    for node, (own, whole, walk_levels, policy) in zip(nodes, geometry, strict=False):
        # The first policy in one set, the others direct-mapped: any shape has to be as transparent.
        ways = None if policy is ReplacementPolicy.LRU else 1
        replacement = ReplacementPolicy(policy if own else "lru")
        walk = [CacheShape(own or None, ways if own else None, replacement)] * walk_levels
        node.tlb = None if own is None else TranslationCache(own or None, walk=walk)
        node.iotlb = None if whole is None else TranslationCache(whole or None, ways=ways if whole else None)

    def change() -> None:
        stack.unmap(stage, piece)
        if moves:
            stack.map(stage, _moved(piece, where))

    path = nodes[0] if linked else chained(nodes)
    changed = nodes[stage], stack.bases[stage] + piece.start, piece.size
    near = _leading_to(stack, stage, piece)
    near += [probe._replace(access=other) for probe in near[:1] for other in (Access.WRITE, Access.EXEC)]
    laws.cache_transparency(path, asked + near, change, changed)


@st.composite
def _pieces(draw: DrawFn) -> Patch:
    """One leaf somewhere in the data."""
    size = draw(st.sampled_from((1 << 12, 1 << 12, 1 << 14, 1 << 16)))
    start, output = (draw(st.integers(0, DATA // size - 1)) * size for _ in range(2))
    return Patch(start, output, size, draw(prots()), size)


@st.composite
def _entered_high(draw: DrawFn, formats: Sequence[str]) -> Recipe:
    """A stack whose top has the upper half of a sign-extended format's inputs for its space."""
    recipe = draw(_recipes(kinds=_PLACED, formats=formats))
    top = draw(stages(0, kinds=("paged",), formats=[name for name in formats if name in SIGNED] or SIGNED))
    upper: Recipe = attrs.evolve(recipe, stages=(top, *recipe.stages[1:]), bases=(_UPPER, *BASES[1:]))
    return upper


def _cases(names: Sequence[str]) -> list[Case]:
    recipes = partial(_recipes, formats=names)
    asked: SearchStrategy[list[Probe]] = probes()
    paged = recipes(kinds=_WITH_TABLE)
    aligned = recipes(kinds=_PLACED, memory=_SOLID, unit=PAGE_SIZE)
    shallow = recipes(kinds=_PLACED, memory=_SOLID, unit=PAGE_SIZE, max_stages=3)
    changes = st.tuples(st.integers(0, 3), _pieces(), st.sampled_from(("map", "unmap", "move")))
    room = st.sampled_from((None, 0, 0, 1, 3))  # no cache, any number of entries, few
    geometry = st.lists(
        st.tuples(room, room, st.integers(0, 3), st.sampled_from(list(ReplacementPolicy))),
        min_size=5,
        max_size=5,
    )
    place, delta = st.integers(0, 0x40).map(lambda n: n * 0x400), st.integers(-0x40, 0x40).map(lambda n: n * 0x400)
    length = st.integers(1, 0x40).map(lambda n: n * 0x400)
    stage, high = st.integers(0, 3), (_entered_high(names), probes(_UPPER))
    return [
        Case(1, "stacks", (recipes(), asked), _identity),
        Case(2, "stacks", (recipes(memory=_OPEN), asked), _zero),
        Case(3, "stacks", (recipes(min_stages=2), asked), _associativity),
        Case(4, "stacks", (recipes(min_stages=2), asked, stage), _pipeline),
        Case(5, "stacks", (aligned, asked), _flattening),
        Case(6, "stacks", (shallow, probes(max_size=3), st.lists(changes, min_size=1, max_size=3)), _shadow),
        Case(7, "windows", (place, length, delta, delta, st.tuples(place, length)), _window_algebra),
        Case(8, "tables", (paged, asked, stage, _pieces(), st.booleans()), _monotonicity),
        Case(
            9,
            "two stages",
            (recipes(min_stages=2, max_stages=2, memory=_OPEN), asked, st.lists(prots(), max_size=3)),
            _permission,
        ),
        Case(10, "stacks", (recipes(), asked), _attribution),
        Case(11, "stacks", (recipes(kinds=_PLACED), asked), _no_leak),
        Case(11, "stacks, entered in the upper half", high, _no_leak),
        Case(
            13,
            "caches",
            (
                recipes(kinds=_WITH_TABLE, sound=True, min_stages=2),
                probes(max_size=3),
                geometry,
                stage,
                _pieces(),
                st.booleans(),
                st.booleans(),
            ),
            _caches,
        ),
        Case(15, "stacks", (recipes(), asked), _segments),
        Case(15, "stacks, entered in the upper half", high, _segments),
        Case(16, "stacks", (paged, asked), _dirty),
        Case(20, "stacks", (recipes(), asked), _cost),
        Case(
            20,
            "uniform stacks",
            (st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=4), st.integers(0, 15)),
            _uniform,
        ),
        Case(22, "stacks", (recipes(), asked, st.lists(st.integers(0, 7), min_size=3, max_size=3)), _renaming),
    ]


def cases_of(formats: Sequence[str] = DRAWN) -> list[Case]:
    """Every law with what it is tried on, where page tables have the formats of these names in `LAW_FORMATS`.

    A name that is there more than once is drawn more often.

    >>> [case.about for case in cases_of(["vtd-ss-4"]) if case.number == 19]
    ['domains']
    >>> next(case for case in cases_of(["vtd-ss-4"]) if case.number == 5).hold(examples=3)
    """
    return [*_cases(formats), *domain_cases_of(formats), *format_cases_of(formats)]


CASES = cases_of()
"""Every law with what it is tried on, by number: page tables of all formats, most of them tiny."""
