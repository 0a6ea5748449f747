"""``--frames random``: what is drawn, and what it takes over the memory of a big machine."""

import tracemalloc
from random import Random

from swiommu.address import PhysSpace
from swiommu.answers import compare
from swiommu.memory import Frames
from swiommu.replay import Knobs
from swiommu.replay.backends.random_frames import RandomFrames

TRACE = (
    "          v4lcap-185     [000] .....     8.594447: dma_alloc: 0000:00:01.0 dir=BIDIRECTIONAL dma_addr=b5b00000 "
    "size=16384 virt_addr=0000000015db8321 flags=GFP_KERNEL attrs=\n"
)


def test_the_frames_of_a_big_machine_are_not_listed(trace_of):
    trace = trace_of(TRACE, {"system_ram": ["100000000-7fffffffffffffff : System RAM"]})
    tracemalloc.start()
    answer = compare(trace, ["iommu-strict"], memory="machine", with_need=False, knobs=Knobs(frames="random", seed=1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.rows[0].failed, answer.rows[0].maps) == (0, 4)
    assert peak < 128 << 20


def test_draws_are_those_of_a_list_of_all_free_frames():
    frames = Frames(PhysSpace("ram").at(0x10_0000), 64 << 12)
    frames.occupy(0x110, 5)
    drawn, ours = RandomFrames(frames, 7), []
    listed, choose = [pfn for pfn in range(0x100, 0x140) if not 0x110 <= pfn < 0x115], Random(7)

    def draw():
        place = choose.randrange(len(listed))
        listed[place], listed[-1] = listed[-1], listed[place]
        return listed.pop()

    for step in range(200):
        with drawn.dry_run():  # as deep as there are frames, and leaves nothing behind
            drawn.give_pieces(drawn.take(step % (frames.free_count + 1)))
        if ours and step % 3 == 2:
            piece = ours.pop(step % len(ours))
            drawn.give_pieces([piece])
            listed.append(piece.start.value >> 12)
        elif listed:
            (piece,) = drawn.take(1)
            ours.append(piece)
            assert piece.start.value >> 12 == draw()
    assert len(ours) + frames.free_count == 59
