"""The HTML report: everything of the answer is in it, nothing of a trace can act in it, and a browser draws it."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import attrs
import pytest

from swiommu.answers import compare
from swiommu.errors import InputError
from swiommu.replay import Knobs
from swiommu.report import comparison_html, read_comparison
from swiommu.report.area import RECTANGLES
from swiommu.trace import read_trace

CAMERA = "arm64-6.12-cam-cma64M-s81"
EVIL = "<script>alert(1)</script>"
HOSTILE = (
    EVIL,
    "</script><img src=x onerror=alert(1)>",
    "a\x1b[31m\x00b\u202e",
    "<!--<script>",
    "%{y}{{ 7 * 7 }}",
    "N" * 5000,
)


class Page(HTMLParser):
    """What a browser would see: tags with attributes, the text, and the content of script elements."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.scripts = [], [], []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\u00ad", ""))

    def json(self, name):
        places = [attributes for tag, attributes in self.tags if tag == "script"]
        return json.loads(next(s for at, s in zip(places, self.scripts, strict=True) if at.get("id") == name))


DESIGNS = ("as-recorded", "carveout-best-fit", "cma-bitmap", "software-iommu", "iommu-strict")


def answer_of(trace=CAMERA, **options):
    options = {"designs": DESIGNS, "with_need": False, "keep_outcomes": True} | options
    return compare(read_trace(trace), **options)


@pytest.fixture(scope="module")
def camera():
    return answer_of()


@pytest.fixture(scope="module")
def page(camera):
    return Page(comparison_html(camera))


def test_sections_come_in_order(page):
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids == ["verdict", "table", "area", "failed", "wasted", "exposure", "assumptions", "unused", "data"]


def test_says_what_the_answer_says(camera, page):
    assert camera.verdict in page.text
    for row in camera.rows:
        assert row.name in page.text
        assert row.summary in page.text
        assert row.same_as is None or f"the same numbers as {row.same_as}" in page.text
        assert not row.same_as or row.same_as in page.text


def test_empty_cells_lead_to_their_reason(camera, page):
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a" and "#note-" in attributes["href"]}
    targets = {f"#{attributes['id']}" for tag, attributes in page.tags if attributes.get("id", "").startswith("note-")}
    assert links == targets != set()
    for reason in ("this row comes from the trace, not from a model", "without translation a freed buffer"):
        assert reason in page.text


def test_columns_that_nobody_asked_for_are_left_out(page):
    assert "needs" not in [attributes.get("data-label", "").split(" ")[0] for _, attributes in page.tags]
    needs = Page(comparison_html(answer_of(designs=["cma-bitmap"], with_need=True), plotlyjs="cdn"))
    assert "needs (MiB)" in [attributes.get("data-label") for _, attributes in needs.tags]


def test_cost_shows_its_source(camera):
    row = camera.rows[1]
    priced = attrs.evolve(row, cost={"value": 12.5, "band": [3.1, 50], "source": "guess"})
    shown = Page(comparison_html(attrs.evolve(camera, rows=[priced]), plotlyjs="cdn"))
    assert "12.5" in shown.text
    assert "band: 3.10 to 50; source: guess (cost of carveout-best-fit)" in shown.text


def test_can_be_read_again(camera):
    assert read_comparison(comparison_html(camera, plotlyjs="cdn")) == json.loads(json.dumps(camera.to_json()))


@pytest.mark.parametrize("text", ["", "<html></html>", '<script type="application/json" id="swiommu-data">{}'])
def test_another_file_is_no_report(text):
    with pytest.raises(InputError) as error:
        read_comparison(text)
    assert str(error.value) == "this is no report of swiommu: it carries no data"


def test_damaged_data_is_refused():
    with pytest.raises(InputError) as error:
        read_comparison('<script type="application/json" id="swiommu-data">{</script>')
    assert str(error.value).startswith("the data of this report can't be read: ")


def test_same_answer_same_page():
    assert comparison_html(answer_of(), plotlyjs="cdn") == comparison_html(answer_of(), plotlyjs="cdn")


