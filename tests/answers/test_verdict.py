"""The sentences of the verdict over hand-made rows: what is compared, what is a tie, what is not said."""

from collections import Counter
from types import SimpleNamespace

import pytest

from swiommu.answers.best import best_designs
from swiommu.answers.cost import CostVector, Price
from swiommu.answers.row import Row
from swiommu.answers.verdict import verdict_of
from swiommu.replay.cause import Cause, Causes
from swiommu.requests import RequestKind

KIB, MIB = 1 << 10, 1 << 20
EQUAL = SimpleNamespace(mode="equal", bytes=100 * MIB)
MACHINE = SimpleNamespace(mode="machine", bytes=0, source="area not known")
ALLOC, MAP = RequestKind.ALLOC, RequestKind.MAP


class Asked:
    """A workload as far as a verdict looks at it: a thousand requests of 1 MiB."""

    def __init__(self, censored=0, usermaps=0, mode="direct"):
        self.requests = [SimpleNamespace(size=MIB)] * 1000
        self.censored = censored
        self.mode = mode
        self._usermaps = usermaps

    def count(self, kind):
        return self._usermaps if kind is RequestKind.USERMAP else 0


def row(name, *, hardware=False, needs=None, lost=0, lost_maps=0, gained=0, causes=(), **more):
    values = {
        "name": name,
        "summary": "",
        "has_hardware": hardware,
        "requests": 1000,
        "failed": lost + lost_maps,
        "failed_by_kind": {"ALLOC": lost, "MAP": lost_maps, "USERMAP": 0},
        "failed_bytes": (lost + lost_maps) * MIB,
        "failed_with_room": 0,
        "lost": lost + lost_maps,
        "lost_by_kind": {"ALLOC": lost, "MAP": lost_maps, "USERMAP": 0},
        "lost_bytes": (lost + lost_maps) * MIB,
        "gained": gained,
        "gained_by_kind": {"ALLOC": gained, "MAP": 0, "USERMAP": 0},
        "gained_bytes": gained * MIB,
        "not_applicable": 0,
        "bytes_needed": None if needs is None else needs * MIB,
        "peak_live_bytes": 90 * MIB,
        "peak_map_bytes": 0,
        "reserved_bytes": 0,
        "lendable_bytes": 0,
        "waste": None,
        "table_bytes": 0,
        "maps": 0,
        "maps_by_kind": {},
        "unmaps": 0,
        "invalidations": 0,
        "bytes_copied": 0,
        "walk_refs_per_mib": 0.0,
        "exposure_us": None,
        "exposure_ops": None,
        "exposure_bytes": None,
        "enforces": "no",
        "losses": Causes(Counter(dict(causes)), largest=516 * KIB),
        "failures": Causes(Counter(dict(causes)), largest=516 * KIB),
    }
    return Row(**(values | more))


def iommu(**more):
    costs = {"unmaps": 700, "invalidations": 700, "table_bytes": 98304, "walk_refs_per_mib": 443.2, "enforces": "yes"}
    return row(**({"name": "iommu-strict", "hardware": True} | costs | more))


def lazy(**more):
    """As `iommu`, but for when it flushes."""
    return iommu(**({"name": "iommu-lazy", "invalidations": 40, "table_bytes": 131072, "exposure_us": 15_954} | more))


NEEDS = "To lose nothing that the kernel served, "
WORK = "costs 700 unmaps with 700 invalidations, 96 KiB of page tables and 443 PTE reads per MiB with a cold IOTLB"
COSTS = f"With iommu-strict it {WORK}."


def verdict(*rows, plan=EQUAL, workload=None, **options):
    return verdict_of(workload or Asked(), plan, rows, **options)


# -- needs


def test_needs_of_both_sides_and_what_translation_buys():
    assert verdict(row("carveout", needs=158), row("cma", needs=152), iommu(needs=146)) == (
        f"{NEEDS}cma needs 152 MiB without translation hardware; iommu-strict needs 146 MiB with it. Translation buys "
        f"6 MiB (4 %) and isolation. {COSTS}"
    )


