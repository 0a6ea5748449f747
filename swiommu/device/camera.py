"""A camera that fetches its orders from memory, and a driver for it that knows only the DMA API.

The engine runs a program of little-endian 32-bit words at *bus* addresses, a small part of what the video engines of
the cx88 family understand. The top four bits are the operation, bit 24 raises the interrupt after it:

    1  WRITE  count, address   put the next ``count`` (bits 0-11) bytes of the picture at the address
    7  JUMP   address          go on there
    9  READ   count, address   load a table: byte n of it is what a pixel of value n is written as

In WRITE, bit 27 marks the start of a line and bit 26 its end. What goes wrong first when an address is confused is
seldom the picture and often the *fetch*: `Camera.stopped` tells the two apart.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import attrs

from swiommu.device.bus_device import BusDevice
from swiommu.device.grabber import FrameGrabber
from swiommu.dma import DMA_BIT_MASK, DmaDirection, Scatterlist
from swiommu.errors import InvalidArgument, NoDevice, SwiommuError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swiommu.address import BusAddr
    from swiommu.dma import CpuMemory, DmaDevice

__all__ = ["Camera", "CameraDriver", "Stop", "line_writes"]

WRITE, JUMP, READ = 0x1000_0000, 0x7000_0000, 0x9000_0000
START_OF_LINE, END_OF_LINE, IRQ = 1 << 27, 1 << 26, 1 << 24
LONGEST_WRITE = 0xFFC  # the longest count of whole words
_OPERATION, _COUNT = 0xF000_0000, 0xFFF
_TABLE_SIZE = 256
_PERIOD = 251  # of the picture's pattern


@attrs.frozen
class Stop:
    """Why an engine stopped: ``doing`` what (fetch, write, read, decode, run), at which ``pc``; the fault, if any."""

    doing: str
    pc: int
    instruction: int
    fault: SwiommuError | None = None


class Camera(BusDevice):
    """The engine: `start` sets where its program is, `capture` runs it until an instruction raises the interrupt.

    ``frames`` counts interrupts, ``stopped`` says why the last capture ended early, None if it did not.

    >>> from swiommu.address import BusSpace, PhysSpace
    >>> from swiommu.dma import DirectBus
    >>> from swiommu.memory import SparseRam
    >>> ram, bus = SparseRam(PhysSpace("ram", width=32)), BusSpace("soc", width=32)
    >>> camera = Camera("camera", ram, bus=DirectBus(bus, ram.space))
    >>> ram.write(ram.space.at(0x1000), bytes.fromhex("08000011 00800000"))  # WRITE 8 bytes to 0x8000, interrupt
    >>> camera.start(bus.at(0x1000)); camera.capture()
    1
    >>> ram.read(ram.space.at(0x8000), 8) == FrameGrabber.pattern(1, 8)
    True
    """

    frames = 0
    longest_program = 100_000  # instructions in one frame: a program that never interrupts must not run for ever
    stopped: Stop | None = None
    _pc: BusAddr | None = None
    _table: bytes | None = None

    def start(self, address: BusAddr) -> None:
        """Set where the next instruction is fetched."""
        self._pc = address

    def capture(self) -> int:
        """Run one frame; its number. Goes on at the instruction after the interrupt next time.

        Raises `NoDevice` before `start`, `DeviceFault` when memory is not reached, `SwiommuError` for a program that
        can't be; what was written before stays written.
        """
        if self._pc is None:
            raise NoDevice(f"camera {self.name!r} was not started")
        self.stopped = None
        picture = 0
        for _ in range(self.longest_program):
            pc = self._pc
            instruction, address = struct.unpack("<2I", self._access("fetch", pc.value, 0, pc, 8))
            target = pc.space.at(address)
            count = instruction & _COUNT
            operation = instruction & _OPERATION
            self._pc = target if operation == JUMP else pc + 8
            if operation == WRITE:
                self._access("write", pc.value, instruction, target, count, self._pixels(picture, count))
                picture += count
            elif operation == READ:
                self._table = self._access("read", pc.value, instruction, target, count).ljust(_TABLE_SIZE, b"\0")
            elif operation != JUMP:
                raise self._stop("decode", pc.value, instruction, f"there is no instruction {instruction:#010x}")
            if instruction & IRQ:
                self.frames += 1
                return self.frames
        raise self._stop("run", self._pc.value, 0, f"no interrupt in {self.longest_program} instructions")

    def _pixels(self, offset: int, count: int) -> bytes:
        shift = offset % _PERIOD
        data = FrameGrabber.pattern(self.frames + 1, shift + count)[shift:]
        return data if self._table is None else data.translate(self._table)

    def _access(
        self, doing: str, pc: int, instruction: int, address: BusAddr, size: int, data: bytes | None = None
    ) -> bytes:
        try:
            if data is None:
                return self.read(address, size)
            self.write(address, data)
        except SwiommuError as error:
            self.stopped = Stop(doing, pc, instruction, error)
            raise
        return data

    def _stop(self, doing: str, pc: int, instruction: int, why: str) -> SwiommuError:
        self.stopped = Stop(doing, pc, instruction)
        return SwiommuError(f"camera {self.name!r} stopped at {pc:#x}: {why}")


def line_writes(segments: Sequence[tuple[int, int]], bytes_per_line: int, lines: int) -> list[int]:
    """The WRITEs (two words each) that put ``lines`` lines one behind the other into segments (address, length).

    A line that meets the end of a segment goes on in the next. `InvalidArgument` if the segments are too short.

    >>> [f"{word:X}" for word in line_writes([(0x8000, 0x1000), (0x3000, 0x1000)], 0x600, 3)]
    ['1C000600', '8000', '1C000600', '8600', '18000400', '8C00', '14000200', '3000']
    """
    room = sum(length for _, length in segments)
    if room < bytes_per_line * lines:
        raise InvalidArgument(f"{lines} lines of {bytes_per_line} bytes in segments of {room} bytes")
    words: list[int] = []
    index, used = 0, 0
    for _ in range(lines):
        left = bytes_per_line
        flags = START_OF_LINE
        while left:
            address, length = segments[index]
            if used == length:
                index, used = index + 1, 0
                continue
            count = min(left, length - used, LONGEST_WRITE)
            left -= count
            words += [WRITE | flags | (0 if left else END_OF_LINE) | count, address + used]
            used += count
            flags = 0
    return words


class CameraDriver:
    """Drives one `Camera` through ``dev``, and knows nothing of what is below: a driver as in a kernel.

    ``table`` is one piece of memory of 256 bytes, which the camera reads before each frame. Methods answer 0 or a
    negative errno, as a kernel driver's do.

    >>> from swiommu.address import BusSpace, PhysRange, PhysSpace
    >>> from swiommu.dma import CpuMemory, DirectBus
    >>> from swiommu.memory import Frames, SparseRam
    >>> ram, bus = SparseRam(PhysSpace("ram", width=32)), BusSpace("soc", width=32)
    >>> soc = DirectBus(bus, ram.space)
    >>> camera = Camera("camera", ram, bus=soc, memory=[Frames(ram.space.at(0x4000_0000), 1 << 20)])
    >>> table = CpuMemory(ram, [PhysRange(ram.space.at(0x5000_0000), 256)])
    >>> driver = CameraDriver(camera.dma, camera, table)
    >>> buffer = CpuMemory(ram, [PhysRange(ram.space.at(0x6000_0000), 0x4000)])
    >>> driver.stream_on(buffer, bytes_per_line=640, lines=24), driver.grab()
    (0, 0)
    >>> buffer.read(0, 15360) == FrameGrabber.pattern(1, 15360)
    True
    >>> driver.stream_off(); camera.dma.live
    (0, 0)
    """

    def __init__(self, dev: DmaDevice, camera: Camera, table: CpuMemory) -> None:
        self.dev = dev
        self.camera = camera
        self.table = table
        self._sg: list[Scatterlist] = []

    def stream_on(self, buffer: CpuMemory, *, bytes_per_line: int, lines: int) -> int:
        """Map the table and ``buffer``, write the program, start; 0, or -EIO or -ENOMEM, with nothing left behind."""
        dev = self.dev
        if dev.dma_set_mask_and_coherent(DMA_BIT_MASK(32)):
            return -errno.EIO
        self.table.write(bytes(range(_TABLE_SIZE)))
        self._table_at = dev.dma_map_single(self.table.pieces[0].start, _TABLE_SIZE, DmaDirection.TO_DEVICE)
        if dev.dma_mapping_error(self._table_at):
            return -errno.ENOMEM
        self._sg = Scatterlist.of(buffer, longest=min(dev.dma_max_mapping_size(), dev.max_seg_size))
        segments = dev.dma_map_sg(self._sg, len(self._sg), DmaDirection.FROM_DEVICE)
        if not segments:
            self._unmap_table()
            return -errno.ENOMEM
        program = self._program(self._sg[:segments], bytes_per_line, lines)
        memory = dev.dma_alloc_coherent(len(program))
        if memory is None:
            self._unmap_buffer()
            self._unmap_table()
            return -errno.ENOMEM
        self._size = len(program)
        self._cpu, self._handle = memory
        # The last word sends the engine back to the beginning, which has its address only now.
        self._cpu.write(program[:-4] + struct.pack("<I", self._handle.value))
        self.camera.start(self._handle)
        return 0

    def set_table(self, table: bytes) -> None:
        """Change what pixels are written as, from the next frame on."""
        self.table.write(table)
        self.dev.dma_sync_single_for_device(self._table_at, len(table), DmaDirection.TO_DEVICE)

    def grab(self) -> int:
        """One more frame, in the buffer when this answers 0; -EIO if the camera stopped."""
        try:
            self.camera.capture()
        except SwiommuError:
            return -errno.EIO
        self.dev.dma_sync_sg_for_cpu(self._sg, len(self._sg), DmaDirection.FROM_DEVICE)
        return 0

    def stream_off(self) -> None:
        """Give everything back, in the reverse order."""
        self.dev.dma_free_coherent(self._size, self._cpu, self._handle)
        self._unmap_buffer()
        self._unmap_table()

    def _unmap_buffer(self) -> None:
        self.dev.dma_unmap_sg(self._sg, len(self._sg), DmaDirection.FROM_DEVICE)

    def _unmap_table(self) -> None:
        self.dev.dma_unmap_single(self._table_at, _TABLE_SIZE, DmaDirection.TO_DEVICE)

    def _program(self, mapped: Sequence[Scatterlist], bytes_per_line: int, lines: int) -> bytes:
        segments = [(entry.dma_address.value, entry.dma_length) for entry in mapped if entry.dma_address is not None]
        words = [READ | _TABLE_SIZE, self._table_at.value, *line_writes(segments, bytes_per_line, lines)]
        return struct.pack(f"<{len(words) + 2}I", *words, JUMP | IRQ, 0)