@pytest.mark.parametrize("plotlyjs", ["inline", "cdn"])
def test_policy_names_exactly_the_scripts_that_are_there(camera, plotlyjs):
    shown = Page(comparison_html(camera, plotlyjs=plotlyjs))
    policy = next(attributes["content"] for tag, attributes in shown.tags if attributes.get("http-equiv"))
    running = [
        (attributes, script)
        for attributes, script in zip((a for tag, a in shown.tags if tag == "script"), shown.scripts, strict=True)
        if attributes.get("type") != "application/json"
    ]
    assert len(running) == 2
    for attributes, script in running:
        if "src" in attributes:
            assert attributes["src"].startswith("https://cdn.plot.ly/plotly-")
            assert attributes["integrity"].startswith("sha256-")
        else:
            assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'; ")
    assert ("https:" in policy) == (plotlyjs == "cdn")


# -- figures ----------------------------------------------------------------------------------------------------------


def check_figures(page):
    """Plotly itself accepts every figure, each has its place, and they draw no more than they may."""
    objects = pytest.importorskip("plotly.graph_objects")
    figures = page.json("swiommu-figures")
    places = [attributes["id"] for _, attributes in page.tags if attributes.get("class") == "plot"]
    assert [figure["id"] for figure in figures if figure["id"] in places] == [figure["id"] for figure in figures]
    for figure in figures:
        objects.Figure(data=figure["data"], layout=figure["layout"])
    bars = [
        len(t["x"]) for figure in figures if figure["id"].startswith("area-") for t in figure["data"] if "base" in t
    ]
    assert sum(bars) <= RECTANGLES
    return figures


def test_plotly_accepts_the_figures(page):
    figures = check_figures(page)
    assert [figure["id"] for figure in figures] == ["area-1", "area-2", "area-3", "demand", "failures", "waste"]


@pytest.mark.parametrize(
    ("trace", "designs"),
    [
        pytest.param("x86-6.12-strict-vfio-s111", DESIGNS, marks=pytest.mark.slow),  # user mappings only
        ("x86-6.12-stacked-vfio-s1", DESIGNS),  # no dma events
        ("x86-6.12-strict-hotplug-iova-s33", DESIGNS),  # a few devices
        ("arm64-6.12-smmu-qtrace-s103", DESIGNS),  # an area that nothing is in
    ],
)
@pytest.mark.parametrize("memory", ["equal", "machine"])
def test_every_kind_of_recording_makes_a_page(data_dir, trace, designs, memory):
    answer = answer_of(data_dir / "traces" / f"{trace}.trace.gz", memory=memory, designs=designs)
    page = Page(comparison_html(answer, plotlyjs="cdn"))
    check_figures(page)
    assert answer.verdict in page.text


@pytest.mark.slow
def test_every_recording_makes_a_page(trace_path):
    answer = compare(read_trace(trace_path), with_need=False, keep_outcomes=True)
    check_figures(Page(comparison_html(answer, plotlyjs="cdn")))


@pytest.mark.slow
def test_every_design_makes_a_page_and_the_worst_case_is_merged():
    page = Page(comparison_html(compare(read_trace(CAMERA), knobs=Knobs(frames="random"), keep_outcomes=True)))
    check_figures(page)
    assert re.search(r"The [\d,]+ smallest pieces are merged into grey blocks\.", page.text)


def test_too_many_buffers_are_merged_and_it_is_said(camera, monkeypatch):
    monkeypatch.setattr("swiommu.report.html.RECTANGLES", 1500)
    page = Page(comparison_html(camera, plotlyjs="cdn"))
    figures = page.json("swiommu-figures")
    assert sum(len(trace["x"]) for figure in figures[:3] for trace in figure["data"] if "base" in trace) <= 1500
    assert re.search(r"The [\d,]+ smallest pieces are merged into grey blocks\.", page.text)


