"""Games between a program that asks and gives back, and an allocator that never moves what it placed.

An arena is two numbers: bit i of ``taken`` says whether unit i is taken, bit i of ``starts`` whether a block begins
there. The program may ask for any of some sizes as long as no more than ``live`` units are taken, and give back any
block. It plays against a *rule*, a function (taken, size) -> place or None, or against all rules there can be.
"""


def blocks(taken, starts):
    """(start, size) of every block, by address."""
    found = []
    while starts:
        start = (starts & -starts).bit_length() - 1
        starts &= starts - 1
        size = 1
        while taken >> (start + size) & 1 and not starts >> (start + size) & 1:
            size += 1
        found.append((start, size))
    return found


def holes(taken):
    """(start, size) of every hole below the topmost taken unit, by address."""
    found, place = [], 0
    while taken >> place:
        rest = taken >> place
        zeroes = (rest & -rest).bit_length() - 1
        if zeroes:
            found.append((place, zeroes))
        rest >>= zeroes
        place += zeroes + (~rest & (rest + 1)).bit_length() - 1
    return found


def first_fit(taken, size):
    """The lowest place."""
    mask, place = (1 << size) - 1, 0
    while taken >> place & mask:
        place += 1
    return place


def best_fit(taken, size):
    """The smallest hole that is large enough, of these the lowest; above everything if there is none."""
    usable = [(length, start) for start, length in holes(taken) if length >= size]
    return min(usable)[1] if usable else taken.bit_length()


def worst_fit(taken, size):
    """The largest hole, of these the lowest; above everything if it is not large enough."""
    usable = [(-length, start) for start, length in holes(taken) if length >= size]
    return min(usable)[1] if usable else taken.bit_length()


def buddy(arena, largest):
    """The rule of a buddy system over ``arena`` units, whole blocks of ``largest``; None where it has no room."""

    def place(taken, size):
        while size <= largest:
            for start in range(0, arena - size + 1, size):
                # A block of this size that is free, and whose other half is not: else both are one larger block.
                both = start & -(2 * size)
                alone = size == largest or taken >> both & ((1 << 2 * size) - 1)
                if alone and not taken >> start & ((1 << size) - 1):
                    return start
            size *= 2
        return None

    return place


def following(taken, starts):
    """Every arena in which one block less lives."""
    return [(taken & ~(((1 << size) - 1) << start), starts & ~(1 << start)) for start, size in blocks(taken, starts)]


def arenas_under(rule, live, sizes):
    """Every (taken, starts, size, place) that can come about: what is asked for in which arena, and where it goes."""
    seen, open_ = {(0, 0)}, [(0, 0)]
    while open_:
        taken, starts = open_.pop()
        after = following(taken, starts)
        for size in sizes:
            if taken.bit_count() + size <= live:
                place = rule(taken, size)
                yield taken, starts, size, place
                if place is not None:
                    after.append((taken | ((1 << size) - 1) << place, starts | 1 << place))
        fresh = set(after) - seen
        seen |= fresh
        open_.extend(fresh)


def worst_case(rule, live, sizes):
    """How many units some program can make an allocator with this rule reach up to."""
    return max(place + size for _, _, size, place in arenas_under(rule, live, sizes))


def smallest_buddy(live, largest):
    """The fewest units, a multiple of the largest block, in which a buddy system refuses no program."""
    sizes = [1 << order for order in range(largest.bit_length())]
    arena = -(-live // largest) * largest
    while any(place is None for *_, place in arenas_under(buddy(arena, largest), live, sizes)):
        arena += largest
    return arena


def every_arena(units, live, sizes):
    """All layouts of blocks of these sizes in ``units`` with at most ``live`` of them taken."""
    layouts = [[] for _ in range(units + 1)]
    layouts[0] = [(0, 0)]
    for end in range(1, units + 1):
        layouts[end] = list(layouts[end - 1])
        for size in sizes:
            if size <= end:
                place = end - size
                layouts[end] += [
                    (taken | ((1 << size) - 1) << place, starts | 1 << place)
                    for taken, starts in layouts[place]
                    if taken.bit_count() + size <= live
                ]
    return layouts[units]


def places(taken, units, size):
    """Where a block of this size has room."""
    mask = (1 << size) - 1
    return [place for place in range(units - size + 1) if not taken >> place & mask]


def refuses(units, live, sizes):
    """Whether every allocator there can be, in so many units, must at some time refuse some program.

    Arenas are lost from the end: lost is where a size has no place, or only such as lose. From an arena with one block
    more the program comes there by giving it back, so that one is lost too.
    """
    ways = {}
    lost, open_ = set(), []

    def lose(arena):
        if arena not in lost:
            lost.add(arena)
            open_.append(arena)

    for arena in every_arena(units, live, sizes):
        for size in sizes:
            if arena[0].bit_count() + size <= live:
                number = len(places(arena[0], units, size))
                ways[arena, size] = number
                if not number:
                    lose(arena)
    while open_:
        taken, starts = open_.pop()
        for size in sizes:
            if taken.bit_count() + size <= live:
                for place in places(taken, units, size):
                    lose((taken | ((1 << size) - 1) << place, starts | 1 << place))
        for start, size in blocks(taken, starts):
            before = (taken & ~(((1 << size) - 1) << start), starts & ~(1 << start))
            ways[before, size] -= 1
            if not ways[before, size]:
                lose(before)
    return (0, 0) in lost


def best_possible(live, sizes):
    """The fewest units in which some allocator can serve every program."""
    units = live
    while refuses(units, live, sizes):
        units += 1
    return units
