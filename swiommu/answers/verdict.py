"""The verdict in sentences: what each side needs, what is lost and why, what translation buys and costs, prices.

In a tie each design has its own number. Isolation is named, never ranked: whether it is needed is for the reader to
say.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from swiommu.answers.best import best_designs, fewest_lost, is_tie, sides
from swiommu.answers.cost import BAND
from swiommu.replay import AS_RECORDED
from swiommu.replay.memory_plan import STEP
from swiommu.requests import GENERATED, RequestKind
from swiommu.words import counted, mib

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from swiommu.answers.cost import CostVector
    from swiommu.answers.row import Row
    from swiommu.replay import MemoryPlan
    from swiommu.requests import Workload

__all__ = ["verdict_of"]

T = TypeVar("T")
_ANYWHERE = (RequestKind.MAP,)  # without translation a MAP takes no memory: what is lost is lost in any memory
_HERE = tuple(kind for kind in RequestKind if kind not in _ANYWHERE)


def verdict_of(
    workload: Workload,
    plan: MemoryPlan,
    rows: Sequence[Row],
    *,
    cost: CostVector | None = None,
    require_isolation: bool = False,
) -> str:
    """The sentences for these rows; what was not run is not judged.

    ``require_isolation`` leaves out what can't enforce it; with ``cost`` those that lose least are ranked by price too.
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
    others = len(workload.requests) - workload.count(RequestKind.USERMAP)
    if not others:  # nothing is left that designs without translation could be judged by
        without = []
    sentences = [
        *_user_mappings(workload, designs, others),
        *_needs(workload, without, with_, others),
        *_losses(workload, designs, plan),
        *_censored(workload, designs, plan),
        *_bought(workload, without, with_),
        *_costs(workload, "it" if without and with_ else "translation", with_, cost),
    ]
    if cost is not None:
        sentences += priced([row for side in sides(designs) for row in fewest_lost(side, workload)], cost)
    return " ".join(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences)


# -- needs -------------------------------------------------------------------------------------------------------------


def _user_mappings(workload: Workload, designs: Sequence[Row], others: int) -> list[str]:
    """What user space maps can be served by translation only; by what the designs without it are judged."""
    number, total = workload.count(RequestKind.USERMAP), len(workload.requests)
    if not number or not any(row.not_applicable for row in designs):
        return []
    what = "mappings that user space asked for, at IOVAs of its own choice"
    if others:
        judged = f"the designs without it are judged by {_others(others)}"
        return [f"{number:,} of {total:,} requests are {what}: they need translation hardware, and {judged}"]
    serving = _names([row for row in designs if row.has_hardware])
    return [
        f"all {total:,} requests are {what}: only translation hardware can serve them ({serving or 'not asked for'})"
    ]


def _needs(workload: Workload, without: Sequence[Row], with_: Sequence[Row], others: int) -> list[str]:
    """What it takes to lose nothing, each design with its own number and what still fails in that memory."""
    parts: list[str] = []
    for rows, how in ((without, "without translation hardware"), (with_, "with it")):
        known = [row for row in rows if row.bytes_needed is not None]
        needs = [_need(names, row, workload) for names, row in _alike(known, _need_key)]
        if needs:
            parts.append(f"{_and(needs)} {how if parts or rows is without else 'with translation hardware'}")
    if not parts:
        return []
    nothing = f"to lose nothing that {'was asked for' if workload.mode == GENERATED else 'the kernel served'}"
    if without and others < len(workload.requests):
        nothing += f" of {_others(others)}"
    return [f"{nothing}, {'; '.join(parts)}"]


def _others(number: int) -> str:
    return f"the other {number:,}" if number > 1 else "the one other request"


def _need_key(row: Row) -> tuple[object, ...]:
    return row.bytes_needed, row.pool_bytes, row.failed_at_need


def _need(names: Sequence[str], row: Row, workload: Workload) -> str:
    size = mib(row.bytes_needed or 0) + (" or less" if row.bytes_needed == STEP else "")
    pool = f" beside a bounce pool ({_pool(row)})" if row.pool_bytes else ""
    fails = ""
    if workload.censored and row.failed_at_need is not None:
        fails = f" ({row.failed_at_need:,} of all requests still {'fails' if row.failed_at_need == 1 else 'fail'})"
        fails = fails if row.failed_at_need else " (none fails)"
    return f"{_and(names)} {'needs' if len(names) == 1 else 'need'} {size}{pool}{_each(names)}{fails}"


# -- losses ------------------------------------------------------------------------------------------------------------