def test_equal_needs_are_a_tie():
    assert verdict(row("cma", needs=200), iommu(needs=200)) == (
        f"{NEEDS}cma needs 200 MiB without translation hardware; iommu-strict needs 200 MiB with it. Translation buys "
        f"isolation but no memory for data (a tie). {COSTS}"
    )


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (398, "isolation but no memory for data (a tie)"),  # 0.5 %
        (396, "4 MiB (1 %) and isolation"),
        (402, "isolation but no memory for data (a tie)"),
        (410, "isolation but no memory for data (10 MiB more are needed)"),
    ],
)
def test_under_one_percent_of_memory_is_a_tie(needs, said):
    assert f"Translation buys {said}. " in verdict(row("cma", needs=400), iommu(needs=needs))


def test_in_a_tie_each_design_has_its_own_number():
    # It once quoted the need of the first for all: 202 MiB where one needs 200.
    assert verdict(row("a", needs=202), row("b", needs=200), row("c", needs=200)) == (
        f"{NEEDS}b and c need 200 MiB each and a needs 202 MiB without translation hardware."
    )
    assert verdict(row("a", needs=400), row("b", needs=406)) == f"{NEEDS}a needs 400 MiB without translation hardware."


def test_what_translation_buys_is_told_of_the_best_of_a_tie():
    assert "Translation buys 10 MiB (5 %) and isolation. " in verdict(
        row("a", needs=202), row("b", needs=200), iommu(needs=190)
    )


def test_the_smallest_size_that_is_tried_may_be_more_than_is_needed():
    assert verdict(row("cma", needs=2)) == f"{NEEDS}cma needs 2 MiB or less without translation hardware."


def test_beside_a_need_stands_what_still_fails_in_it():
    rows = [
        row("a", needs=154, failed_at_need=5),
        row("b", needs=154, failed_at_need=1),
        row("c", needs=154, failed_at_need=0),
    ]
    said = verdict(*rows, workload=Asked(censored=35))
    assert said.startswith(
        f"{NEEDS}a needs 154 MiB (5 of all requests still fail), b needs 154 MiB (1 of all requests still fails) and c "
        "needs 154 MiB (none fails) without translation hardware."
    )
    assert "fail" not in verdict(*rows)  # where none failed when recorded, none is left to fail


def test_a_bounce_pool_stands_beside_the_need():
    pool = {"pool_bytes": 64 * MIB, "pool_peak": 584 * KIB}
    said = verdict(row("swiotlb-natural", needs=2, **pool), row("cma", lost_maps=50), iommu(needs=2))
    assert said.startswith(
        f"{NEEDS}swiotlb-natural needs 2 MiB or less beside a bounce pool (64 MiB, of which 584 KiB at most are in "
        "use) without translation hardware; iommu-strict needs 2 MiB or less with it."
    )
    assert said.endswith(
        "Translation buys isolation but no memory for data (a tie), and it needs no bounce pool (64 MiB, of which 584 "
        f"KiB at most are in use). {COSTS}"
    )


def test_who_needs_a_pool_needs_more_than_who_needs_none():
    rows = [row("swiotlb", needs=4, pool_bytes=64 * MIB), row("passthrough", needs=4)]
    assert [each.name for each in best_designs(Asked(), rows)[0]] == ["passthrough"]


def test_without_a_hardware_run_hardware_is_not_judged():
    assert verdict(row("cma", needs=152)) == f"{NEEDS}cma needs 152 MiB without translation hardware."


def test_only_a_hardware_run_says_what_it_costs():
    assert verdict(iommu(needs=146)) == (
        f"{NEEDS}iommu-strict needs 146 MiB with translation hardware. With iommu-strict translation {WORK}."
    )


def test_needs_that_were_not_asked_for_are_no_tie():
    # It once said that translation buys no memory when nobody had measured it.
    assert verdict(row("cma"), iommu()) == (
        f"In 100 MiB (equal) cma and iommu-strict lose nothing. Translation buys isolation. {COSTS}"
    )


