"""Into how many parts a step is cut for several threads, and whether these are rows."""

from __future__ import annotations

import itertools

from minimobile_kernels.geometry import Window

MOST = 4  # for each thread
MOST_AGAIN = 12  # of so many rows, one may be computed twice for the sake of caches


def count_parts(cost: int, num_threads: int, least: int, good: int) -> int:
    """Return the number of parts of a step that costs so much, in the unit of `least` and `good`.

    As many for each thread, for three parts take two threads as long as four: several, so that they finish together
    whatever the machine does meanwhile; where these were smaller than `good`, one; and none smaller than `least`, so
    that taking it does not cost more than it saves.
    """
    if cost < least * num_threads:
        return max(1, cost // least)
    return num_threads * max(1, min(MOST, cost // (good * num_threads)))


def count_sections(slide: Window, batch: int, num_threads: int) -> int:
    """Return into how many sections of rows a depthwise convolution is cut that is done with the one before it.

    One for each thread, where none of them has many more rows of that one to compute than its share: a thread then
    finds most of what it reads in its own caches, and the rows at the cuts are computed by both.
    """
    rows = batch * slide.out_height
    cuts = [rows * section // num_threads for section in range(num_threads + 1)]
    most = max(_count_input_rows(slide, first, last) for first, last in itertools.pairwise(cuts))
    return num_threads if MOST_AGAIN * most * num_threads <= (MOST_AGAIN + 1) * batch * slide.height else 1


def _count_input_rows(slide: Window, first: int, last: int) -> int:
    """Return how many rows of their inputs the output rows [first, last) of all images, in a row, need."""
    count, reach = 0, (slide.kernel_height - 1) * slide.dilation + 1
    for start in range(first // slide.out_height * slide.out_height, last, slide.out_height):  # of an image
        first_row = max(0, first - start) * slide.stride - slide.pad_top
        last_row = (min(slide.out_height, last - start) - 1) * slide.stride - slide.pad_top + reach
        count += max(0, min(slide.height, last_row) - max(0, first_row))
    return count