def _losses(workload: Workload, designs: Sequence[Row], plan: MemoryPlan) -> list[str]:
    """What is lost and why, in the memory of the table and in any; that nothing is, where no need says so."""
    told = [row for row in designs if row.same_as is None]
    here = _lose(told, lambda row: tuple(RequestKind) if row.has_hardware else _HERE)
    anywhere = _lose(told, lambda row: () if row.has_hardware else _ANYWHERE)
    sentences = [f"{_where(plan)} {_and(here)}"] if here else []
    sentences += [f"in any memory {_and(anywhere)}"] if anywhere else []
    if sentences or any(row.bytes_needed is not None for row in designs):
        return sentences
    served = " that the kernel served" if workload.censored else ""  # else there is nothing besides
    unharmed = [row for row in designs if not row.not_applicable]
    if len(unharmed) == len(designs) > 2:
        return [f"{_where(plan)} no design loses anything{served}"]
    names = [row.name for row in unharmed]
    return [f"{_where(plan)} {_and(names)} {'loses' if len(names) == 1 else 'lose'} nothing{served}"] if names else []


def _lose(rows: Sequence[Row], kinds_of: Callable[[Row], Collection[RequestKind]]) -> list[str]:
    losing = [(row, lost) for row in rows if (lost := _lost(row, kinds_of(row)))]
    return [
        f"{_and(names)} {'loses' if len(names) == 1 else 'lose'} {lost[0]}{_each(names)}{lost[1]}"
        for names, lost in _grouped((row.name, lost) for row, lost in losing)
    ]


def _lost(row: Row, kinds: Collection[RequestKind]) -> tuple[str, str] | None:
    """(how many of each kind, why): what a design lost of these kinds; None for nothing."""
    lost = {kind: row.lost_by_kind[kind.value] for kind in kinds if row.lost_by_kind[kind.value]}
    if not lost:
        return None
    whys = {kind: why for kind in lost if (why := row.losses.sentence(kind, pool=row.pool_bytes))}
    why = "; ".join(whys.values() if len(lost) == 1 else (f"{kind.value}s: {why}" for kind, why in whys.items()))
    number = _and([counted(number, kind.value) for kind, number in lost.items()])
    return number, f" ({why})" if why else ""


def _censored(workload: Workload, designs: Sequence[Row], plan: MemoryPlan) -> list[str]:
    """What each design could at least have begun of the requests whose end the recording does not have."""
    number = workload.censored
    if not number:
        return []
    told = [(row.name, (row.gained, _unserved(row))) for row in designs if row.same_as is None]
    parts: list[str] = []
    for names, (gained, why) in _grouped(told):
        if number == 1:
            could = "could serve it" if gained else "could not serve it"
        else:
            how_many = "all" if gained == number else f"{gained:,}" if gained else "none"
            could = how_many if parts else f"could serve {how_many} of these"
        parts.append(f"{_and(names)} {could}{why}")
    failed = f"{counted(number, 'request')} failed when recorded, so real demand may be higher"
    return [failed, f"{_where(plan)} {_and(parts)}"]


def _unserved(row: Row) -> str:
    """Why what failed when recorded fails here too."""
    unserved = row.failures.without(row.losses)
    told = [unserved.sentence(kind, pool=row.pool_bytes, numbered=True) for kind in RequestKind]
    whys = [why for why in told if why]
    return f" ({'; '.join(whys)})" if whys else ""


def _where(plan: MemoryPlan) -> str:
    return f"in {mib(plan.bytes)} ({plan.mode})" if plan.bytes else f"without an area ({plan.mode}: {plan.source})"


# -- what translation buys and costs -----------------------------------------------------------------------------------


def _bought(workload: Workload, without: Sequence[Row], with_: Sequence[Row]) -> list[str]:
    """Isolation always; requests that are lost without translation; memory, if both needs are known."""
    if not without or not with_:
        return []
    bare, hardware = without[0], with_[0]
    bought, instead = [], ""
    if hardware.lost < bare.lost and not is_tie(hardware, bare, workload):
        bought.append(f"{counted(bare.lost - hardware.lost, 'request')} that {bare.name} loses")
    if bare.not_applicable:
        bought.append(counted(bare.not_applicable, "user mapping"))
    if bare.bytes_needed is not None and hardware.bytes_needed is not None:
        saved = bare.bytes_needed - hardware.bytes_needed
        if abs(saved) * 100 < bare.bytes_needed:
            instead = " but no memory for data (a tie)"
        elif saved < 0:
            instead = f" but no memory for data ({mib(-saved)} more are needed)"
        else:
            bought.append(f"{mib(saved)} ({100 * saved / bare.bytes_needed:.0f} %)")
    pool = f", and it needs no bounce pool ({_pool(bare)})" if bare.pool_bytes else ""
    return [f"translation buys {_and([*bought, 'isolation'])}{instead}{pool}"]


