"""The laws in words: number, name and statement, as reports of a broken law quote them.

T is the partial function of a path on success (address, permissions, attributes), ``f;g`` is f above g. The numbers
are those of the specification; 17 (bouncing) belongs to the DMA backends.
"""

from __future__ import annotations

__all__ = ["STATEMENTS", "broken"]

STATEMENTS: dict[int, tuple[str, str]] = {
    1: ("identity", "id;f = f = f;id, references and blocks too"),
    2: ("zero", "block;f and f;block never succeed, and the fault names the blocker"),
    3: ("associativity", "(f;g);h = f;(g;h): addresses, permissions, attributes, blocks, extents, faults, references"),
    4: ("pipeline", "T(f;g)(a) = T(g)(T(f)(a)), with permissions met"),
    5: ("flattening", "flat(f;g) has the T and the faults of f;g, and is idempotent"),
    6: ("shadow", "a shadow is the flattening of its source after each sync"),
    7: ("window algebra", "offset(d1);offset(d2) = offset(d1+d2) where both reach; offset(d);offset(-d) = id"),
    8: (
        "monotonicity",
        "a new mapping changes no other answer; unmapping lets nothing new succeed; both undo each other",
    ),
    9: ("permission", "perm(f;g) is in perm(f) and perm(g); meet is a meet; less permission never adds access"),
    10: ("attribution", "with the blamed layer out of the way the fault is gone, and nobody above it refuses"),
    11: ("no leak", "what is reached is in the image of the top mapping, and addresses of another space reach nothing"),
    12: ("isolation", "no operation of one device changes answers, bytes or table pages of another"),
    13: ("cache transparency", "cached = uncached; without invalidation old or new, never a mixture"),
    14: ("split/merge invariance", "granules mapped one by one, or in one call, give the same T"),
    15: ("segments", "the segments of a range are its bytes' translations, and no two neighbours could be one"),
    16: ("dirty", "what is dirty above is dirty below, at each layer's leaf, and nothing else is"),
    18: ("conservation", "live + free = size; live ranges are disjoint, aligned and inside"),
    19: ("order independence", "independent maps give the same T in any order"),
    20: ("cost", "references are those of the closed formula, whatever the size of the data"),
    21: ("round trip", "iova_to_phys is translate where access is permitted"),
    22: ("renaming", "shifting an intermediate space on both of its sides changes nothing at the top"),
    23: ("duplication", "a page mapped by two tops is one memory"),
}
"""Number -> name, statement."""


def broken(number: int, text: str) -> AssertionError:
    """The error that a broken law raises: its number and name, then what was seen.

    >>> print(broken(1, "0x1000 leads elsewhere"))
    law 1 (identity): 0x1000 leads elsewhere
    """
    return AssertionError(f"law {number} ({STATEMENTS[number][0]}): {text}")
