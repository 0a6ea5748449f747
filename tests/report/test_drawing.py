"""Rectangles thinned for drawing: few enough, and nothing hidden."""

from hypothesis import given
from hypothesis import strategies as st

from swiommu.replay import AreaHistory, Rectangle
from swiommu.report.area import drawing_of

rectangles = st.builds(
    lambda start, size, begin, length: Rectangle(0, start, size, begin, min(begin + length, 1000), ended=True),
    st.integers(0, 900),
    st.integers(1, 100),
    st.integers(0, 1000),
    st.integers(0, 1000),
)


@given(st.lists(rectangles, max_size=700), st.integers(480, 700))
def test_drawing_is_bounded_and_hides_nothing(drawn, limit):
    history = AreaHistory("x", 0, 1000, 0, 1000, drawn, [], 0)
    drawing = drawing_of(history, limit)
    assert len(drawing.rectangles) + len(drawing.merged) <= limit
    assert len(drawing.rectangles) + drawing.small == len(drawn)
    assert all(0 <= m.start < m.start + m.size <= 1000 and 0 <= m.begin <= m.end <= 1000 for m in drawing.merged)
    kept = list(drawing.rectangles)
    for rectangle in drawn:
        if rectangle in kept:
            kept.remove(rectangle)
        else:
            assert covered(rectangle, drawing.merged)


def covered(rectangle, merged):
    """Whether the corners of a rectangle lie in blocks."""
    corners = [
        (address, time)
        for address in (rectangle.start, rectangle.start + rectangle.size - 1)
        for time in (rectangle.begin, rectangle.end)
    ]
    return all(any(m.start <= at < m.start + m.size and m.begin <= t <= m.end for m in merged) for at, t in corners)
