"""To how many decimals a loss or a solution is known, whatever the processor: what is left beyond is rounding.

A prediction is known to a few 1e-16 of the target y, and a loss L, a mean of squares of the difference, to sqrt(L m)
times that, m = mean(y^2). Files hold some three digits less than this, so that it hardly ever happens that the last one
differs; and nothing below 1e-16 m, where a perfect fit ends.
"""

import math

KNOWN = 12  # digits of a loss as large as m
FLOOR = 16  # digits of m
OF_SCALE = 13  # digits of the size that a parameter would have in these units


def loss_decimals(loss: float, mean_square: float) -> int:
    """Decimals that a loss is written with, where the target's mean square is m; negative ones are zeros left of it."""
    if not 0 < mean_square < math.inf:
        return FLOOR
    size = math.log10(mean_square)
    floor = FLOOR - math.floor(size)
    if not 0 < loss < mean_square:
        return floor
    return min(floor, math.floor(KNOWN - (math.log10(loss) + size) / 2))


def rounded_loss(loss: float, mean_square: float) -> float:
    """The loss as it is written, but for the ten significant digits of every number."""
    return round(loss, loss_decimals(loss, mean_square))


def rounded_parameter(value: float, scale: float) -> float:
    """A parameter of an exact solution, of which max |y| / max |x| is the scale: a 0 is found to some 1e-16 of it."""
    return round(value, OF_SCALE - math.floor(math.log10(scale))) if 0 < scale < math.inf else value


def loss_unit(loss: float, mean_square: float) -> float:
    """What one unit of its last decimal is worth."""
    return 10.0 ** -loss_decimals(loss, mean_square)
