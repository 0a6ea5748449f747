"""The sentences of the verdict over hand-made rows: what is compared, what is a tie, what is not said."""

from types import SimpleNamespace

import pytest

from swiommu.answers.row import Row
from swiommu.answers.verdict import best_designs, verdict_of
from swiommu.requests import RequestKind

MIB = 1 << 20
EQUAL = SimpleNamespace(mode="equal", bytes=100 * MIB)
MACHINE = SimpleNamespace(mode="machine", bytes=0)


class Asked:
    """A workload as far as a verdict looks at it: a thousand requests of 1 MiB."""

    def __init__(self, censored=0, usermaps=0):
        self.requests = [SimpleNamespace(size=MIB)] * 1000
        self.censored = censored
        self.mode = "direct"
        self._usermaps = usermaps

    def count(self, kind):
        return self._usermaps if kind is RequestKind.USERMAP else 0


def row(name, *, hardware=False, needs=None, lost=0, lost_maps=0, gained=0, **more):
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
    }
    return Row(**(values | more))


def iommu(**more):
    costs = {"unmaps": 700, "invalidations": 700, "table_bytes": 98304, "walk_refs_per_mib": 443.2, "enforces": "yes"}
    return row("iommu-strict", hardware=True, **(costs | more))


COSTS = (
    "and costs 700 unmaps with 700 invalidations, 96 KiB of page tables and 443 page-table reads per MiB touched cold."
)


def verdict(*rows, plan=EQUAL, workload=None):
    return verdict_of(workload or Asked(), plan, rows)


def test_needs_of_both_worlds_and_what_lies_between():
    assert verdict(row("carveout", needs=158), row("cma", needs=152), iommu(needs=146)) == (
        "To lose nothing that the kernel served takes 152 MiB without translation hardware (cma) and 146 MiB with it "
        f"(iommu-strict): translation buys 6 MiB (4 %) and isolation, {COSTS}"
    )


def test_equal_needs_are_a_tie():
    assert verdict(row("cma", needs=200), iommu(needs=200)) == (
        "To lose nothing that the kernel served takes 200 MiB without translation hardware (cma) and 200 MiB with it "
        f"(iommu-strict): translation buys isolation but no memory (a tie), {COSTS}"
    )


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (398, "isolation but no memory (a tie)"),  # 0.5 %
        (396, "4 MiB (1 %) and isolation"),
        (402, "isolation but no memory (a tie)"),
        (410, "isolation but no memory (10 MiB more are needed)"),
    ],
)
def test_under_one_percent_of_memory_is_a_tie(needs, said):
    assert f"translation buys {said}, and costs" in verdict(row("cma", needs=400), iommu(needs=needs))


def test_designs_within_one_percent_are_named_together():
    assert "400 MiB without translation hardware (a, b)" in verdict(row("a", needs=400), row("b", needs=402))
    assert "400 MiB without translation hardware (a)." in verdict(row("a", needs=400), row("b", needs=406))


def test_without_a_hardware_run_hardware_is_not_judged():
    assert verdict(row("cma", needs=152)) == (
        "To lose nothing that the kernel served takes 152 MiB without translation hardware (cma)."
    )


def test_only_a_hardware_run_says_what_it_is():
    assert verdict(iommu(needs=146)) == (
        "To lose nothing that the kernel served takes 146 MiB with translation hardware (iommu-strict)."
    )


def test_needs_that_were_not_asked_for_are_no_tie():
    # It once said that translation buys no memory when nobody had measured it.
    assert verdict(row("cma"), iommu()) == (
        f"In 100 MiB (equal) cma and iommu-strict lose nothing: translation buys isolation, {COSTS}"
    )


def test_one_lost_request_is_told_but_is_a_tie():
    assert verdict(row("cma", lost=1), iommu()) == (
        f"In 100 MiB (equal) cma loses 1 ALLOC: translation buys isolation, {COSTS}"
    )


def test_losses_under_one_percent_of_the_bytes_are_a_tie():
    assert "translation buys isolation, " in verdict(row("cma", lost=9), iommu())
    assert "translation buys 10 requests that cma loses and isolation, " in verdict(row("cma", lost=10), iommu())