def _pool(row: Row) -> str:
    return f"{mib(row.pool_bytes)}, of which {mib(row.pool_peak)} at most are in use"


def _costs(workload: Workload, translation: str, with_: Sequence[Row], cost: CostVector | None) -> list[str]:
    """What the best design with translation costs, and what differs where it flushes at other moments.

    The best is the cheapest at the given prices; without prices the one that invalidates as the recorded kernel did.
    """
    rows = [row for row in with_ if row.same_as is None] or list(with_)
    if not rows:
        return []
    best = rows[0]
    if cost is not None:
        best = min(rows, key=lambda row: cost.cost(row.priced() or {}))
    elif workload.mode == "lazy":
        best = next((row for row in rows if row.exposure_us), best)
    work = [
        f"{counted(best.unmaps or 0, 'unmap')} with {counted(best.invalidations or 0, 'invalidation')}",
        *_tables(best),
    ]
    if best.walk_refs_per_mib:
        work.append(f"{best.walk_refs_per_mib:,.0f} PTE reads per MiB with a cold IOTLB")
    sentence = f"with {best.name} {translation} costs {_and(work)}{_reach(best)}"
    other = next((row for row in rows if bool(row.exposure_us) != bool(best.exposure_us)), None)
    if other is None:
        return [sentence]
    work = [counted(other.invalidations or 0, "invalidation"), *_tables(other)]
    return [f"{sentence}; with {other.name} {_and(work)}{_reach(other)}"]


def _tables(row: Row) -> list[str]:
    return [f"{mib(row.table_bytes)} of page tables"] if row.table_bytes else []


def _reach(row: Row) -> str:
    if not row.exposure_us:
        return ""
    bound = "less than 0.1" if row.exposure_us < 50 else f"up to {row.exposure_us / 1000:,.1f}"
    return f", and what is unmapped stays within reach for {bound} ms of the trace's time"


def priced(rows: Sequence[Row], cost: CostVector) -> list[str]:
    """What the designs cost at these prices, the cheapest first, and whether a factor of four turns the order over."""
    told = {row.name: row.priced() for row in rows if row.same_as is None}
    known = [(name, counts) for name, counts in told.items() if counts is not None and cost.prices_any(counts)]
    known.sort(key=lambda each: cost.cost(each[1]))
    sentences = []
    if known:
        sources = ", ".join(sorted({price.source for price in cost.prices.values()}))
        costs = [f"{name} costs {cost.cost(counts):,.0f} {cost.unit}" for name, counts in known]
        sentences.append(f"at the given prices (sources: {sources}) {_and(costs)}")
    undecided = [
        f"{one} and {other}"
        for (one, counts), (other, others) in pairwise(known)
        if not cost.is_decided(counts, others)
    ]
    if undecided:
        wrong = f"prices wrong by up to a factor of {BAND} turn it over"
        sentences.append(f"the order of {' and of '.join(undecided)} is undecided: {wrong}")
    left_out = dict.fromkeys(name for _, counts in known for name in cost.unpriced(counts))
    if left_out:
        sentences.append(f"these costs are without {_and(list(left_out))}: there is no price")
    free = [name for name, counts in told.items() if counts is not None and not cost.prices_any(counts)]
    if free:
        do = "does" if len(free) == 1 else "do"
        sentences.append(f"nothing that {_and(free)} {do} has a price: the time of an allocation is not priced")
    return sentences


# -- words -------------------------------------------------------------------------------------------------------------


def _alike(rows: Sequence[Row], key: Callable[[Row], object]) -> list[tuple[list[str], Row]]:
    """Rows of the same key together, as (names, the first of them); one that merely repeats another is left out."""
    told = [row for row in rows if row.same_as is None] or list(rows)
    first: dict[object, Row] = {}
    for row in told:
        first.setdefault(key(row), row)
    return [(names, first[each]) for names, each in _grouped((row.name, key(row)) for row in told)]


def _grouped(pairs: Iterable[tuple[str, T]]) -> list[tuple[list[str], T]]:
    """Names of the same thing together, in the order of the first."""
    groups: dict[T, list[str]] = {}
    for name, thing in pairs:
        groups.setdefault(thing, []).append(name)
    return [(names, thing) for thing, names in groups.items()]


def _each(names: Sequence[str]) -> str:
    return " each" if len(names) > 1 else ""


def _names(rows: Sequence[Row]) -> str:
    """The rows' names; one that merely repeats another is left to the table."""
    return ", ".join(row.name for row in rows if row.same_as is None or len(rows) == 1)


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
