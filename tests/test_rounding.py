"""A loss is written with the digits that are known of it: what rounding may have changed never shows."""

import numpy as np
import pytest

from stages.common.rounding import loss_unit, rounded_loss


@pytest.mark.parametrize("size", [1e-150, 1e-6, 1.0, 1e6, 1e150])
@pytest.mark.parametrize("share", [1e3, 1.0, 1e-4, 1e-8, 1e-12, 1e-15])
def test_a_unit_is_a_thousand_times_what_other_rounding_changes(size: float, share: float) -> None:
    """Of the loss of a fit with residuals of sqrt(share) times y, whose predictions are a few last bits off."""
    random, eps = np.random.default_rng(0), np.finfo(float).eps
    y = size * random.normal(size=1000)
    predicted = y + np.sqrt(share) * size * random.normal(size=1000)
    loss, mean_square = np.mean((predicted - y) ** 2), np.mean(y**2)
    changed = [np.mean((predicted * (1 + 4 * eps * random.normal(size=1000)) - y) ** 2) - loss for _ in range(20)]
    unit = loss_unit(float(loss), float(mean_square))
    assert 1e3 * np.abs(changed).max() < max(unit, 1e-10 * loss), "or the ten digits of every number are fewer"
    assert unit <= 1e-4 * loss or unit <= 2e-16 * mean_square, "no more is taken away than that"


def test_beyond_the_range_of_numbers_a_loss_stays_as_it_is() -> None:
    for loss, mean_square in ((1e-320, 1e-320), (1.7e308, 1e300), (0.0, 0.0), (1.0, np.inf), (1e-17, 0.0)):
        assert rounded_loss(loss, mean_square) == pytest.approx(loss, rel=0.5, abs=1e-16)
    assert loss_unit(0.0, 2.5) == 1e-16
    assert rounded_loss(9e-17, 2.5) == 1e-16