def test_every_design_that_loses_is_named():
    # Not only the best: "no request is lost by carveout, cma" was once said of a carveout that lost fifty.
    assert verdict(row("carveout", lost=50), row("cma")) == "In 100 MiB (equal) carveout loses 50 ALLOCs."
    assert verdict(row("carveout", lost=50), row("cma", lost=2, lost_maps=1)) == (
        "In 100 MiB (equal) carveout loses 50 ALLOCs and cma loses 2 ALLOCs and 1 MAP "
        "(a MAP beyond its device's mask needs translation or a bounce buffer)."
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


def test_two_sentences_say_it_all():
    rows = [row("passthrough", lost=67), row("cma", needs=152, gained=25), iommu(needs=146, gained=27)]
    assert verdict(*rows, workload=Asked(censored=27)) == (
        "To lose nothing that the kernel served takes 152 MiB without translation hardware (cma) and 146 MiB with it "
        f"(iommu-strict): translation buys 6 MiB (4 %) and isolation, {COSTS} In 100 MiB (equal) passthrough loses 67 "
        "ALLOCs; 27 requests failed when recorded, of which cma could have served 25 and iommu-strict 27: demand is "
        "understated."
    )


def test_a_row_that_repeats_another_is_not_told_twice():
    twin = row("software-iommu", lost=50, same_as="cma")
    assert verdict(row("cma", lost=50), twin) == "In 100 MiB (equal) cma loses 50 ALLOCs."


def test_maps_lost_by_hardware_are_no_question_of_masks():
    assert verdict(iommu(lost_maps=3)) == "In 100 MiB (equal) iommu-strict loses 3 MAPs."


def test_no_allocs_means_no_talk_of_memory():
    why = {"bytes_needed": "the trace has no ALLOC, so no memory for data is needed"}
    said = verdict(row("cma", why=why), iommu(why=why))
    assert said == f"In 100 MiB (equal) cma and iommu-strict lose nothing: translation buys isolation, {COSTS}"


def test_a_machine_without_an_area_has_no_size():
    assert verdict(row("cma", lost=2), plan=MACHINE) == "Without an area (machine) cma loses 2 ALLOCs."


def test_user_mappings_only():
    said = verdict(row("cma", not_applicable=200), iommu(), workload=Asked(usermaps=200))
    assert said == (
        f"In 100 MiB (equal) iommu-strict loses nothing: translation buys isolation, {COSTS} "
        "User-space mappings need translation: designs without it can't be compared on them."
    )


def test_user_mappings_where_all_translate():
    assert verdict(iommu(), workload=Asked(usermaps=200)) == "In 100 MiB (equal) iommu-strict loses nothing."


def test_censored_requests_understate_demand_and_say_who_gains():
    # Of the best of each way the one that gains most; the others stand in the table.
    assert verdict(row("a", gained=24), row("b"), row("c", gained=1000), workload=Asked(censored=1100)) == (
        "In 100 MiB (equal) no design loses anything. 1,100 requests failed when recorded, of which c could have "
        "served 1,000: demand is understated."
    )
    assert verdict(row("a"), workload=Asked(censored=1)) == (
        "In 100 MiB (equal) a loses nothing. 1 request failed when recorded: demand is understated."
    )


def test_nothing_asked():
    assert verdict(row("as-recorded")) == "No design was asked for: this is what was recorded."


def test_costs_that_are_zero_are_left_out():
    bare = iommu(unmaps=1, invalidations=1, table_bytes=0, walk_refs_per_mib=0.0)
    assert verdict(row("cma"), bare).endswith("and costs 1 unmap with 1 invalidation.")


def test_of_three_that_tie_in_turns_one_is_the_best():
    """Each is as good as the next in losses and needs less, but the last loses too much against the first."""
    rows = [row("a", needs=100), row("b", needs=50, lost=1), row("c", needs=10, lost=20)]
    rows[2].lost, rows[2].lost_bytes = 2, 20 * MIB
    assert [each.name for each in best_designs(Asked(), rows)[0]] == ["b"]
    assert verdict_of(Asked(), EQUAL, rows).startswith("To lose nothing that the kernel served takes 50 MiB without")


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
