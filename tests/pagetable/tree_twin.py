"""A page table as nested dicts: what `RadixTable` must do, written down for one leaf at a time.

A node is a dict of index -> node or `Held`. There is always a root at depth 0, so that growing is not seen here.
"""

from typing import NamedTuple

from swiommu.pagetable import page_size_choice


class Held(NamedTuple):
    start: int  # decoded input of the leaf's first byte
    size: int
    oa: int
    prot: int


class Refused(Exception):
    pass


class TreeTwin:
    def __init__(self, form):
        self.form, self.rules = form, form.rules
        self.shape = [(level.shift, 1 << level.bits) for level in form.levels]
        self.kind = {
            size: (depth, order) for depth, level in enumerate(form.levels) for order, size in level.sizes.items()
        }
        self.root = {}
        self.walked = []  # leaves that an unmap took for tables

    # -- looking

    def index(self, depth, at):
        shift, entries = self.shape[depth]
        return at >> shift & entries - 1

    def leaves(self, node=None):
        """Every leaf once, by address."""
        for item in (self.root if node is None else node).values():
            yield from self.leaves(item) if isinstance(item, dict) else [item]

    def listed(self):
        return sorted(set(self.leaves()))

    def find(self, at):
        node, depth = self.root, 0
        while isinstance(node, dict):
            node = node.get(self.index(depth, at))
            depth += 1
        return node

    # -- writing

    def map(self, at, to, pgsize, count, prot):
        """All leaves or none; what a leaf has replaced is gone all the same."""
        depth, order = self.kind[pgsize]
        per_table = self.shape[depth][1] >> order
        done = []
        try:
            while len(done) < count:
                here = at + len(done) * pgsize
                n = min(count - len(done), per_table - (self.index(depth, here) >> order))
                node = self.table(depth, here)
                self.make_room(node, depth, here, n << order)
                for _ in range(n):
                    held = Held(at + len(done) * pgsize, pgsize, to + len(done) * pgsize, prot)
                    self.put(node, depth, held)
                    done.append(held)
        except Refused:
            for held in done:
                self.drop(held)
            raise

    def table(self, depth, at):
        node = self.root
        for upper in range(depth):
            node = node.setdefault(self.index(upper, at), {})
            if not isinstance(node, dict):
                raise Refused(self.rules.occupied.__name__)
        return node

    def make_room(self, node, depth, at, entries):
        first = self.index(depth, at)
        there = [index for index in range(first, first + entries) if index in node]
        for index in there:
            item = node[index]
            if not isinstance(item, dict) or (any(self.leaves(item)) and not self.rules.replaces_live):
                raise Refused(self.rules.occupied.__name__)
        for index in there:
            del node[index]

    def put(self, node, depth, held):
        first = self.index(depth, held.start)
        for index in range(first, first + (held.size >> self.shape[depth][0])):
            node[index] = held

    def drop(self, held):
        depth, _ = self.kind[held.size]
        node = self.table(depth, held.start)
        first = self.index(depth, held.start)
        for index in range(first, first + (held.size >> self.shape[depth][0])):
            del node[index]
        if not self.rules.keeps_empty:
            self.prune(self.root)

    def prune(self, node):
        for index, item in list(node.items()):
            if isinstance(item, dict):
                self.prune(item)
                if not item:
                    del node[index]

    # -- removing

    def unmap(self, at, size):
        """The bytes that are answered."""
        if self.rules.short_unmap == "whole" and self.rules.entered != "stop":
            return self.unmap_by_calls(at, size)
        start, stop = at, at + size
        while at < stop:
            done = self.take_block(at, stop) if self.rules.drops_tables else self.take_leaf(at, stop)
            if not done:
                break
            at += done
        if at > start and self.rules.keeps_empty:
            self.free_covered(self.root, 0, 0, start, stop, at)
        return at - start

    def unmap_by_calls(self, at, size):
        """As the core of 6.12 calls a driver, which is told a page size and a count."""
        call = self.amd_call if self.rules.entered == "remove" else self.vtd_call
        done = 0
        while done < size:
            pgsize, count = page_size_choice(self.form.pgsize_bitmap, at + done, at + done, size - done)
            counted = call(at + done, pgsize * count)
            if not counted:
                break
            done += counted
        if done:
            self.free_covered(self.root, 0, 0, at, max(at + done, at + size), at + done)
        return done

    def up_to_a_hole(self, start, size):
        at = start
        while at < start + size and (held := self.find(at)) is not None:
            at = held.start + held.size
        return min(at - start, size)

    def amd_call(self, iova, size):
        done = 0
        while done < size:
            held = self.find(iova)
            if held is None:
                return done
            self.drop(held)
            iova = held.start + held.size
            done += held.size
        return done

    def vtd_call(self, iova, size):
        held = self.find(iova)
        if held is None:
            return 0
        size = max(size, held.size)
        if held.start == iova:
            size = self.up_to_a_hole(iova, size)  # the model's own: an unmap ends with a hole
        if iova + size > 1 << self.form.input_width:
            return size
        for each in list(self.listed()):
            if iova <= each.start and each.start + each.size <= iova + size:
                self.drop(each)
            elif each.start < iova + size and iova < each.start + each.size:
                self.walked.append(each)
        return size

    def take_leaf(self, at, stop):
        held = self.find(at)
        if held is None:
            return 0
        if held.start != at or held.start + held.size > stop:
            if self.rules.short_unmap == "split":
                end = held.start + held.size
                self.split(at)
                self.split(min(stop, end))
                held = self.find(at)
            elif held.start != at or self.rules.short_unmap == "refuse":
                return 0
        self.drop(held)
        return held.size

    def take_block(self, at, stop):
        """One page of the size that the core would ask the driver for."""
        pgsize, _ = page_size_choice(self.form.pgsize_bitmap, at, at, stop - at)
        depth, _ = self.kind[pgsize]
        node = self.root
        for upper in range(depth):
            node = node.get(self.index(upper, at))
            if not isinstance(node, dict):
                return self.take_leaf(at, stop)
        return pgsize if node.pop(self.index(depth, at), None) is not None else 0

    def free_covered(self, node, depth, base, start, stop, reached):
        shift, _ = self.shape[depth]
        for index, item in list(node.items()):
            first = base + (index << shift)
            if isinstance(item, dict):
                self.free_covered(item, depth + 1, first, start, stop, reached)
                if not item and start <= first < reached and first + (1 << shift) <= stop:
                    del node[index]

    # -- splitting

    def split(self, cut):
        """A border at ``cut``; whether that can be."""
        held = self.find(cut)
        if held is None or held.start == cut:
            return True
        size = self.size_of_pieces(held)
        if size is None:
            return False
        self.drop(held)
        depth, _ = self.kind[size]
        for n in range(held.size // size):
            piece = Held(held.start + n * size, size, held.oa + n * size, held.prot)
            self.put(self.table(depth, piece.start), depth, piece)
        return self.split(cut)

    def size_of_pieces(self, held):
        depth, order = self.kind[held.size]
        level = self.form.levels[depth]
        if order and level.can_leaf:
            return level.pgsize
        if depth + 1 < len(self.form.levels) and self.form.levels[depth + 1].can_leaf:
            return self.form.levels[depth + 1].pgsize
        return None
