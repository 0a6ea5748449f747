"""Files beside a trace, as a shell user meets them: one sentence with file, line and key; 3; nothing on stdout."""

import gzip
import json
import shutil
import time

import pytest

RELEASE = "           v4l-185     [000] .....     8.1: cma_release: name=r pfn=0x1 page=0 count=1\n"
MAPPED = (
    "           self-1       [000] .....     5.000100: dma_map_page: 0000:00:01.0 dir=FROM_DEVICE dma_addr=1000 "
    "size=4096 phys_addr=1000 attrs=\n"
)

DESIGN = ("compare", "--no-need", "--design", "mine.toml")
COST = ("compare", "--no-need", "--design", "iommu-strict", "--cost", "mine.toml")
COST_JSON = (*COST[:-1], "mine.json")
STACK = ("explain", "translate", "mine.toml", "0x1000")
SIDECAR = ("compare", "mine.trace")
LAYER = '[memory.ram]\nsize = "1 GiB"\n[layer.iommu]\nkind = "paged"\non = "ram"\ntables = 0\n'


def run(swiommu, *arguments):
    done = swiommu(*arguments)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("command", "text", "sentence"),
    [
        (
            DESIGN,
            '[[design]]\nname = "mine"\nalocator = "bitmap"\n',
            "mine.toml:3: design[0] has no key 'alocator'; did you mean 'allocator'?",
        ),
        (
            DESIGN,
            '[[design]]\nname = "mine"\n\n[[design]]\nname = "other"\npool = ["64 MiB"]\n',
            'mine.toml:6: design[1].pool is a list, not a number of bytes, or a text such as "64 MiB"',
        ),
        (
            DESIGN,
            '[[design]]\nname = "mine"\nname = "other"\n',
            "mine.toml:3: is not TOML: Cannot overwrite a value (column 15)",
        ),
        (
            COST,
            'unit = "ns"\n[invalidaton]\nprice = 5\nsource = "guess"\n',
            "mine.toml:2: has no key 'invalidaton'; did you mean 'invalidation'?",
        ),
        (COST, "[map]\nsource = 'guess'\nprice = '5'\n", "mine.toml:3: map.price is '5', not a number"),
        (COST_JSON, '{"map": {"price": 5,\n"price": 6}}', "mine.json:2: the key 'price' stands twice in one object"),
        (COST_JSON, '{"map": {"source": "x",\n"price": NaN}}', "mine.json:2: is not JSON: NaN is no number"),
        (
            STACK,
            LAYER + "map = [\n  { at = 0, to = 0, size = '4K' },\n  { at = 0, to = 0, siez = '4K' },\n]\n",
            "mine.toml:9: layer.iommu.map[1] has no key 'siez'; did you mean 'size'?",
        ),
        (
            STACK,
            LAYER + "\n[device.cam]\non = 'iommu'\nmask = 65\n",
            "mine.toml:10: device.cam.mask is 65, not a number of bits from 1 to 64",
        ),
        (
            STACK,
            LAYER + "walker = 'rom'\n",
            "mine.toml:7: layer.iommu.walker is 'rom', which nothing is named; did you mean 'ram'?",
        ),
        (
            SIDECAR,
            {"name": "mine", "kernel": "6.12", "cma_aera": {"base_pfn": 0, "total_pages": 64}},
            "mine.json:4: has no key 'cma_aera'; did you mean 'cma_area'?",
        ),
        (
            SIDECAR,
            {"name": "mine", "kernel": "6.12", "cma_area": {"base_pfn": 0, "total_pages": "64"}},
            "mine.json:6: cma_area.total_pages is '64', not a whole number, or a text such as \"0xb9a00\"",
        ),
        (
            SIDECAR,
            {"name": "mine", "kernel": "6.12", "system_ram": ["\x1b[31m"]},
            "mine.json:5: system_ram[0]: expected 'first-last : name', found '\\x1b[31m'",
        ),
        (SIDECAR, "[" * 100_000, "mine.json: nests deeper than 64 levels, not a recording's sidecar"),
        (SIDECAR, '{"name": "mine",\n"cpus": ' + "9" * 5000 + "}", "mine.json:2: holds a number of too many digits"),
        (
            SIDECAR,
            '{"name": "\\udc80", "kernel": "6.12"}',
            "mine.json: '\\udc80' holds half of a surrogate pair, which is no character",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_with_file_line_and_key(swiommu, tmp_path, command, text, sentence):
    (tmp_path / "mine.trace").write_text(RELEASE)
    name = "mine.json" if command in {SIDECAR, COST_JSON} else "mine.toml"
    (tmp_path / name).write_text(text if isinstance(text, str) else json.dumps(text, indent=1))
    assert run(swiommu, *command) == (3, "", f"swiommu: {sentence}\n")


@pytest.mark.parametrize(
    ("name", "command", "what"),
    [
        ("mine.json", SIDECAR, "is larger than 4194304 bytes, not a recording's sidecar"),
        ("mine.toml", DESIGN, "is larger than 1048576 bytes, not a file of designs"),
        ("mine.toml", COST, "is larger than 1048576 bytes, not a cost vector"),
        ("mine.toml", STACK, "is larger than 1048576 bytes, not a description of a stack"),
    ],
)
def test_three_gigabytes_are_refused_unread(swiommu, tmp_path, name, command, what):
    (tmp_path / "mine.trace").write_text(RELEASE)
    with (tmp_path / name).open("wb") as file:
        file.truncate(3 << 30)
    begin = time.monotonic()
    assert run(swiommu, *command) == (3, "", f"swiommu: {name}: {what}\n")
    assert time.monotonic() - begin < 10


def test_a_fact_that_is_not_known_is_a_note(swiommu, tmp_path):
    (tmp_path / "mine.trace").write_text(MAPPED)
    (tmp_path / "mine.json").write_text(json.dumps({"name": "mine", "kernel": "6.12", "hz": 250, "\x1b[31m": 1}))
    status, out, err = run(swiommu, "compare", "mine.trace", "--no-need", "--design", "iommu-strict")
    assert (status, err) == (0, "")
    assert "note: the sidecar holds keys that are not known and not used: 'hz', '\\x1b[31m'" in " ".join(out.split())


def test_twenty_thousand_equal_lines_of_ram_are_read_in_time(swiommu, tmp_path):
    (tmp_path / "mine.trace").write_text(MAPPED)
    ram = {"name": "mine", "kernel": "6.12", "system_ram": ["00000000-3fffffff : System RAM"] * 20_000}
    (tmp_path / "mine.json").write_text(json.dumps(ram))
    begin = time.process_time()
    status, out, err = run(swiommu, "compare", "mine.trace", "--no-need", "--design", "iommu-strict")
    assert (status, err) == (0, "")
    assert "iommu-strict loses nothing" in out
    assert time.process_time() - begin < 10


LOG = "x86-6.12-strict-qtrace-s101"


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("emulator", b"", "is empty, not an emulator's log"),
        ("emulator", b"\0" * 100, "is a binary file, not an emulator's log"),
        (
            "emulator.gz",
            gzip.compress(b"vtd_inv_desc x\n" * 9, mtime=0)[:-9],
            "is a truncated gzip file; 9 lines were readable before the cut",
        ),
        (
            "emulator",
            b"[    0.000000] Linux version 6.12\n",
            (
                "not an emulator's log: no line of 1 begins with vtd_, smmu, amdvi_, virtio_iommu_; it looks like a "
                "kernel log (dmesg)"
            ),
        ),
    ],
)
def test_what_is_no_log_of_an_emulator_is_one_sentence(swiommu, tmp_path, data_dir, name, data, sentence):
    for ending in (".json", ".trace.gz"):
        shutil.copy(data_dir / "traces" / f"{LOG}{ending}", tmp_path)
    (tmp_path / f"{LOG}.{name}").write_bytes(data)
    assert run(swiommu, "verify", f"{LOG}.trace.gz") == (3, "", f"swiommu: {LOG}.{name}: {sentence}\n")