def test_without_needs_the_best_is_the_one_that_loses_least():
    # It once took the first of a tie, and said that translation saves what only that one loses.
    rows = [row("carveout", lost=1), row("cma")]
    assert [each.name for each in best_designs(Asked(), rows)[0]] == ["cma", "carveout"]


# -- losses


def test_one_lost_request_is_told_but_is_a_tie():
    assert verdict(row("cma", lost=1), iommu()) == (
        f"In 100 MiB (equal) cma loses 1 ALLOC. Translation buys isolation. {COSTS}"
    )


def test_losses_under_one_percent_of_the_bytes_are_a_tie():
    assert "Translation buys isolation. " in verdict(row("cma", lost=9), iommu())
    assert "Translation buys 10 requests that cma loses and isolation. " in verdict(row("cma", lost=10), iommu())


def test_every_design_that_loses_is_named():
    # Not only the best: "no request is lost by carveout, cma" was once said of a carveout that lost fifty.
    assert verdict(row("carveout", lost=50), row("cma")) == "In 100 MiB (equal) carveout loses 50 ALLOCs."
    causes = {(MAP, Cause.MASK): 1, (ALLOC, Cause.MEMORY): 2}
    assert verdict(row("carveout", lost=50), row("cma", lost=2, lost_maps=1, causes=causes)) == (
        "In 100 MiB (equal) carveout loses 50 ALLOCs and cma loses 2 ALLOCs. In any memory cma loses 1 MAP (it reaches "
        "beyond the device's DMA mask, which takes translation or a bounce pool)."
    )


def test_a_loss_has_the_limit_that_it_met():
    # It once spoke of the mask wherever a MAP was lost, or of nothing.
    swiotlb = row("swiotlb", lost=86, lost_maps=189, pool_bytes=2 * MIB)
    swiotlb.losses = Causes(
        Counter({(MAP, Cause.SEGMENT): 148, (MAP, Cause.POOL): 41, (ALLOC, Cause.BLOCK): 86}), largest=516 * KIB
    )
    plain = row("passthrough", lost=86, causes={(ALLOC, Cause.BLOCK): 86})
    assert verdict(plain, swiotlb) == (
        "In 100 MiB (equal) passthrough and swiotlb lose 86 ALLOCs each (all exceed the largest block of the page "
        "allocator, 4 MiB). In any memory swiotlb loses 189 MAPs (148 exceed a bounce segment, 256 KiB in a pool of "
        "any size, with pieces of up to 516 KiB and 41 find no free run of slots in the bounce pool of 2 MiB)."
    )


def test_what_hardware_loses_of_both_kinds_has_both_causes():
    causes = {(MAP, Cause.APERTURE): 2, (MAP, Cause.MEMORY): 1, (ALLOC, Cause.MASK): 3}
    assert verdict(iommu(lost=3, lost_maps=3, causes=causes)).startswith(
        "In 100 MiB (equal) iommu-strict loses 3 ALLOCs and 3 MAPs (ALLOCs: all reach beyond the device's DMA mask, "
        "which takes translation or a bounce pool; MAPs: 2 find no free bus address below the device's DMA mask and 1 "
        "finds no free memory that would do). "
    )


def test_where_all_of_many_lose_nothing_none_is_named():
    rows = [row("a"), row("b"), row("c")]
    assert verdict(*rows) == "In 100 MiB (equal) no design loses anything."
    assert verdict(*rows, row("d", not_applicable=1)) == "In 100 MiB (equal) a, b and c lose nothing."


def test_designs_that_lose_the_same_are_told_together():
    rows = [row("passthrough", lost=67), row("carveout", lost=2), row("swiotlb", lost=67)]
    assert (
        verdict(*rows) == "In 100 MiB (equal) passthrough and swiotlb lose 67 ALLOCs each and carveout loses 2 ALLOCs."
    )


def test_a_row_that_repeats_another_is_not_told_twice():
    twin = row("software-iommu", lost=50, same_as="cma")
    assert verdict(row("cma", lost=50), twin) == "In 100 MiB (equal) cma loses 50 ALLOCs."


def test_maps_lost_by_hardware_are_lost_in_this_memory():
    assert verdict(iommu(lost_maps=3)).startswith("In 100 MiB (equal) iommu-strict loses 3 MAPs. With iommu-strict ")


