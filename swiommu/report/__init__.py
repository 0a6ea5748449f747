"""How an answer looks: terminal tables, and a comparison as one HTML file.

Nothing is decided here, and every name from a trace is escaped here. Jinja and Plotly are imported when a page is made.
"""

from __future__ import annotations

from swiommu.report.html import PlotlyJs, comparison_html, read_comparison
from swiommu.report.terminal import clean, print_comparison, print_verification

__all__ = [
    "PlotlyJs",
    "clean",
    "comparison_html",
    "print_comparison",
    "print_verification",
    "read_comparison",
]
