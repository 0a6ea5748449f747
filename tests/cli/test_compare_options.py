"""What `swiommu compare` can be asked besides: several traces, files of designs and prices, workloads, isolation."""

import json
from pathlib import Path

import pytest

TRACES = Path(__file__).parents[1] / "data" / "traces"
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
