"""How an answer looks: terminal tables. Nothing is computed here, and every name from a trace is escaped here."""

from __future__ import annotations

from swiommu.report.terminal import clean, print_comparison, print_verification

__all__ = ["clean", "print_comparison", "print_verification"]
