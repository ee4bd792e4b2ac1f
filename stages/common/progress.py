"""A bar in the terminal for what takes longer than two seconds, with an estimate of the rest; nothing in a log."""

import sys
import time
from collections.abc import Iterator

DELAY = 2.0  # seconds without a bar


def progress(total: int, unit: str) -> Iterator[int]:
    """Counts from 0 to total - 1."""
    if not sys.stderr.isatty():
        yield from range(total)
        return
    start, bar = time.monotonic(), None
    for count in range(total):
        yield count
        if bar is not None:
            bar.update()
        elif time.monotonic() - start > DELAY:
            from tqdm import tqdm  # noqa: PLC0415 imported only here: it takes longer than most stages have

            bar = tqdm(total=total, initial=count + 1, unit=unit, leave=False)
    if bar is not None:
        bar.close()
