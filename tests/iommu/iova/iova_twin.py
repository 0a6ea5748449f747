"""drivers/iommu/iova.c as a linked list, line by line: slow, and with nothing of swiommu in it."""

ANCHOR = (1 << 64) - 1
ULONG = (1 << 64) - 1


class Iova:
    def __init__(self, lo, hi):
        self.pfn_lo, self.pfn_hi = lo, hi
        self.prev = self.next = None


class Twin:
    """rb_prev and rb_next are the links; the rest reads like the kernel's."""

    def __init__(self, mag_size, max_order, cpus, start_pfn=1, granule=4096):
        self.anchor = Iova(ANCHOR, ANCHOR)
        self.start_pfn = start_pfn
        self.dma_32bit_pfn = (1 << 32) // granule
        self.max32_alloc_size = self.dma_32bit_pfn
        self.cached32_node = self.cached_node = self.anchor
        self.mag_size, self.max_order, self.cpus = mag_size, max_order, cpus
        self.loaded = [[[] for _ in range(cpus)] for _ in range(max_order)]
        self.prev = [[[] for _ in range(cpus)] for _ in range(max_order)]
        self.depot = [[] for _ in range(max_order)]
        self.visited = 0

    # -- the tree

    def nodes(self):
        node = self.anchor
        while node.prev:
            node = node.prev
        while node:
            yield node
            node = node.next

    def ranges(self):
        return [(node.pfn_lo, node.pfn_hi) for node in self.nodes() if node is not self.anchor]

    def insert(self, new):
        after = next(node for node in self.nodes() if node.pfn_lo > new.pfn_lo)
        new.prev, new.next = after.prev, after
        if after.prev:
            after.prev.next = new
        after.prev = new

    def remove(self, iova):
        if iova is self.cached32_node or (
            iova.pfn_hi < self.dma_32bit_pfn and iova.pfn_lo >= self.cached32_node.pfn_lo
        ):
            self.cached32_node = iova.next
        if iova.pfn_lo < self.dma_32bit_pfn:
            self.max32_alloc_size = self.dma_32bit_pfn
        if iova.pfn_lo >= self.cached_node.pfn_lo:
            self.cached_node = iova.next
        iova.next.prev = iova.prev
        if iova.prev:
            iova.prev.next = iova.next

    def find(self, pfn):
        return next((n for n in self.nodes() if n is not self.anchor and n.pfn_lo <= pfn <= n.pfn_hi), None)

    def iova_find_limit(self, limit_pfn):
        if limit_pfn > self.dma_32bit_pfn:
            return self.anchor
        return next(node for node in self.nodes() if node.pfn_lo >= limit_pfn)

    def alloc_iova(self, size, limit_pfn, size_aligned=True):
        """The pfn, or None."""
        limit_pfn += 1
        align_mask = ULONG
        if size_aligned:
            align_mask = (ULONG << (size - 1).bit_length()) & ULONG
        high_pfn, low_pfn = limit_pfn, self.start_pfn
        if limit_pfn <= self.dma_32bit_pfn and size >= self.max32_alloc_size:
            return None
        curr = self.cached32_node if limit_pfn <= self.dma_32bit_pfn else self.cached_node
        retry_pfn = curr.pfn_hi
        while True:
            while True:
                high_pfn = min(high_pfn, curr.pfn_lo)
                new_pfn = (high_pfn - size) & ULONG & align_mask
                curr = curr.prev
                self.visited += 1
                if not (curr and new_pfn <= curr.pfn_hi and new_pfn >= low_pfn):
                    break
            if high_pfn < size or new_pfn < low_pfn:
                if low_pfn == self.start_pfn and retry_pfn < limit_pfn:
                    high_pfn = limit_pfn
                    low_pfn = retry_pfn + 1
                    curr = self.iova_find_limit(limit_pfn)
                    continue
                self.max32_alloc_size = size
                return None
            break
        new = Iova(new_pfn, new_pfn + size - 1)
        self.insert(new)
        if new.pfn_hi < self.dma_32bit_pfn:
            self.cached32_node = new
        else:
            self.cached_node = new
        return new_pfn

    def free_iova(self, pfn):
        iova = self.find(pfn)
        if iova:
            self.remove(iova)

    def reserve_iova(self, pfn_lo, pfn_hi):
        overlap = False
        for node in list(self.nodes()):
            if node is self.anchor:
                break
            if pfn_lo <= node.pfn_hi and pfn_hi >= node.pfn_lo:
                node.pfn_lo = min(node.pfn_lo, pfn_lo)
                if pfn_hi > node.pfn_hi:
                    pfn_lo = node.pfn_hi + 1
                if pfn_lo >= node.pfn_lo and pfn_hi <= node.pfn_hi:
                    return
                overlap = True
            elif overlap:
                break
        self.insert(Iova(pfn_lo, pfn_hi))

    # -- the caches

    def rcache_insert(self, cpu, pfn, size):
        order = (size - 1).bit_length()
        if order >= self.max_order:
            return False
        loaded, prev = self.loaded[order], self.prev[order]
        if len(loaded[cpu]) == self.mag_size:
            if len(prev[cpu]) < self.mag_size:
                loaded[cpu], prev[cpu] = prev[cpu], loaded[cpu]
            else:
                self.depot[order].append(loaded[cpu])
                loaded[cpu] = []
        loaded[cpu].append(pfn)
        return True

    def rcache_get(self, cpu, size, limit_pfn):
        order = (size - 1).bit_length()
        if order >= self.max_order:
            return 0
        loaded, prev = self.loaded[order], self.prev[order]
        if not loaded[cpu]:
            if prev[cpu]:
                loaded[cpu], prev[cpu] = prev[cpu], loaded[cpu]
            elif self.depot[order]:
                loaded[cpu] = self.depot[order].pop()
            else:
                return 0
        mag = loaded[cpu]
        i = len(mag) - 1
        while mag[i] > limit_pfn - size:
            if i == 0:
                return 0
            i -= 1
        pfn = mag[i]
        mag[i] = mag[-1]
        mag.pop()
        return pfn

    def free_magazine(self, mag):
        for pfn in mag:
            self.free_iova(pfn)
        mag.clear()

    def alloc_iova_fast(self, size, limit_pfn, flush_rcache, cpu):
        if size < 1 << (self.max_order - 1):
            size = 1 << (size - 1).bit_length()
        pfn = self.rcache_get(cpu, size, limit_pfn + 1)
        if pfn:
            return pfn
        while True:
            pfn = self.alloc_iova(size, limit_pfn)
            if pfn is not None or not flush_rcache:
                return pfn
            flush_rcache = False
            for each in range(self.cpus):
                for order in range(self.max_order):
                    self.free_magazine(self.loaded[order][each])
                    self.free_magazine(self.prev[order][each])
            for order in range(self.max_order):
                while self.depot[order]:
                    self.free_magazine(self.depot[order].pop())

    def free_iova_fast(self, pfn, size, cpu):
        if not self.rcache_insert(cpu, pfn, size):
            self.free_iova(pfn)

    def depot_work(self, order):
        if len(self.depot[order]) > self.cpus:
            self.free_magazine(self.depot[order].pop())
            return True
        return False