def test_hover_says_which_request(page):
    recorded = page.json("swiommu-figures")[0]
    told = [about for trace in recorded["data"] if "base" in trace for about in trace["customdata"]]
    first = "<b>vivid.0</b><br>request 1, line 18 of the trace<br>340 KiB at 0xb9b00000<br>"
    assert [about for about in told if about.startswith(first)]
    refused = recorded["data"][-1]["customdata"][0]
    assert re.fullmatch(
        r"<b>refused: vivid\.0</b><br>request \d+, line [\d,]+ of the trace<br>asked for [\d.]+ MiB<br>"
        r"free [\d.]+ MiB \((too little|enough, but scattered)\), largest hole [\d.]+ MiB",
        refused,
    )


def test_without_the_runs_only_the_recording_is_drawn():
    page = Page(comparison_html(answer_of(keep_outcomes=False), plotlyjs="cdn"))
    assert [figure["id"] for figure in check_figures(page)] == ["area-1", "demand", "failures", "waste"]


def test_no_requests_no_figures(camera):
    nothing = attrs.evolve(camera.workload, requests=[], served=[], ops=[], area=None)
    empty = attrs.evolve(camera, workload=nothing, outcomes={})
    page = Page(comparison_html(empty, plotlyjs="cdn"))
    assert "there is no picture to draw" in page.text


def areas_of(page):
    return [at["aria-label"] for _, at in page.tags if at.get("class") == "plot" and at["id"].startswith("area-")]


def test_drawn_are_the_designs_that_the_verdict_calls_the_best():
    answer = answer_of()
    carveout = next(row for row in answer.rows if row.name == "carveout-best-fit")
    carveout.lost += 1  # a tie with cma-bitmap, which loses nothing, and it comes first in the table
    page = Page(comparison_html(answer, plotlyjs="cdn"))
    drawn = areas_of(page)
    assert drawn == ["As recorded", "cma-bitmap", "iommu-strict"]
    assert drawn[1:] == [row.name for row in answer.best]
    answer.require_isolation = True
    page = Page(comparison_html(answer, plotlyjs="cdn"))
    drawn = areas_of(page)
    assert drawn == ["As recorded", "iommu-strict"]


# -- nobody's names are trusted ---------------------------------------------------------------------------------------


def hostile_answer(name):
    """The camera recording with a name wherever a name can come from outside."""
    answer = answer_of()
    for request in answer.workload.requests:
        request.device = name if request.index % 2 else "vivid.0"
    answer.workload.name = answer.path = name
    answer.workload.notes.append(name)
    answer.account.ignored[name] = 7
    answer.account.refuse(1, name)
    for row in answer.rows[1:]:
        row.summary = name
        row.why["cost"] = row.why["exposure_us"] = name
    last = answer.rows[-1]
    answer.outcomes[name] = answer.outcomes.pop(last.name)
    last.name = last.enforces = name
    return answer


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name[:20]))
def test_hostile_names_stay_text(name):
    html, harmless = (comparison_html(hostile_answer(each), plotlyjs="cdn") for each in (name, "nvme0"))
    shown = Page(html)
    assert [tag for tag, _ in shown.tags] == [tag for tag, _ in Page(harmless).tags]
    assert not [key for _, attributes in shown.tags for key in attributes if key.startswith("on")]
    printable = "".join(char if char.isprintable() else "?" for char in name)
    assert printable in shown.text
    figures = json.dumps(check_figures(shown))
    assert EVIL not in figures  # Plotly reads markup in labels
    assert "<img" not in figures
    body = html[html.index("<body") : html.index('<script type="application/json"')]
    assert not [char for char in body if not char.isprintable() and char not in "\n\u00ad"]
    assert read_comparison(html)["trace"]["name"] == name


def test_a_long_name_does_not_make_a_long_label():
    figures = Page(comparison_html(hostile_answer("N" * 5000), plotlyjs="cdn")).json("swiommu-figures")
    assert "N" * 61 not in json.dumps(figures)


# -- the command line, and a browser ----------------------------------------------------------------------------------


@pytest.fixture
def run(swiommu):
    return lambda *arguments: swiommu("compare", "--no-need", *map(str, arguments))


