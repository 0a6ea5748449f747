"""``python -m swiommu``: the command line, for where the script is not on the path."""

from __future__ import annotations

from swiommu.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
