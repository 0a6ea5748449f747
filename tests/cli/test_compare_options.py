"""What `swiommu compare` can be asked besides: several traces, files of designs and prices, workloads, isolation."""

import json
from pathlib import Path

import pytest

TRACES = Path(__file__).parents[1] / "data" / "traces"
WIDE = {"PYTHONIOENCODING": "utf-8", "COLUMNS": "200"}
CAMERA, NVME = "arm64-6.12-cam-cma64M-s81", "arm64-6.12-smmu-camnvme-cma128M-s89"


def answered(run):
    assert (run.returncode, run.stderr) == (0, b""), run.stderr.decode()
    return run.stdout.decode()


def test_several_traces_and_what_holds_over_all(swiommu):
    arguments = ("compare", CAMERA, NVME, "--design", "cma-bitmap", "--design", "iommu-strict")
    text = answered(swiommu(*arguments))
    assert text.index(f"{CAMERA}: ") < text.index(f"{NVME}: ") < text.index("Over 2 sources: ")
    document = json.loads(answered(swiommu(*arguments, "--json")))
    assert list(document) == ["schema", "comparisons", "verdict"]
    assert document["schema"] == "swiommu.comparisons/1"
    assert {each["schema"] for each in document["comparisons"]} == {"swiommu.compare/1"}
    assert [each["trace"]["name"] for each in document["comparisons"]] == [CAMERA, NVME]
    needs = [max(d["designs"][row]["bytes_needed"] for d in document["comparisons"]) >> 20 for row in (0, 1)]
    assert document["verdict"] == (
        f"Over 2 sources: cma-bitmap needs up to {needs[0]} MiB; iommu-strict needs up to {needs[1]} MiB."
    )


def test_a_pool_stands_beside_the_need_over_all_traces(swiommu):
    trace = TRACES / "arm64-6.12-smmu-qtrace-s103.trace.gz"
    text = answered(swiommu("compare", trace, trace, "--design", "swiotlb"))
    assert text.splitlines()[-1] == "Over 2 sources: swiotlb needs up to 2 MiB beside a bounce pool of 2 MiB."


def test_several_traces_without_needs_tell_what_is_lost(swiommu):
    names = ("passthrough", "iommu-strict")
    options = [word for name in names for word in ("--design", name)]
    text = answered(swiommu("compare", CAMERA, CAMERA, "--no-need", *options))
    assert text.splitlines()[-1] == "Over 2 sources: passthrough loses 134 requests."
    text = answered(swiommu("compare", CAMERA, CAMERA, "--no-need", "--design", "iommu-strict"))
    assert text.splitlines()[-1] == "Over 2 sources: no design loses anything."


def test_designs_and_prices_from_files(swiommu, tmp_path):
    (tmp_path / "mine.toml").write_text('[[design]]\nname = "mine"\nbased_on = "iommu-strict"\nflush = "lazy"\n')
    (tmp_path / "prices.toml").write_text('unit = "us"\n[invalidation]\nprice = 2\nsource = "a bench"\n')
    document = json.loads(
        answered(swiommu("compare", "--design", "mine.toml", "--cost", "prices.toml", "--no-need", "--json"))
    )
    (row,) = document["designs"]
    assert row["name"] == "mine"
    assert row["cost"]["value"] == 2 * row["invalidations"]
    assert (row["cost"]["unit"], row["cost"]["source"]) == ("us", "invalidation: a bench")


def test_lazy_designs_flush_by_the_ticks_of_a_kernel(swiommu):
    arguments = (
        "compare",
        TRACES / "x86-6.12-lazy-qtrace-s109.trace.gz",
        "--design",
        "iommu-lazy",
        "--no-need",
        "--json",
    )
    (row,) = json.loads(answered(swiommu(*arguments, "--hz", "1000")))["designs"]
    assert (row["invalidations"], row["exposure_us"]) == (26, 10_997)


