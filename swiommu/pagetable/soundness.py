"""What must hold of a page table: its pages against the index that writers use."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING

from swiommu.pagetable.format import Leaf, Table

if TYPE_CHECKING:
    from swiommu.pagetable.nodes import Node, Nodes

__all__ = ["check_table"]


def check_table(nodes: Nodes) -> None:
    """Assert what follows, or say which table is wrong.

    1. every table entry leads to the indexed table, and every indexed table is reached once;
    2. ``live`` is the number of entries in use, ``tables`` of those that lead to tables; only the root may have none,
       unless the rules keep empty tables;
    3. leaves stand at levels that can hold them, aligned, all their words alike, their number by size is ``leaves``;
    4. ``pages`` is what the tables take.

    >>> from swiommu.pagetable import MOCK, CountingTables, RadixTable
    >>> table = RadixTable(MOCK, CountingTables())
    >>> check_table(table.nodes)
    """
    leaves = dict.fromkeys(nodes.leaves, 0)
    reached = _check(nodes, nodes.root, leaves)
    indexed = sum(len(of) for of in nodes.by_depth)
    assert len(reached) == indexed, f"{len(reached)} tables reached, {indexed} known"
    pages = sum(nodes.format.levels[node.depth].table_bytes for node in reached) // 4096
    assert pages == nodes.pages, f"{pages} pages in tables, {nodes.pages} counted"
    assert leaves == nodes.leaves, f"leaves {leaves}, counted {nodes.leaves}"


def _check(nodes: Nodes, node: Node, leaves: dict[int, int]) -> list[Node]:
    shift, _, mask = nodes.shape[node.depth]
    where = f"table {node.phys:#x} at depth {node.depth}, prefix {node.prefix:#x}"
    reached, live, until = [node], 0, 0
    words = nodes.memory.entries(node.phys)[:]
    for index in compress(range(len(words)), words):
        live += 1
        item = nodes.format.decode(words[index], node.depth)
        if isinstance(item, Leaf) and index >= until:
            until = index + (1 << item.order)
            _check_leaf(nodes, node, index, item, words[index:until].tolist(), where)
            leaves[1 << shift + item.order] += 1
        elif isinstance(item, Table):
            below = nodes.by_depth[node.depth + 1][(node.prefix << mask.bit_length()) + index]
            assert below.phys == item.oa, f"{where}: entry {index} leads to {item.oa:#x}, not {below.phys:#x}"
            assert below.above is node, f"{where}: the table of entry {index} has another one above it"
            reached += _check(nodes, below, leaves)
    assert live == node.live, f"{where}: {live} entries in use, {node.live} counted"
    assert node.tables == sum(below.above is node for below in reached[1:]), f"{where}: {node.tables} tables counted"
    assert live or node.above is None or nodes.format.rules.keeps_empty, f"{where}: empty"
    return reached


def _check_leaf(nodes: Nodes, node: Node, index: int, leaf: Leaf, words: list[int], where: str) -> None:
    level = nodes.format.levels[node.depth]
    assert leaf.order in level.sizes, f"{where}: leaf at a level of tables"
    assert leaf.oa & (level.sizes[leaf.order] - 1) == 0, f"{where}: leaf {index} leads to {leaf.oa:#x}"
    assert index & (1 << leaf.order) - 1 == 0, f"{where}: leaf {index} of {1 << leaf.order} entries"
    assert len(set(words)) == 1, f"{where}: the words of leaf {index} differ: {[hex(word) for word in words]}"
