"""Splitting leaves: the same translation in smaller pieces, so that a part of it can go."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from swiommu.errors import InvalidArgument
from swiommu.pagetable.format import Leaf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.pagetable.nodes import Node, Nodes

__all__ = ["split_at"]


def split_at(nodes: Nodes, cuts: Sequence[int]) -> int:
    """Make borders between leaves at ``cuts``, decoded inputs; see `RadixTable.split`.

    >>> from swiommu.address import Prot
    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> table.map_run(0, 0x4000_0000, 0x20_0000, 1, Prot.READ)
    >>> split_at(table.nodes, [0x20_0000]), split_at(table.nodes, [0x1F_F000])
    (0, 1)
    """
    shrinking: set[tuple[Node, int, int]] = set()
    wanted: set[tuple[int, int]] = set()
    for cut in cuts:
        _plan(nodes, cut, shrinking, wanted)
    tables = sorted(wanted)
    pages = nodes.reserve([depth for depth, _ in tables])
    for node, first, order in shrinking:
        _shrink(nodes, node, first, order)
    for (depth, prefix), phys in zip(tables, pages, strict=True):
        _to_table(nodes, depth, prefix, phys)
    return len(tables)


def _plan(nodes: Nodes, cut: int, shrinking: set[tuple[Node, int, int]], wanted: set[tuple[int, int]]) -> None:
    # What has to happen for a border at `cut`: leaves of many entries that shrink to one each, (depth, prefix) of
    # tables that take the place of a leaf.
    node = nodes.deepest(cut)
    if node is None:
        return
    shift, _, mask = nodes.shape[node.depth]
    index = cut >> shift & mask
    item = nodes.format.decode(node.words[index], node.depth)
    if not isinstance(item, Leaf) or not cut & (1 << shift + item.order) - 1:
        return
    if item.order:
        first = index & -1 << item.order
        shrinking.add((node, first, item.order))
        if not nodes.format.levels[node.depth].can_leaf:
            base = node.prefix << mask.bit_length()
            wanted |= {(node.depth + 1, base + n) for n in range(first, first + (1 << item.order))}
    for depth in range(node.depth + 1, len(nodes.shape) + 1):
        above = nodes.shape[depth - 1][0]
        if not cut & (1 << above) - 1:
            return
        if depth > nodes.last_depth or not nodes.format.levels[depth].can_leaf:
            pgsize = 1 << above
            raise InvalidArgument(f"a leaf of {pgsize:#x} bytes can't be split at {cut:#x}", iova=cut)
        wanted.add((depth, cut >> nodes.shape[depth][1]))


def _shrink(nodes: Nodes, node: Node, first: int, order: int) -> None:
    # A leaf of many entries becomes as many leaves, in the same table.
    form, pgsize = nodes.format, 1 << nodes.shape[node.depth][0]
    word = node.words[first]
    item = form.decode(word, node.depth)
    assert isinstance(item, Leaf), f"{word:#x} is no leaf"
    count = 1 << order
    _fill(nodes, node, first, item, form.unsaid(word, node.depth, item), count)
    nodes.leaves[pgsize << order] -= 1
    if form.levels[node.depth].can_leaf:
        nodes.leaves[pgsize] += count


def _to_table(nodes: Nodes, depth: int, prefix: int, phys: int) -> None:
    # A leaf of one entry becomes a table of leaves.
    above_shift, above_span, above_mask = nodes.shape[depth - 1]
    above = nodes.by_depth[depth - 1][prefix << above_shift >> above_span]
    index = prefix & above_mask
    word = above.words[index]
    item = nodes.format.decode(word, depth - 1)
    assert isinstance(item, Leaf), f"{word:#x} is no leaf to split"
    above.words[index] = 0
    above.live -= 1
    node = nodes.link(above, index, phys)
    shift, _, mask = nodes.shape[depth]
    node.live = mask + 1
    _fill(nodes, node, 0, item, nodes.format.unsaid(word, depth - 1, item), mask + 1)
    if nodes.format.levels[depth - 1].can_leaf:
        nodes.leaves[1 << above_shift] -= 1
    nodes.leaves[1 << shift] += mask + 1


def _fill(nodes: Nodes, node: Node, first: int, leaf: Leaf, unsaid: int, count: int) -> None:
    # Leaves of one entry each that say together what ``leaf`` said, and what its word said beside (`Format.unsaid`).
    run = nodes.format.leaf_run(leaf.oa, node.depth, int(leaf.prot), 0, count)
    node.words[first : first + count] = array("Q", [each ^ unsaid for each in run] if unsaid else run)