def test_no_allocs_means_no_talk_of_memory():
    why = {"bytes_needed": "the trace has no ALLOC, so no memory for data is needed"}
    said = verdict(row("cma", why=why), iommu(why=why))
    assert said == f"In 100 MiB (equal) cma and iommu-strict lose nothing. Translation buys isolation. {COSTS}"


def test_a_machine_without_an_area_has_no_size():
    assert verdict(row("cma", lost=2), plan=MACHINE) == "Without an area (machine: area not known) cma loses 2 ALLOCs."


# -- user mappings


def test_user_mappings_only():
    said = verdict(row("cma", not_applicable=1000), iommu(), workload=Asked(usermaps=1000))
    assert said == (
        "All 1,000 requests are mappings that user space asked for, at IOVAs of its own choice: only translation "
        "hardware can serve them (iommu-strict). In 100 MiB (equal) iommu-strict loses nothing. With iommu-strict "
        f"translation {WORK}."
    )


@pytest.mark.parametrize(("usermaps", "others"), [(998, "the other 2"), (999, "the one other request")])
def test_designs_without_translation_are_judged_by_what_they_can_serve(usermaps, others):
    # It once said that they can't be compared, beside needs and a tie.
    said = verdict(row("cma", needs=4, not_applicable=usermaps), iommu(needs=6), workload=Asked(usermaps=usermaps))
    assert said == (
        f"{usermaps} of 1,000 requests are mappings that user space asked for, at IOVAs of its own choice: they need "
        f"translation hardware, and the designs without it are judged by {others}. To lose nothing that the kernel "
        f"served of {others}, cma needs 4 MiB without translation hardware; iommu-strict needs 6 MiB with it. "
        f"Translation buys {usermaps} user mappings and isolation but no memory for data (2 MiB more are needed). "
        f"{COSTS}"
    )


def test_user_mappings_where_all_translate():
    assert verdict(iommu(), workload=Asked(usermaps=200)).startswith("In 100 MiB (equal) iommu-strict loses nothing. ")


# -- requests that failed when recorded


def test_censored_requests_may_be_more_demand_and_who_could_serve_them():
    rows = [row("a", gained=24), row("b"), row("c", gained=1100)]
    assert verdict(*rows, workload=Asked(censored=1100)) == (
        "In 100 MiB (equal) no design loses anything that the kernel served. 1,100 requests failed when recorded, so "
        "real demand may be higher. In 100 MiB (equal) a could serve 24 of these, b none and c all."
    )


def test_one_censored_request():
    assert verdict(row("a"), row("b", gained=1), workload=Asked(censored=1)) == (
        "In 100 MiB (equal) a and b lose nothing that the kernel served. 1 request failed when recorded, so real "
        "demand may be higher. In 100 MiB (equal) a could not serve it and b could serve it."
    )


def test_what_still_fails_has_its_limit():
    # It once said that a design loses nothing beside 619 failures, and no more.
    swiotlb = row("swiotlb", failed=619, gained=3, pool_bytes=MIB)
    swiotlb.failures = Causes(Counter({(MAP, Cause.POOL): 619}))
    assert verdict(row("passthrough", gained=622), swiotlb, workload=Asked(censored=622)) == (
        "In 100 MiB (equal) passthrough and swiotlb lose nothing that the kernel served. 622 requests failed when "
        "recorded, so real demand may be higher. In 100 MiB (equal) passthrough could serve all of these and swiotlb "
        "3 (619 find no free run of slots in the bounce pool of 1 MiB)."
    )


def test_nothing_asked():
    assert verdict(row("as-recorded")) == "No design was asked for: this is what was recorded."


# -- what translation costs


def test_strict_and_lazy_have_their_own_costs():
    assert verdict(row("cma"), iommu(), lazy()).endswith(
        f"With iommu-strict it {WORK}; with iommu-lazy 40 invalidations and 128 KiB of page tables, and what is "
        "unmapped stays within reach for up to 16.0 ms of the trace's time."
    )


