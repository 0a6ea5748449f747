"""Areas that mainline's command line asks for: ``cma=``, ``cma_pernuma=``, ``numa_cma=``, ``hugetlb_cma=``.

    cma=SIZE[@BASE[-LIMIT]]      the default area "reserved"; with a base and no limit it must be exactly there
    cma_pernuma=SIZE             an area "pernuma<N>" on each node
    numa_cma=NODE:SIZE[,...]     an area "numa<N>" on a node
    hugetlb_cma=SIZE             areas "hugetlb<N>" for gigantic pages, spread over the nodes
    hugetlb_cma=NODE:SIZE[,...]

Numbers are decimal, 0x or 0, with K, M, G, T, P or E, in 64 bits. As in the kernel, what can't be read ends a list and
is ignored: ``256MB`` is 256M, and ``1.5G`` is one byte. Names are in lower case. A later ``cma=`` without a base keeps
the base of an earlier one. The ``cma=`` of 2010 is another language: `cma_compat.cmdline`. Source:
``kernel/dma/contiguous.c``, ``mm/hugetlb.c``, ``memparse`` and ``next_arg`` of ``lib/cmdline.c``.
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

import attrs

from swiommu.profile import DEFAULT_PROFILE, profile_of
from swiommu.region.mainline.area import CmaArea
from swiommu.region.mainline.boot_memory import declare_area
from swiommu.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swiommu.profile import Profile
    from swiommu.region.mainline.boot_memory import BootMemory

__all__ = ["AreaPlan", "CommandLinePlan", "Refusal", "parameters", "plan_command_line"]

_NUMBER = re.compile(r"(?:0[xX](?P<hex>[0-9a-fA-F]+)|0(?P<octal>[0-7]*)|(?P<decimal>[0-9]*))(?P<unit>[kKmMgGtTpPeE]?)")
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_NODE = re.compile(r"([0-9]+):")
_WORD = re.compile(r'(?:[^ \t\n\v\f\r\xa0"]|"[^"]*(?:"|$))+')
_MOST_NODES = 1024  # MAX_NUMNODES of large kernels
_BITS_64 = (1 << 64) - 1


@attrs.frozen
class Refusal:
    """What the kernel would refuse: ``what`` it is, the positive ``errno`` (0: a warning only), the ``reason``."""

    what: str
    errno: int
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


@attrs.frozen
class AreaPlan:
    """An area to be declared, in bytes; arguments as of `declare_area`, where the kernel's rounding happens.

    >>> from swiommu.address import PhysRange, PhysSpace
    >>> from swiommu.region.mainline import BootMemory
    >>> memory = BootMemory([PhysRange(PhysSpace("ram").at(0x4000_0000), 1 << 30)])
    >>> area = AreaPlan("reserved", 63 << 20).declare(memory)
    >>> hex(area.allocator.start), area.count
    ('0x7c000000', 16384)
    """

    name: str
    size: int
    base: int = 0
    limit: int = 0
    alignment: int = 0
    order_per_bit: int = 0
    fixed: bool = False
    node: int | None = None
    several: bool = False

    @property
    def default(self) -> bool:
        """Whether devices without an area of their own use it."""
        return self.name == "reserved"

    def declare(self, memory: BootMemory, *, profile: Profile | str = DEFAULT_PROFILE) -> CmaArea:
        """Reserve it in ``memory``, as an area that the kernel of ``profile`` has; raises what `declare_area` raises.

        Only kernels from 6.15 on make one area of several ranges.
        """
        ranges = declare_area(
            memory,
            self.size,
            base=self.base,
            limit=self.limit,
            alignment=self.alignment,
            order_per_bit=self.order_per_bit,
            fixed=self.fixed,
            node=self.node,
            several=self.several and profile_of(profile).cma_several_ranges,
        )
        return CmaArea.over(
            self.name, ranges, page_size=memory.page_size, order_per_bit=self.order_per_bit, profile=profile
        )


@attrs.frozen
class CommandLinePlan:
    """``areas`` in the order in which they are declared, what is ``refused``, and whether ``cma=`` was given at all.

    With it (also with ``cma=0``, which makes no area), a default area of the device tree is passed over.
    """

    areas: tuple[AreaPlan, ...]
    refused: tuple[Refusal, ...]
    cma_given: bool


def plan_command_line(
    text: str,
    *,
    nodes: Sequence[int] = (0,),
    limit: int = 0,
    page_size: int = 4096,
    gigantic_page: int = 1 << 30,
    huge_page: int = 2 << 20,
) -> CommandLinePlan:
    """The areas that a kernel's command line asks for, on a machine with these NUMA ``nodes``; sizes in bytes.

    ``limit`` is what the platform sets for the default area (0: none). Nothing is raised: what the kernel refuses or
    passes over with a warning is in ``refused``, and what it ignores too.

    >>> plan = plan_command_line("quiet cma=64M@1G-2G hugetlb_cma=3G numa_cma=0:16M,7:16M", nodes=(0, 1))
    >>> for area in plan.areas:
    ...     print(area.name, area.size >> 20, hex(area.base), hex(area.limit), area.fixed)
    numa0 16 0x0 0x0 False
    reserved 64 0x40000000 0x80000000 False
    hugetlb0 2048 0x0 0x0 False
    hugetlb1 1024 0x0 0x0 False
    >>> print(*plan.refused)
    numa_cma=: node 7 is not there
    """
    planner = _Planner(tuple(nodes))
    for name, value in parameters(text):
        planner.take(name, value)
    planner.plan_nodes()
    planner.plan_default(limit)
    planner.plan_huge(gigantic_page, (huge_page // page_size).bit_length() - 1)
    return CommandLinePlan(tuple(planner.areas), tuple(planner.refused), planner.size is not None)


def parameters(text: str) -> Iterator[tuple[str, str | None]]:
    """Names (a dash is an underscore) and values; double quotes keep spaces together; what follows ``--`` is init's.

    Quotes go where they enclose a value or the whole of a parameter; others are a part of it. Source: ``next_arg`` of
    ``lib/cmdline.c``.

    >>> list(parameters('quiet swiotlb="2048,force" iommu.strict=1 -- swiotlb=1'))
    [('quiet', None), ('swiotlb', '2048,force'), ('iommu.strict', '1')]
    """
    for word in _WORD.findall(text.partition("\0")[0]):
        quoted, inner = word.startswith('"'), word.removeprefix('"')
        equals = inner.find("=", 1)  # a name has one character at least
        name, value = (inner, None) if equals < 0 else (inner[:equals], inner[equals + 1 :])
        if value is not None:
            value = value[1:].removesuffix('"') if value.startswith('"') else value.removesuffix('"' * quoted)
        elif quoted:
            name = name.removesuffix('"')
        if name == "--" and value is None:
            return
        yield name.replace("-", "_"), value


def _memparse(text: str) -> tuple[int, str]:
    """A number with its unit, and what follows; 0 where there is none. Modulo 2**64, as in the kernel."""
    found = _NUMBER.match(text)
    assert found is not None, "every part of the pattern may be empty"
    digits, base = (
        (found["hex"], 16) if found["hex"] else (found["octal"], 8) if found["octal"] is not None else ("", 10)
    )
    value = 0
    # Digit by digit, for Python refuses to read decimal numbers of some thousand digits at once.
    for digit in digits or found["decimal"] or "":
        value = (value * base + int(digit, 16)) & _BITS_64
    return (value << _UNITS[found["unit"].lower()]) & _BITS_64, text[found.end() :]


class _Planner:
    """What the parameters set, one after another, and the plans made of it."""

    def __init__(self, nodes: tuple[int, ...]) -> None:
        self.nodes = nodes
        self.areas: list[AreaPlan] = []
        self.refused: list[Refusal] = []
        self.size: int | None = None
        self.base = self.limit = self.per_node = 0
        self.by_node: dict[int, int] = {}
        self.huge = 0
        self.huge_by_node: dict[int, int] = {}

    def take(self, name: str, value: str | None) -> None:
        readers = {
            "cma": self._cma,
            "cma_pernuma": self._cma_pernuma,
            "numa_cma": self._numa_cma,
            "hugetlb_cma": self._hugetlb_cma,
        }
        reader = readers.get(name)
        if reader is None:
            if name.lower() in readers:
                self._refuse(name, 0, f"the kernel reads {name.lower()}= in lower case only")
            return
        if value is None:
            self._refuse(name, errno.EINVAL, "no value is given")
            return
        rest = reader(value)
        if rest:
            read = "" if name != "cma" else f", the size is {counted(self.size or 0, 'byte')}"
            self._refuse(name, 0, f"{rest[:40]!r} is ignored{read}")

    def plan_nodes(self) -> None:
        for node in sorted({*self.nodes, *self.by_node}):
            if node not in self.nodes:
                self._refuse("numa_cma", 0, f"node {node} is not there")
                continue
            if self.per_node:
                self.areas.append(AreaPlan(f"pernuma{node}", self.per_node, node=node))
            if self.by_node.get(node):
                self.areas.append(AreaPlan(f"numa{node}", self.by_node[node], node=node))

    def plan_default(self, platform: int) -> None:
        if not self.size:
            return
        fixed = (self.base + self.size) & _BITS_64 == self.limit
        limit = min(filter(None, (self.limit, platform)), default=0)
        self.areas.append(AreaPlan("reserved", self.size, base=self.base, limit=limit, fixed=fixed))

    def plan_huge(self, gigantic: int, order_per_bit: int) -> None:
        wanted = {}
        for node, size in sorted(self.huge_by_node.items()):
            if not size:
                continue
            if node not in self.nodes:
                self._refuse("hugetlb_cma", 0, f"node {node} is not there")
            elif size < gigantic:
                self._refuse("hugetlb_cma", 0, f"the area of node {node} must have at least {gigantic >> 20} MiB")
            else:
                wanted[node] = size
                continue
            self.huge -= size
        if self.huge <= 0:
            return
        if self.huge < gigantic:
            self._refuse("hugetlb_cma", 0, f"the area must have at least {gigantic >> 20} MiB")
            return
        reserved = 0
        per_node = -(-self.huge // len(self.nodes))
        for node in sorted(wanted or self.nodes):
            size = wanted[node] if wanted else min(per_node, self.huge - reserved)
            size = -(-size // gigantic) * gigantic
            plan = AreaPlan(
                f"hugetlb{node}", size, alignment=gigantic, order_per_bit=order_per_bit, node=node, several=True
            )
            self.areas.append(plan)
            reserved += size
            if reserved >= self.huge:
                return

    def _cma(self, value: str) -> str:
        size, rest = _memparse(value)
        self.size = None if size == _BITS_64 else size  # -1 is what stands there before
        if rest.startswith("@"):
            self.base, rest = _memparse(rest[1:])
            if rest.startswith("-"):
                self.limit, rest = _memparse(rest[1:])
            else:
                self.limit = (self.base + size) & _BITS_64
        return rest

    def _cma_pernuma(self, value: str) -> str:
        self.per_node, rest = _memparse(value)
        return rest

    def _numa_cma(self, value: str) -> str:
        return self._list("numa_cma", value, self.by_node)

    def _hugetlb_cma(self, value: str) -> str:
        before = sum(self.huge_by_node.values())
        rest = self._list("hugetlb_cma", value, self.huge_by_node)
        self.huge += sum(self.huge_by_node.values()) - before
        if rest[:1].isdigit() and rest[:1].isascii() and not _NODE.match(rest):
            # A size without a node: the kernel reads the whole value once more from its beginning.
            self.huge, rest = _memparse(value)
        return rest

    def _list(self, name: str, value: str, sizes: dict[int, int]) -> str:
        """Read ``node:size`` pairs; what is left where the list ends."""
        rest = value
        while found := _NODE.match(rest):
            digits = found[1].lstrip("0") or "0"
            if len(digits) > 4 or int(digits) >= _MOST_NODES:
                self._refuse(name, 0, f"node {digits[:20]} is beyond {_MOST_NODES - 1}")
                return rest
            sizes[int(digits)], rest = _memparse(rest[found.end() :])
            if not rest.startswith(","):
                break
            rest = rest[1:]
        return rest

    def _refuse(self, name: str, code: int, reason: str) -> None:
        self.refused.append(Refusal(f"{name}=", code, reason))