def test_an_area_without_a_sidecar_is_not_known(swiommu, tmp_path):
    """A recording of the CMA events alone: as-recorded wasted -7 MiB once, of "no contiguous area recorded"."""
    event = "cma_alloc_finish: name=reserved pfn=0x{:x} page=00000000c0ffee01 count=512 align=8 errorno=0"
    lines = [f"camd-811 [001] ..... 100.{at:06}: {event.format(0x2C000 + 512 * at)}" for at in range(3)]
    lines.append(
        "camd-811 [001] ..... 101.000000: cma_release: name=reserved pfn=0x2c000 page=00000000c0ffee01 count=512"
    )
    (tmp_path / "bare.trace").write_text("\n".join(["# tracer: nop", *lines, ""]))
    unknown = (
        "the area is not known: the file NAME.json beside the trace has no cma_area.base_pfn and cma_area.total_pages"
    )
    arguments = ("compare", "bare.trace", "--design", "as-recorded", "--design", "cma-bitmap")
    assert answered(swiommu(*arguments, env=WIDE)).splitlines() == [
        "bare: 3 requests (3 ALLOC), at most 6 MiB live",
        "memory: equal, 8 MiB: 1.25 x the peak of live ALLOC bytes (area not known)",
        "",
        "design       needs  failed  lost    waste  tables  unmaps  inval.  refs/MiB    exposed  isolates",
        "as-recorded      -       0     0        -       -       0       0         -          -        no",
        "cma-bitmap   6 MiB       0     0  2.0 MiB       0       0       0         0  unbounded        no",
        "",
        "To lose nothing that the kernel served, cma-bitmap needs 6 MiB without translation hardware.",
        "",
        "note: the trace has no dma events: each cma_alloc is taken for an ALLOC and each map for a MAP",
        f"note: no number for waste (as-recorded): {unknown}",
    ]


def test_prices_rank_strict_against_lazy_and_price_no_allocation(swiommu, tmp_path):
    (tmp_path / "prices.toml").write_text('unit = "us"\n[invalidation]\nprice = 2\nsource = "a bench"\n')
    designs = [word for name in ("cma-bitmap", "iommu-strict", "iommu-lazy") for word in ("--design", name)]
    document = json.loads(answered(swiommu("compare", *designs, "--no-need", "--cost", "prices.toml", "--json")))
    cma, strict, lazy = document["designs"]
    assert (cma["cost"], cma["why"]["cost"]) == (
        None,
        "nothing of what it does has a price: there are prices of invalidation only",
    )
    assert (strict["cost"]["value"], lazy["cost"]["value"]) == (2 * 713, 2 * 105)
    assert document["verdict"].endswith(
        "With iommu-lazy it costs 713 unmaps with 105 invalidations, 112 KiB of page tables and 443 PTE reads per MiB "
        "with a cold IOTLB, and what is unmapped stays within reach for up to 16.0 ms of the trace's time; with "
        "iommu-strict 713 invalidations and 96 KiB of page tables. At the given prices (sources: a bench) iommu-lazy "
        "costs 210 us and iommu-strict costs 1,426 us. These costs are without walk_ref, map and unmap: there is "
        "no price. Nothing that cma-bitmap does has a price: the time of an allocation is not priced."
    )


def test_a_generated_workload_is_the_same_every_time(swiommu):
    runs = [answered(swiommu("compare", "--workload", "camera", "--seed", "5", "--no-need")) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0].startswith("workload camera, seed 5: ")
    assert "as-recorded" not in runs[0]


def test_isolation_is_a_requirement_of_the_reader(swiommu):
    text = answered(swiommu("compare", "--require", "isolation", "--no-need")).replace("\n", " ")
    assert "Isolation is required: only iommu-strict, iommu-lazy, shim-over-iommu can enforce it. " in text
    text = answered(swiommu("compare", "--require", "isolation", "--no-need", "--design", "cma-bitmap"))
    assert "Isolation is required, and none of these designs enforces it: cma-bitmap." in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((CAMERA, "--workload", "nic"), "--workload stands for a TRACE: give one of the two."),
        ((CAMERA, NVME, "--html", "x.html"), "--html takes one TRACE: a report is of one recording."),
    ],
)
def test_what_does_not_go_together(swiommu, arguments, sentence):
    run = swiommu("compare", *arguments)
    assert (run.returncode, run.stdout) == (2, b"")
    assert run.stderr.decode().splitlines()[-1] == f"Error: {sentence}"


def test_a_file_of_designs_that_is_missing(swiommu):
    run = swiommu("compare", "--design", "none.toml")
    assert (run.returncode, run.stdout) == (3, b"")
    assert run.stderr.decode() == "swiommu: none.toml: can't be read: No such file or directory\n"


def test_need_is_no_option(swiommu):
    """``--no-need`` turns the search for ``bytes_needed`` off, and nothing else is called a need."""
    run = swiommu("compare", "--need", "isolation")
    assert run.returncode == 2
    assert b"No such option" in run.stderr
