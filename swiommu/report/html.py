"""A comparison as one HTML file that needs nothing else: no network, light and dark, print and narrow screens.

The page carries its own answer as JSON, so that a report can be read again: `read_comparison`. Nothing from a trace
is trusted: Jinja escapes every value, control characters are replaced, figures get escaped labels, JSON can't close
its script element, and the page's policy runs no script but its own two.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from swiommu.errors import InputError
from swiommu.policy import Policy
from swiommu.replay import design_history, recorded_history
from swiommu.report.area import RECTANGLES, area_figure
from swiommu.report.columns import table_of
from swiommu.report.figures import Figure, demand_figure, failures_figure, waste_figure
from swiommu.report.sections import assumptions, exposures, facts
from swiommu.report.unused import left_out
from swiommu.words import clean, mib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Template

    from swiommu.answers import Comparison
    from swiommu.replay import AreaHistory

__all__ = ["PlotlyJs", "comparison_html", "read_comparison"]


class PlotlyJs(Policy):
    """Where a report has the drawing library from: it is in the file, or fetched when that is opened."""

    INLINE = "inline"
    CDN = "cdn"


_OPEN, _CLOSE = '<script type="application/json" id="swiommu-data">', "</script>"
_CDN = "https://cdn.plot.ly"


def comparison_html(answer: Comparison, *, plotlyjs: PlotlyJs | str = PlotlyJs.INLINE) -> str:
    """The report; ``plotlyjs`` puts the drawing library into the file (5 MB) or fetches it when the file is opened.

    Figures of designs need ``compare(..., keep_outcomes=True)``; without them only the recording is drawn.

    >>> from swiommu.answers import compare
    >>> from swiommu.trace import read_trace
    >>> answer = compare(read_trace("arm64-6.12-cam-cma64M-s81"), ["cma-bitmap"], with_need=False)
    >>> page = comparison_html(answer, plotlyjs="cdn")
    >>> read_comparison(page) == answer.to_json()
    True
    """
    areas = _areas(answer)
    failures, waste = failures_figure(answer), waste_figure(answer.rows)
    demand = demand_figure(answer.workload)
    figures = [*areas, *(figure for figure in (demand, failures, waste) if figure)]
    script, styles = _part("report.js"), _part("report.css")
    unused = left_out(answer)
    library = _library(PlotlyJs(plotlyjs))
    return _template().render(
        answer=answer,
        facts=facts(answer),
        table=table_of(answer),
        areas=areas,
        demand=demand,
        failures=failures,
        waste=waste,
        exposures=exposures(answer),
        assumptions=list(assumptions(answer)),
        unused=[each for each in unused if each.number],
        none_of=[each.kind for each in unused if not each.number],
        figures=_json([figure.to_json() for figure in figures]),
        data=_json(answer.to_json()),
        styles=styles,
        script=script,
        library=library,
        policy=_policy(script, library),
    )


def read_comparison(page: str) -> dict[str, Any]:
    """The document ``swiommu.compare/1`` out of a report; `InputError` if the text is no such report.

    >>> read_comparison('... <script type="application/json" id="swiommu-data">{"verdict":"a tie"}</script> ...')
    {'verdict': 'a tie'}
    """
    _, found, rest = page.partition(_OPEN)
    document, closed, _ = rest.partition(_CLOSE)
    if not found or not closed:
        raise InputError("this is no report of swiommu: it carries no data")
    try:
        answer: dict[str, Any] = json.loads(document)
    except ValueError as error:
        raise InputError(f"the data of this report can't be read: {error}") from None
    return answer


def _areas(answer: Comparison) -> list[Figure]:
    """The recording, and the best design without and with translation hardware: as many as have places to show."""
    workload = answer.workload
    histories: list[tuple[AreaHistory | None, str]] = [(recorded_history(workload), "")]
    for row in answer.best:
        outcome = answer.outcomes.get(row.name)
        tables = f"Page tables ({mib(row.table_bytes or 0)} at most) take frames too and are not drawn."
        histories.append((design_history(workload, outcome) if outcome else None, tables if row.table_bytes else ""))
    drawn = [(history, note) for history, note in histories if history and (history.rectangles or history.refusals)]
    limits = _shares([len(history.rectangles) for history, _ in drawn], RECTANGLES)
    return [
        area_figure(workload, history, limit, number, note)
        for number, ((history, note), limit) in enumerate(zip(drawn, limits, strict=True), 1)
    ]


def _shares(wanted: Sequence[int], total: int) -> list[int]:
    """Who wants less than an equal share leaves the rest to the others.

    >>> _shares([10, 4000, 9000], 5000)
    [10, 2495, 2495]
    """
    shares = [0] * len(wanted)
    for done, place in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[place] = min(wanted[place], (total - sum(shares)) // (len(wanted) - done))
    return shares


# -- the file ---------------------------------------------------------------------------------------------------------


def _part(name: str) -> str:
    return resources.files("swiommu.report").joinpath("templates", name).read_text(encoding="utf-8")


def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_printable, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_part("report.html.j2"))


def _printable(value: object) -> object:
    """What is put into the page: text without control characters, except where the page itself is the author."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return clean(value, keep="\n\u00ad")


def _json(document: object) -> str:
    r"""JSON that can stand in a script element: nothing in it can close the element or open a comment.

    >>> _json("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _library(plotlyjs: PlotlyJs) -> dict[str, str]:
    """Plotly's own script: its text, or where to fetch it and the hash that it must have."""
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    text: str = get_plotlyjs()
    if plotlyjs is PlotlyJs.INLINE:
        # The browser parses it as the content of an element, so it must not hold the element's end.
        if _CLOSE in text.lower():
            raise InputError("this release of plotly can't be put into a page: use --plotlyjs cdn")
        return {"text": text, "hash": _hash(text)}
    return {"url": f"{_CDN}/plotly-{get_plotlyjs_version()}.min.js", "hash": _hash(text)}


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _policy(script: str, library: dict[str, str]) -> str:
    """What the browser may do for this page: run these two scripts, style, and nothing over the network."""
    plotly = f"'{library['hash']}'" if "text" in library else _CDN
    return (
        f"default-src 'none'; script-src '{_hash(script)}' {plotly}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
