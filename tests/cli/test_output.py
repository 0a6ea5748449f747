"""What reaches the terminal: names from outside never drive it, and every terminal gets something readable."""

import gzip
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CAMERA = "arm64-6.12-cam-cma64M-s81"
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
ENVIRONMENT |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "TERM": "xterm-256color"}

HOSTILE = [
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b[0m",
    "[bold]x[/bold]",
    "\x1b]0;title\x07",
    "\u202egnp.exe",
    ":bomb:",
]


@pytest.fixture
def run(swiommu):
    """Arguments, the folder, and what else is in the environment."""

    def run(*arguments, folder=ROOT, **environment):
        return swiommu(*arguments, cwd=folder, env=ENVIRONMENT | environment)

    return run


def on_a_terminal(*arguments, **environment):
    """What a terminal of 80 columns gets on both streams, as text."""
    leader, follower = pty.openpty()
    environment = ENVIRONMENT | {"COLUMNS": "80"} | environment
    command = [sys.executable, "-m", "swiommu", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=follower, stderr=follower)
    os.close(follower)
    seen = b""
    try:
        while data := os.read(leader, 65536):
            seen += data
    except OSError:  # how Linux tells that the other side is closed
        pass
    os.close(leader)
    assert process.wait(30) == 0
    return seen.decode().replace("\r\n", "\n")


def harmless(data):
    text = data.decode()
    return all(char.isprintable() for char in text.replace("\n", ""))


def a_trace(*names):
    """One small allocation by a device and from an area of each name."""
    head = "            init-1       [000] .....     2.{:06d}: "
    lines = ["# tracer: nop"]
    for at, name in enumerate(names):
        lines += [
            head.format(at * 10 + 1) + f"cma_alloc_start: name={name} count=1 align=0",
            head.format(at * 10 + 2)
            + f"cma_alloc_finish: name={name} pfn=0x{at + 16:x} page=00000000ef80c34c count=1 align=0 errorno=0",
            head.format(at * 10 + 3) + f"dma_alloc: {name} dir=BIDIRECTIONAL dma_addr={at + 16:x}000 size=4096 "
            f"virt_addr=00000000ef80c{at:03x} flags=GFP_KERNEL attrs=",
        ]
    return "\n".join(lines) + "\n"


def test_hostile_names_inside_a_trace(run, tmp_path):
    (tmp_path / "t.trace").write_text(a_trace(*(name.replace(" ", "") for name in HOSTILE)))
    for arguments in (("compare",), ("verify",), ("compare", "--json")):
        shown = run(*arguments, "t.trace", folder=tmp_path)
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert harmless(shown.stdout)
        assert b"6 ALLOC" in shown.stdout or b"6" in shown.stdout


@pytest.mark.parametrize(
    "name",
    ["[bold]x[b] :bomb: <script>caf\u00e9", "\x1b[31mred\x1b]0;title\x07 \u202egnp.exe \n", "[" + "x" * 180],
    ids=["markup", "escapes", "long"],
)
def test_hostile_file_names(run, tmp_path, name):
    (tmp_path / f"{name}.trace").write_text(a_trace("vivid"))
    (tmp_path / f"{name}2").touch()
    shown = run("verify", f"{name}.trace", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert harmless(shown.stdout)
    wanted = "".join(char if char.isprintable() else "?" for char in name)
    title = shown.stdout.decode().partition("decisions")[0]
    assert title.split() == wanted.split() or title.replace("\n", "") == wanted  # markup and emoji are text
    refused = run("verify", f"{name}2", folder=tmp_path)
    assert refused.stderr.decode() == f"swiommu: {wanted}2: is empty, not a trace\n"


EVIL = """
[[design]]
name = "\\u001b[31mEVIL\\u001b]0;owned\\u0007\\u202e"
based_on = "iommu-lazy"

[[design]]
name = "\\u009b5mX</script><b>\\nrow2 [bold]"
based_on = "cma-lending"
summary = "\\u001b[1mS\\u202e"
"""
CLEAN = ["?[31mEVIL?]0;owned??", "?5mX</script><b>?row2 [bold]"]


def test_hostile_names_of_designs(run, tmp_path):
    """In the table, the verdict, notes, a report, what is said of several traces, and errors."""
    (tmp_path / "evil.toml").write_text(EVIL)
    asked = ["--design", "evil.toml", "--no-need"]
    shown = run("compare", *asked, "--html", "evil.html", "--plotlyjs", "cdn", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert harmless(shown.stdout)
    assert [name for name in CLEAN if name not in shown.stdout.decode()] == []
    page = (tmp_path / "evil.html").read_text()
    assert [char for char in page if not (char.isprintable() or char in "\n\u00ad")] == []
    assert "</script><b>" not in page
    shown = run("compare", *asked, CAMERA, CAMERA, folder=tmp_path)
    assert harmless(shown.stdout)
    assert shown.stdout.decode().splitlines()[-1].startswith("Over 2 sources: ")
    (tmp_path / "evil.toml").write_text(EVIL + EVIL)
    refused = run("compare", *asked, folder=tmp_path)
    assert (refused.returncode, refused.stdout, harmless(refused.stderr)) == (3, b"", True)


def test_hostile_names_of_designs_on_a_terminal(tmp_path):
    (tmp_path / "evil.toml").write_text(EVIL)
    shown = on_a_terminal("compare", "--no-need", "--design", str(tmp_path / "evil.toml"))
    assert "EVIL" in shown
    assert [text for text in ("\x1b[31m", "\x1b]0", "\x07", "\u202e", "\x9b", "\x1b[1mS") if text in shown] == []


def test_file_name_that_is_no_text(run, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe.trace"
    try:
        Path(os.fsdecode(path)).write_text(a_trace("vivid"))
    except OSError:
        pytest.skip("this file system wants UTF-8")
    shown = run("verify", os.fsdecode(path))
    assert (shown.returncode, shown.stdout.splitlines()[0]) == (0, b"??")
    assert run("verify", os.fsdecode(path + b"x")).stderr.endswith(b"(there are " + _bundled() + b")\n")


def _bundled():
    return b"arm64-6.12-cam-cma64M-s81 and arm64-6.12-smmu-camnvme-cma128M-s89"


@pytest.mark.parametrize("columns", ["x", "-5", "1"])
def test_odd_columns_are_no_obstacle(run, columns):
    shown = run("verify", COLUMNS=columns)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert shown.stdout.startswith(f"{CAMERA}\ndecisions  total".encode())


def test_narrow_output_loses_nothing(run):
    wide = run("compare", "--no-need").stdout.decode()
    shown = run("compare", "--no-need", COLUMNS="40").stdout.decode()
    assert max(map(len, shown.splitlines())) <= 40
    assert "…" not in shown
    assert set(wide.split()) - set(shown.split()) == set()


def test_ascii_only(run, tmp_path):
    (tmp_path / "caf\u00e9.trace").write_text(a_trace("vivid"))
    shown = run("verify", "caf\u00e9.trace", folder=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert (shown.returncode, shown.stderr, shown.stdout.splitlines()[0]) == (0, b"", b"caf?")


def test_pipe_stays_plain_when_colour_is_forced(run):
    assert harmless(run("verify", FORCE_COLOR="1").stdout)


def test_terminal_gets_progress_then_a_styled_answer():
    seen = on_a_terminal("verify")
    progress, _, answer = seen.rpartition("\r\x1b[K")
    assert "reading ..." in progress
    assert answer.startswith(f"\x1b[1m{CAMERA}\x1b[0m\n")


def test_no_color_is_plain_on_a_terminal():
    answer = on_a_terminal("compare", "--no-need", NO_COLOR="1").rpartition("\r\x1b[K")[2]
    assert harmless(answer.encode())
    assert answer.startswith(f"{CAMERA}: 740 requests (740 ALLOC), at most 76.0 MiB live\n")


def test_errors_on_a_terminal_end_with_a_clean_line():
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "swiommu", "compare", "nowhere"]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=follower, stderr=follower)
    assert process.wait(30) == 3
    seen = os.read(leader, 65536).decode().replace("\r\n", "\n")
    os.close(follower)
    os.close(leader)
    assert re.fullmatch(r"\r\x1b\[Kreading \.\.\.\r\x1b\[Kswiommu: nowhere: no such file, [^\x1b\n]+\n", seen)


def test_head_takes_one_line(tmp_path):
    if shutil.which("head") is None:
        pytest.skip("no head here")
    shown = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m swiommu verify --json | head -n 1', sys.executable],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, b"{\n", b"")


def test_gzip_and_plain_say_the_same(run, tmp_path, data_dir):
    packed = data_dir / "traces" / "x86-6.12-strict-qtrace-s101.trace.gz"
    (tmp_path / "a.trace").write_bytes(gzip.decompress(packed.read_bytes()))
    shutil.copy(packed, tmp_path / "b.trace.gz")
    a, b = (run("compare", "--no-need", name, folder=tmp_path).stdout for name in ("a.trace", "b.trace.gz"))
    assert a.replace(b"a:", b"b:", 1) == b