def test_a_moment_within_reach_is_no_0_0_ms():
    assert verdict(row("cma"), iommu(), lazy(exposure_us=4)).endswith(
        "unmapped stays within reach for less than 0.1 ms of the trace's time."
    )


def test_on_a_lazy_recording_the_lazy_design_comes_first():
    # It once quoted the invalidations of strict.
    said = verdict(row("cma"), iommu(), lazy(), workload=Asked(mode="lazy"))
    assert said.endswith(
        "With iommu-lazy it costs 700 unmaps with 40 invalidations, 128 KiB of page tables and 443 PTE reads per MiB "
        "with a cold IOTLB, and what is unmapped stays within reach for up to 16.0 ms of the trace's time; with "
        "iommu-strict 700 invalidations and 96 KiB of page tables."
    )


def test_with_prices_the_cheapest_comes_first():
    # It once named the dearer of the two.
    strict = {"walk_refs": 100, "maps": 100}
    rows = [row("cma", walk_refs=0), iommu(**strict), lazy(**(strict | {"walk_refs": 150}))]

    def said(invalidation):
        prices = {"invalidation": Price(invalidation, "ours"), "walk_ref": Price(1.0, "a guess")}
        return verdict(*rows, cost=CostVector("ns", prices)).partition("Translation buys isolation. ")[2]

    first, costs = said(1000.0).split("time; ")
    assert first.startswith("With iommu-lazy it costs 700 unmaps with 40 invalidations, ")
    assert costs == (
        "with iommu-strict 700 invalidations and 96 KiB of page tables. At the given prices (sources: a guess, ours) "
        "iommu-lazy costs 40,150 ns and iommu-strict costs 700,100 ns. These costs are without map and unmap: there is "
        "no price. Nothing that cma does has a price: the time of an allocation is not priced."
    )
    assert said(0.0).startswith("With iommu-strict it costs ")
    assert "iommu-strict costs 100 ns and iommu-lazy costs 150 ns. " in said(0.0)


def test_costs_that_are_zero_are_left_out():
    bare = iommu(unmaps=1, invalidations=1, table_bytes=0, walk_refs_per_mib=0.0)
    assert verdict(row("cma"), bare).endswith("With iommu-strict it costs 1 unmap with 1 invalidation.")


def test_sentences_begin_with_a_capital_letter_and_never_with_a_name():
    rows = [row("passthrough", lost=67), row("cma", needs=152, gained=25), iommu(needs=146, gained=27), lazy(needs=146)]
    said = verdict(*rows, workload=Asked(censored=27))
    names = {each.name for each in rows}
    starts = [part.split()[0] for part in said.split(". ")]
    assert not any(start[0].islower() or start.lower() in names for start in starts)


def test_of_three_that_tie_in_turns_one_is_the_best():
    """Each is as good as the next in losses and needs less, but the last loses too much against the first."""
    rows = [row("a", needs=100), row("b", needs=50, lost=1), row("c", needs=10, lost=20)]
    rows[2].lost, rows[2].lost_bytes = 2, 20 * MIB
    assert [each.name for each in best_designs(Asked(), rows)[0]] == ["b"]
    assert verdict_of(Asked(), EQUAL, rows).startswith(f"{NEEDS}b needs 50 MiB without")


def test_the_best_are_those_that_tie_with_the_best():
    rows = [
        row("as-recorded", needs=1),
        row("loses", needs=1, lost=50),
        row("unknown"),
        row("needs-more", needs=102),
        row("first", needs=100),
        row("second", needs=101, lost=1),
        iommu(needs=90),
        row("open", hardware=True, needs=80),
    ]
    without, with_ = best_designs(Asked(), rows)
    assert ([each.name for each in without], [each.name for each in with_]) == (["first", "second"], ["open"])
    without, with_ = best_designs(Asked(), rows, require_isolation=True)
    assert ([each.name for each in without], [each.name for each in with_]) == ([], ["iommu-strict"])
    assert [each.name for each in best_designs(Asked(), rows[:3])[0]] == ["unknown"]
    assert best_designs(Asked(), rows[:1]) == ([], [])
