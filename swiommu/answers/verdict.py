"""The verdict in a sentence or two (rule 23): what each way needs, what translation buys and costs; losses and gains.

A difference of one request, or under 1 % of the offered bytes, is a tie; so is a need that differs by under 1 %.
Isolation is named, never ranked: whether it is needed is for the reader to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiommu.answers.cost import BAND
from swiommu.replay import AS_RECORDED
from swiommu.requests import GENERATED, RequestKind
from swiommu.words import counted, mib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.answers.cost import CostVector
    from swiommu.answers.row import Row
    from swiommu.replay import MemoryPlan
    from swiommu.requests import Workload

__all__ = ["best_designs", "verdict_of"]


def verdict_of(
    workload: Workload,
    plan: MemoryPlan,
    rows: Sequence[Row],
    *,
    cost: CostVector | None = None,
    require_isolation: bool = False,
) -> str:
    """The sentences for these rows; what was not run is not judged.

    ``require_isolation`` leaves out what can't enforce it; with ``cost`` the best two are compared by price as well.
    """
    designs = [row for row in rows if row.name != AS_RECORDED]
    if not designs:
        return "No design was asked for: this is what was recorded."
    if require_isolation:
        fit = [row for row in designs if row.enforces == "yes"]
        if not fit:
            return f"Isolation is required, and none of these designs enforces it: {_names(designs)}."
        rest = verdict_of(workload, plan, fit, cost=cost)
        return f"Isolation is required: only {_names(fit)} can enforce it. {rest}"
    without, with_ = best_designs(workload, designs)
    whose = "was asked for" if workload.mode == GENERATED else "the kernel served"
    first, *second = [*_needs(without, with_, whose), *_losses(designs, plan)] or [""]
    first = ": ".join(filter(None, (first, _hardware(without, with_, workload))))
    if workload.censored:
        second.append(_censored(workload.censored, without, with_))
    sentences = [f"{clause[:1].upper()}{clause[1:]}." for clause in (first, "; ".join(second)) if clause]
    if cost is not None:
        sentences += priced(without[:1] + with_[:1], cost)
    if workload.count(RequestKind.USERMAP) and any(row.not_applicable for row in designs):
        sentences.append("User-space mappings need translation: designs without it can't be compared on them.")
    return " ".join(sentences)


def best_designs(
    workload: Workload, rows: Sequence[Row], *, require_isolation: bool = False
) -> tuple[list[Row], list[Row]]:
    """The best designs without translation hardware and those with it, ties included, in the order of the table.

    They lose as little as the one that loses least, and of these need as little as the one that needs least. The
    recording's own row is no design; ``require_isolation`` leaves out designs that can't enforce it.
    """
    designs = [row for row in rows if row.name != AS_RECORDED and (row.enforces == "yes" or not require_isolation)]
    without, with_ = ([row for row in designs if row.has_hardware is side] for side in (False, True))
    return _best(without, workload), _best(with_, workload)


def _best(rows: Sequence[Row], workload: Workload) -> list[Row]:
    """Who ties with the fewest losses, and then with the least need; a tie is no order, so who is beaten is not asked.

    Where any need is known, a design without one is not among the best.
    """
    if not rows:
        return []
    least = min(rows, key=lambda row: (row.lost, row.lost_bytes))
    fewest = [row for row in rows if _tie(row, least, workload)]
    known = [(row, row.bytes_needed) for row in fewest if row.bytes_needed is not None]
    if not known:
        return fewest
    enough = min(needed for _, needed in known)
    return [row for row, needed in known if (needed - enough) * 100 < needed]


def _tie(row: Row, other: Row, workload: Workload) -> bool:
    """Whether the losses are as good as equal: within one request, or 1 % of the offered bytes."""
    offered = sum(request.size for request in workload.requests)
    return abs(row.lost - other.lost) <= 1 or abs(row.lost_bytes - other.lost_bytes) * 100 < offered


def _needs(without: Sequence[Row], with_: Sequence[Row], whose: str) -> list[str]:
    """What it takes to lose nothing."""
    parts = [
        f"{mib(rows[0].bytes_needed)} {how} ({_names(rows)})"
        for rows, how in ((without, "without translation hardware"), (with_, "with it"))
        if rows and rows[0].bytes_needed is not None
    ]
    if not parts:
        return []
    if not (without and without[0].bytes_needed is not None):
        parts = [part.replace("with it", "with translation hardware") for part in parts]
    return [f"to lose nothing that {whose} takes {' and '.join(parts)}"]


def _losses(designs: Sequence[Row], plan: MemoryPlan) -> list[str]:
    """What is lost at the memory of the table; that nothing is lost is said where no need says so."""
    where = f"in {mib(plan.bytes)} ({plan.mode})" if plan.bytes else f"without an area ({plan.mode})"
    losing = [row for row in designs if row.lost and row.same_as is None]
    if losing:
        names: dict[str, list[str]] = {}
        for row in losing:
            names.setdefault(_lost(row), []).append(row.name)
        clause = f"{where} {_and([_lose(each, lost) for lost, each in names.items()])}"
        if any(row.lost_by_kind["MAP"] for row in losing if not (row.has_hardware or _bounces(row))):
            clause += " (a MAP beyond its device's mask needs translation or a bounce buffer)"
        return [clause]
    if any(row.bytes_needed is not None for row in designs):
        return []
    unharmed = [row.name for row in designs if not row.not_applicable]
    if len(unharmed) == len(designs) > 2:
        return [f"{where} no design loses anything"]
    return [f"{where} {_and(unharmed)} {'loses' if len(unharmed) == 1 else 'lose'} nothing"] if unharmed else []


def _bounces(row: Row) -> bool:
    """Whether copies went through bounce buffers; a design that lends copies the pages that it moves."""
    return bool(row.bytes_copied) and row.lending is None


def _lose(names: Sequence[str], lost: str) -> str:
    return f"{names[0]} loses {lost}" if len(names) == 1 else f"{_and(names)} lose {lost} each"


def _lost(row: Row) -> str:
    return _and([counted(number, kind) for kind, number in row.lost_by_kind.items() if number])


def _censored(censored: int, without: Sequence[Row], with_: Sequence[Row]) -> str:
    """Requests whose end nobody knows, and what the best ways could at least have begun of them."""
    best = [max(rows, key=lambda row: row.gained) for rows in (without, with_) if rows]
    gaining = [row for row in best if row.gained]
    served = [
        f"{row.name}{'' if number else ' could have served'} {row.gained:,}" for number, row in enumerate(gaining)
    ]
    could = f", of which {_and(served)}" if served else ""
    return f"{counted(censored, 'request')} failed when recorded{could}: demand is understated"


def _hardware(without: Sequence[Row], with_: Sequence[Row], workload: Workload) -> str:
    """What translation buys and what it costs; nothing to say where only one of the two ways was run."""
    if not without or not with_:
        return ""
    row = with_[0]
    costs = [f"{counted(row.unmaps, 'unmap')} with {counted(row.invalidations or 0, 'invalidation')}"]
    if row.table_bytes:
        costs.append(f"{mib(row.table_bytes)} of page tables")
    if row.walk_refs_per_mib:
        costs.append(f"{row.walk_refs_per_mib:,.0f} page-table reads per MiB touched cold")
    return f"translation buys {_bought(without[0], row, workload)}, and costs {_and(costs)}"


def _bought(without: Row, with_: Row, workload: Workload) -> str:
    """Isolation always; requests that are lost without it; memory, if both needs are known."""
    bought, instead = [], ""
    if with_.lost < without.lost and not _tie(with_, without, workload):
        bought.append(f"{counted(without.lost - with_.lost, 'request')} that {without.name} loses")
    if without.bytes_needed is not None and with_.bytes_needed is not None:
        saved = without.bytes_needed - with_.bytes_needed
        if abs(saved) * 100 < without.bytes_needed:
            instead = " but no memory (a tie)"
        elif saved < 0:
            instead = f" but no memory ({mib(-saved)} more are needed)"
        else:
            bought.append(f"{mib(saved)} ({100 * saved / without.bytes_needed:.0f} %)")
    return f"{_and([*bought, 'isolation'])}{instead}"


def priced(rows: Sequence[Row], cost: CostVector) -> list[str]:
    """What the best designs cost at these prices; "undecided" where a factor of four in the prices turns it over."""
    known = [(row, counts) for row in rows if (counts := row.priced()) is not None]
    guesses = sorted({price.source for price in cost.prices.values()})
    parts = [f"{row.name} costs {cost.cost(counts):,.0f} {cost.unit}" for row, counts in known]
    if not parts:
        return []
    sentence = f"At the given prices (sources: {', '.join(guesses)}) {_and(parts)}"
    if len(known) == 2 and not cost.is_decided(known[0][1], known[1][1]):
        return [f"{sentence}: undecided, as prices wrong by up to a factor of {BAND} would turn it over."]
    return [f"{sentence}."]


def _names(rows: Sequence[Row]) -> str:
    """The rows' names; one that merely repeats another is left to the table."""
    return ", ".join(row.name for row in rows if row.same_as is None or len(rows) == 1)


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