def hostile_trace(folder, data_dir):
    """A real recording whose device is named like a script."""
    lines = gzip.decompress((data_dir / "traces" / f"{CAMERA}.trace.gz").read_bytes()).decode()
    path = folder / f"{CAMERA}.trace"
    shutil.copy(data_dir / "traces" / f"{CAMERA}.json", folder)
    path.write_text(lines.replace("vivid.0", EVIL))
    return path


def test_command_writes_the_page_beside_the_answer(run, tmp_path):
    out = tmp_path / "report.html"
    done = run("--html", out, "--plotlyjs", "cdn", "--json", CAMERA)
    assert (done.returncode, done.stderr) == (0, b"")
    assert read_comparison(out.read_text(encoding="utf-8")) == json.loads(done.stdout)


def test_command_says_when_the_page_has_no_place(run, tmp_path):
    done = run("--html", tmp_path / "no" / "report.html")
    assert done.returncode == 2
    said = re.sub(r"\s+", " ", done.stderr.decode())
    assert f"Invalid value for --html: there is no directory {tmp_path / 'no'}" in said


def test_help_imports_neither_jinja_nor_plotly():
    code = (
        "import sys, swiommu.cli.compare; print(sorted({n.split('.')[0] for n in sys.modules} & {'jinja2', 'plotly'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_templates_are_where_the_package_is():
    import swiommu.report

    folder = Path(swiommu.report.__file__).parent / "templates"
    assert sorted(path.name for path in folder.iterdir()) == ["report.css", "report.html.j2", "report.js"]


@pytest.fixture(scope="module")
def browser():
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no chromium or chrome on this machine")
    return None


def open_in(browser, page, folder):
    """(DOM after its scripts ran, console lines, network addresses) of a page in a headless browser."""
    log, net = folder / "chrome.log", folder / "net.json"
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    logs = ("--enable-logging=stderr", f"--log-net-log={net}", f"--user-data-dir={folder / 'profile'}")
    command = [browser, *options, *logs, "--virtual-time-budget=20000", "--window-size=1200,900", "--dump-dom"]
    with log.open("w") as stderr:
        done = subprocess.run([*command, page.as_uri()], stdout=subprocess.PIPE, stderr=stderr, timeout=120, check=True)
    said = [line for line in log.read_text(errors="replace").splitlines() if "CONSOLE" in line]
    return done.stdout.decode(), said, asked_for(net)


def test_browser_draws_it_without_a_word(browser, run, tmp_path, data_dir):
    out = tmp_path / "report.html"
    trace = hostile_trace(tmp_path, data_dir)
    assert run("--html", out, "--design", "as-recorded", "--design", "iommu-strict", trace).returncode == 0
    dom, said, asked = open_in(browser, out, tmp_path)
    assert (said, asked) == ([], [])
    shown = Page(dom)
    plots = [attributes["id"] for _, attributes in shown.tags if "js-plotly-plot" in (attributes.get("class") or "")]
    assert plots == ["area-1", "area-2", "demand", "failures", "waste"]
    assert dom.count('class="main-svg"') >= len(plots)
    assert dom.count('class="point"') > 1000  # the rectangles
    assert sum(tag == "table" for tag, _ in shown.tags) == 2
    assert EVIL not in dom.split("<body", 1)[1].split('<script type="application/json"', 1)[0]
    titles = {attributes["data-title"] for _, attributes in shown.tags if "data-title" in attributes}
    assert titles  # the buttons of the figures
    assert not [title for title in titles if "hare" in title or "loud" in title], "a button sends the chart away"


@pytest.mark.slow
def test_browser_test_would_see_errors_and_requests(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<script>nothing.there</script><script src='https://plotly.invalid/a.js'></script>")
    _, said, asked = open_in(browser, page, tmp_path)
    assert "nothing is not defined" in said[0]
    assert asked == ["https://plotly.invalid/a.js"]


def asked_for(net_log):
    """Addresses that the page went to; the browser's own services have no page as their initiator."""
    asked = []
    for line in net_log.read_text(errors="replace").splitlines():
        if '"initiator"' in line and (url := re.search(r'"url":"(https?:[^"]*)"', line)):
            asked += [url[1]] if '"initiator":"not an origin"' not in line else []
    return asked
