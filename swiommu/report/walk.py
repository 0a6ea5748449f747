"""A walk as text: the stack, the way through it with every reference numbered, and who refuses what.

One line for each layer that is passed and one for each entry that is read, indented by how many walks are inside each
other. Where that would be more than a page, the inner walks are told by their numbers only.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from swiommu.answers.explain import letters, pages
from swiommu.layer import FaultClass, FaultKind, picture
from swiommu.words import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swiommu.answers.explain import Entry, Explanation, Visit, Way
    from swiommu.layer import Fault, Run

__all__ = ["blame", "headline", "outcome", "place", "references", "walk_text"]

MOST_LINES: Final = 100
_MOST_WAYS: Final = 4
_WIDTH: Final = 80
_VERBS: Final = {"r": "reads", "w": "writes", "x": "executes", "rw": "reads and writes"}
_DEEDS: Final = {"r": "reading", "w": "writing", "x": "executing"}


def walk_text(answer: Explanation, *, width: int = _WIDTH, depth: int | None = None) -> str:
    """The whole answer; walks nested deeper than ``depth`` are left out, by default as many as fit on a page or two.

    >>> from swiommu.address import Access
    >>> from swiommu.answers.explain import explain
    >>> from swiommu.stackfile import read_stack
    >>> print(walk_text(explain(read_stack("nested")["guest"], 0x10010, 8, Access.READ), depth=0))
    guest reads 8 bytes at iova 0x10010
    <BLANKLINE>
    guest      paged   mock, 48 to 52 bits, 13 leaves
    └─ host    paged   mock, 48 to 52 bits, 260 leaves
       └─ ram  memory  [0x80000000, 0xc0000000)
    <BLANKLINE>
       refs  the way
             guest  iova 0x10010 -> ipa 0x40800010
        1-5    at ipa 0x40000000 (pa 0x90000000): next table at ipa 0x40001000
       6-10    at ipa 0x40001000 (pa 0x90001000): next table at ipa 0x40002000
      11-15    at ipa 0x40002000 (pa 0x90002000): next table at ipa 0x40003000
      16-20    at ipa 0x40003080 (pa 0x90003080): page of 4 KiB, rw
             host   ipa 0x40800010 -> pa 0x80800010
         21    at pa 0x80000000: next table at pa 0x80001000
         22    at pa 0x80001008: next table at pa 0x80002000
         23    at pa 0x80002020: next table at pa 0x80004000
         24    at pa 0x80004000: page of 4 KiB, rw
             ram    pa 0x80800010
    <BLANKLINE>
    All 8 bytes are reached: iova 0x10010 leads to pa 0x80800010 in ram; a cache
    could keep it as a block of 4 KiB.
    24 refs: 4 to tables of guest, 20 to tables of host (16 for entries of guest).
    A read, a write and an execution of the first byte would all be allowed.
    """
    shown = answer.ways[:_MOST_WAYS]
    if depth is None:
        depth = next((deep for deep in (9, 2, 1) if _length(shown, deep) <= MOST_LINES), 0)
    lines = [headline(answer), "", picture(answer.top, width=width), "", "   refs  the way"]
    for number, way in enumerate(shown):
        if number:
            lines.append("")
        lines += _way(answer, way, 0, depth)
    left = len(answer.ways) - len(shown)
    if left:
        lines += ["", f"         ... and {left} more {'ways' if left > 1 else 'way'}, page by page"]
    lines.append("")
    for sentence in (outcome(answer), references(answer), blame(answer)):
        lines += textwrap.wrap(sentence, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def headline(answer: Explanation) -> str:
    """Who does what, where."""
    what = letters(answer.wanted)
    verb = _VERBS.get(what, f"accesses ({what})")
    word = "iova" if answer.word(answer.top.name) != "pa" else "pa"
    stack = f" in stack {clean(answer.stack)}" if answer.stack else ""
    return f"{clean(answer.top.name)} {verb} {_bytes(answer.size)} at {word} {answer.iova:#x}{stack}"


def outcome(answer: Explanation) -> str:
    """What became of the access, in a sentence or two."""
    fault, reached = answer.answer.fault, answer.answer.size
    if fault is None:
        return f"{_reached(answer)}: {_runs(answer)}."
    before = f"{_reached(answer)}: {_runs(answer)}. Then: " if reached else ""
    return f"{before}{_fault(answer, fault)}"


def references(answer: Explanation) -> str:
    """What it cost, by the layer whose entries were read."""
    total = answer.answer.refs
    if not total:
        return "No refs: no table was read."
    own = answer.refs_by_layer()
    on_behalf = _for_others(answer)
    parts = []
    for layer, count in own.items():
        others = ", ".join(_share(name, refs, count) for name, refs in on_behalf[layer].items())
        parts.append((layer, f"{count} to tables of {clean(layer)}" + (f" ({others})" if others else "")))
    order = {name: number for number, name in enumerate(answer.nodes)}
    said = ", ".join(text for _, text in sorted(parts, key=lambda part: order.get(part[0], len(order))))
    return f"{total} {'refs' if total > 1 else 'ref'}: {said}."


def _share(reader: str, refs: int, count: int) -> str:
    return f"{'all' if refs == count else refs} for entries of {clean(reader)}"


def blame(answer: Explanation) -> str:
    """Who would refuse other accesses to the first byte."""
    words = {"r": "a read", "w": "a write", "x": "an execution"}
    refused = {letter: fault for letter, fault in answer.refusals.items() if fault is not None}
    if not refused:
        return "A read, a write and an execution of the first byte would all be allowed."
    first = next(iter(refused.values()))
    if len(refused) == len(words) and len({(fault.layer, fault.kind) for fault in refused.values()}) == 1:
        return f"Whatever was wanted of the first byte, {clean(first.layer)} would be to blame ({first.kind})."
    said = [
        f"{words[letter]} {'allowed' if fault is None else f'refused by {clean(fault.layer)} ({fault.kind})'}"
        for letter, fault in answer.refusals.items()
    ]
    said[0] = said[0].replace(words["r"], f"{words['r']} would be", 1)
    return f"Of the first byte, {', '.join(said)}."


def place(answer: Explanation, layer: str | None, address: int) -> str:
    """An address with the word for where it is."""
    return f"{answer.word(layer)} {address:#x}"


def _reason(answer: Explanation, fault: Fault) -> str:
    """Why the layer refused, without its name."""
    where = place(answer, fault.layer, fault.address or 0)
    if fault.fault_class is FaultClass.WALK:
        deed = "read and written (accessed and dirty bits)" if fault.implicit_write else "read"
        where += f", where an entry of {clean(fault.walk_of or '')} was to be {deed}"
    if fault.kind is FaultKind.TRANSLATION:
        return f"nothing is mapped at {where}"
    if fault.kind is FaultKind.PERMISSION:
        wanted = letters(fault.access)
        if fault.fault_class is FaultClass.WALK:
            wanted = "rw" if fault.implicit_write else "r"
        return f"it does not allow {' and '.join(_DEEDS[letter] for letter in wanted)} at {where}"
    if fault.kind is FaultKind.RANGE:
        return f"it takes no such address as {where}"
    return f"{where} leads to more bits than it puts out"


def _fault(answer: Explanation, fault: Fault) -> str:
    return f"{clean(fault.layer)} is to blame ({fault.kind} fault): {_reason(answer, fault)}."


def _reached(answer: Explanation) -> str:
    size = answer.answer.size
    if answer.size == 1:
        return "It is reached"
    return f"All {size} bytes are reached" if size == answer.size else f"{size} of {answer.size} bytes are reached"


def _runs(answer: Explanation) -> str:
    runs = answer.answer.runs
    said = [_run(answer, run) for run in runs[:_MOST_WAYS]]
    if len(runs) > _MOST_WAYS:
        said.append(f"and {len(runs) - _MOST_WAYS} runs more")
    return "; ".join(said)


def _run(answer: Explanation, run: Run) -> str:
    there = f"pa {run.output:#x} in {clean(run.memory)}" if run.memory else f"{run.output:#x}, where the stack ends"
    what = f"{place(answer, answer.top.name, run.input)}"
    if len(answer.answer.runs) > 1:
        return f"{what} ({_bytes(run.size)}) leads to {there}"
    kept = f"; a cache could keep it as a block of {pages(run.page_size)}" if answer.answer.refs else ""
    return f"{what} leads to {there}{kept}"


def _bytes(count: int) -> str:
    return f"{count} byte" if count == 1 else f"{count} bytes"


def _for_others(answer: Explanation) -> dict[str, dict[str, int]]:
    """Of the references to a layer's tables, those that served to find an entry of a layer above, directly."""
    counts: dict[str, dict[str, int]] = {layer: {} for layer in answer.refs_by_layer()}

    def count(way: Way, reader: str | None) -> None:
        for visit in way:
            for entry in visit.entries:
                if entry.ref is not None and reader is not None:
                    mine = counts[visit.layer]
                    mine[reader] = mine.get(reader, 0) + 1
                count(entry.inner, visit.layer)

    for way in answer.ways:
        count(way, None)
    return counts


