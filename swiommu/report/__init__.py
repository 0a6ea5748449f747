"""How an answer looks: terminal tables, a comparison as one HTML file, a walk as text or picture, a dump.

Nothing is decided here, and every name from a trace is escaped here. Jinja and Plotly are imported when a page is made.
"""

from __future__ import annotations

from swiommu.report.html import PlotlyJs, comparison_html, read_comparison
from swiommu.report.table import table_text
from swiommu.report.terminal import print_comparison, print_verification
from swiommu.report.walk import walk_text
from swiommu.report.walk_svg import walk_svg

__all__ = [
    "PlotlyJs",
    "comparison_html",
    "print_comparison",
    "print_verification",
    "read_comparison",
    "table_text",
    "walk_svg",
    "walk_text",
]
