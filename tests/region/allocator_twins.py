"""Allocators written the long way: lists of holes, looked through for every call."""

PAGE = 4096


def align_up(value, align):
    return -(-value // align) * align


class Holes:
    """Holes as [start, size, stamp] in no order; a subclass says which one serves (`choose`)."""

    def __init__(self, start, size):
        self.start, self.size = start, size
        self.holes, self.stamp = [], 0
        self.put(start, size)

    def put(self, start, size):
        self.stamp += 1
        if size:
            self.holes.append([start, size, self.stamp])

    def fitting(self, size, align):
        return [hole for hole in self.holes if align_up(hole[0], align) + size <= hole[0] + hole[1]]

    def alloc(self, size, align):
        fitting = self.fitting(size, align)
        if not fitting:
            return None
        hole = self.choose(fitting, size, align)
        place = align_up(hole[0], align)
        self.cut(hole, place, size)
        return place

    def cut(self, hole, place, size):
        self.holes.remove(hole)
        self.put(place + size, hole[0] + hole[1] - place - size)
        self.put(hole[0], place - hole[0])

    def free(self, start, size):
        for hole in list(self.holes):
            if hole[0] + hole[1] == start or hole[0] == start + size:
                self.holes.remove(hole)
                start, size = min(start, hole[0]), size + hole[1]
        self.put(start, size)

    def reserve(self, start, size):
        (hole,) = (hole for hole in self.holes if hole[0] <= start and start + size <= hole[0] + hole[1])
        self.cut(hole, start, size)

    def by_address(self):
        return sorted((start, size) for start, size, _ in self.holes)


class FirstFitTwin(Holes):
    """The lowest hole that serves."""

    def choose(self, fitting, size, align):
        return min(fitting)


class TlsfTwin(Holes):
    """The newest hole of the lowest class that surely serves; without one, of the lowest that has one that does."""

    def bounds(self, pages):
        """Sizes in pages from which on a hole is of a higher class: 1 to 31 singly, then 16 for each doubling."""
        edges, width = list(range(1, 32)), 2
        while edges[-1] <= pages:
            edges += range(16 * width, 32 * width, width)
            width *= 2
        return edges

    def choose(self, fitting, size, align):
        most = max(hole[1] for hole in self.holes) // PAGE
        wanted = (size + align) // PAGE - 1
        edges = self.bounds(max(most, wanted))
        sure = min(edge for edge in edges if edge >= wanted)

        def order(hole):
            floor = max(edge for edge in edges if edge <= hole[1] // PAGE)
            return floor < sure, floor, -hole[2]

        return min(fitting, key=order)


class BuddyTwin:
    """A set of free pages; blocks are worked out anew for every call. What is held is a dict {first page: pages}."""

    def __init__(self, start, size, max_order=None):
        self.free_pages = set(range(start // PAGE, (start + size) // PAGE))
        self.max_order = (size // PAGE).bit_length() - 1 if max_order is None else max_order
        self.held = {}

    def blocks(self):
        """Every block as (order, first page): aligned, free, and not half of a larger one."""
        found, left = [], set(self.free_pages)
        for order in range(self.max_order, -1, -1):
            for page in sorted(left):
                block = range(page, page + (1 << order))
                if page % (1 << order) == 0 and left.issuperset(block):
                    found.append((order, page))
                    left -= set(block)
        return sorted(found)

    def alloc(self, size, align):
        order, step = (size // PAGE - 1).bit_length(), (align // PAGE).bit_length() - 1
        blocks = self.blocks()
        fitting = [block for block in blocks if block[0] >= max(order, step)]
        fitting = fitting or [block for block in blocks if block[0] >= order and block[1] % (1 << step) == 0]
        if not fitting:
            return None
        page = min(fitting)[1]
        self.held[page] = 1 << order
        self.free_pages -= set(range(page, page + (1 << order)))
        return page * PAGE

    def free(self, start, size):
        page = start // PAGE
        self.free_pages |= set(range(page, page + self.held.pop(page)))

    def reserve(self, start, size):
        self.held[start // PAGE] = size // PAGE
        self.free_pages -= set(range(start // PAGE, (start + size) // PAGE))

    def by_address(self):
        runs = []
        for page in sorted(self.free_pages):
            if runs and sum(runs[-1]) == page * PAGE:
                runs[-1] = (runs[-1][0], runs[-1][1] + PAGE)
            else:
                runs.append((page * PAGE, PAGE))
        return runs
