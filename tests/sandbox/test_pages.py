"""Pages have the right rows of blocks, and the cache stays within its limit."""

from hypothesis import given
from hypothesis import strategies as st

from lake.sandbox.intervals import Interval
from lake.sandbox.pages import Pages, Rows, Span

BLOCKS = Interval("numbers", 1, 7)


def even_numbers(start: int, end: int) -> Rows:
    """Build rows at the even numbers of a block; the text of each is its number."""
    at = [number for number in range(start, end) if number % 2 == 0]
    return Rows.join(at, [str(number).encode() for number in at])


@given(
    start=st.integers(0, 60),
    length=st.integers(-3, 60),
    limit=st.integers(1, 40),
    latest=st.booleans(),
)
def test_a_page_is_the_first_or_last_rows_of_its_span(
    start: int, length: int, limit: int, latest: bool
) -> None:
    span = Span(start, start + length, limit, latest=latest)
    page = Pages(1000).build_page("key", BLOCKS, even_numbers, span)
    rows = [number for number in range(start, start + length) if number % 2 == 0]
    expected = rows[-limit:] if latest else rows[:limit]
    text = b",".join(page.pieces)
    assert [int(row) for row in text.split(b",") if row] == expected
    assert page.count == len(expected)


def test_the_oldest_blocks_go_when_memory_runs_out() -> None:
    loads: list[int] = []

    def load(start: int, end: int) -> Rows:
        loads.append(start)
        return Rows.join(list(range(start, end)), [b"x" * 9] * (end - start))

    pages = Pages(capacity_bytes=3 * 70)
    for start in (0, 7, 14, 0, 21, 0, 7):
        pages.build_page("key", BLOCKS, load, Span(start, start + 1, 1))
    # three blocks fit; 0 was used when 21 was added, so 7 was dropped, and only 7 is loaded again
    assert loads == [0, 7, 14, 21, 7]


def test_a_forgotten_block_is_loaded_again() -> None:
    loads: list[int] = []

    def load(start: int, end: int) -> Rows:
        loads.append(start)
        return even_numbers(start, end)

    pages = Pages(1000)
    for _ in range(2):
        pages.build_page("key", BLOCKS, load, Span(0, 7, 9))
    pages.forget("key", 0)
    pages.build_page("key", BLOCKS, load, Span(0, 7, 9))
    assert loads == [0, 0]