# -- the way, line by line


def _length(ways: list[Way], depth: int) -> int:
    return sum(
        1 + len(visit.entries) + sum(_length([entry.inner], depth - 1) for entry in visit.entries if depth)
        for way in ways
        for visit in way
    )


def _way(answer: Explanation, way: Way, nesting: int, depth: int) -> Iterator[str]:
    names = max(len(clean(visit.layer)) for visit in way)
    for visit, lower in zip(way, [*way[1:], None], strict=True):
        if nesting and answer.word(visit.layer) == "pa" and not visit.fault:
            continue  # the entry's own line says where in memory it is
        yield _line("", nesting, f"{clean(visit.layer):{names}}  {_passage(answer, visit, lower)}")
        for entry in visit.entries:
            yield from _entry(answer, visit, entry, nesting, depth)
        if visit.fault and answer.answer.fault is not None:
            fault = answer.answer.fault  # of a layer that a shadow stands for, it may be
            yield _line("FAULT", nesting, f"  {fault.kind} fault of {clean(fault.layer)}")


def _passage(answer: Explanation, visit: Visit, lower: Visit | None) -> str:
    text = place(answer, visit.layer, visit.address)
    there = "nowhere" if visit.output is None else place(answer, lower.layer if lower else None, visit.output)
    if there != text:
        text += f" -> {there}"
    return f"{text} (cached)" if visit.cached else text


def _entry(answer: Explanation, visit: Visit, entry: Entry, nesting: int, depth: int) -> Iterator[str]:
    hidden = depth == 0 and any(inner.entries for inner in entry.inner)
    if not hidden:
        yield from _way(answer, entry.inner, nesting + 1, depth - 1) if entry.inner else ()
    word = answer.word_of_tables(visit.layer)
    found = f"{word} {entry.address:#x}"
    if entry.output is not None and (entry.output != entry.address or word != "pa"):
        found += f" (pa {entry.output:#x})"
    if entry.value is None:
        if hidden:
            yield _line("FAULT", nesting, f"  at {found}: a layer below goes no further")
        return
    number = "hit" if entry.ref is None else str(entry.ref)
    if hidden:
        number = f"{_first_ref(entry)}-{number}"
    yield _line(number, nesting, f"  at {found}: {answer.meaning(visit, entry) or hex(entry.value)}")


def _first_ref(entry: Entry) -> int | None:
    for visit in entry.inner:
        for inner in visit.entries:
            return _first_ref(inner) or inner.ref
    return entry.ref


def _line(number: str, nesting: int, text: str) -> str:
    return f"{number:>7}  {'  ' * nesting}{text}"
