"""The random numbers of the fits drawn once more: where each starts, and the order of its shuffled rows.

The generator of torch on the CPU is the Mersenne Twister (Matsumoto and Nishimura, 1998), seeded as NumPy's old
RandomState is. Here it is NumPy's, so that a start or a shuffle that is not what its seed gives is seen.
"""

import math
from collections.abc import Callable

import numpy as np

from stages.common.files import significant
from stages.common.schema import Training
from stages.theory.least_squares import Array

VECTORISED = 16  # torch.randn of so many numbers or more pairs them in blocks of so many


class TorchGenerator:
    """torch.Generator on the CPU, as far as the fits use it: float64, and orders of less than 200 million rows."""

    def __init__(self, seed: int) -> None:
        self._random_raw = np.random.RandomState(seed % 2**32)._bit_generator.random_raw

    def rand(self, count: int) -> Array:
        """torch.rand(count): the low 53 of the 64 bits that two words make, the first the high one."""
        words = self._random_raw(2 * count).astype(np.uint64).reshape(count, 2)
        return ((words[:, 0] << np.uint64(32) | words[:, 1]) % np.uint64(2**53)) * 2.0**-53

    def randn(self, count: int) -> Array:
        """torch.randn(count): Box and Muller, A note on the generation of random normal deviates, 1958."""
        if count < VECTORISED:
            angle, radius = self.rand(2 * math.ceil(count / 2)).reshape(-1, 2).T
            return np.column_stack(_normal(radius, angle)).ravel()[:count]
        whole = self.rand(count)[: count - count % VECTORISED]
        found = _in_blocks(whole)
        if count % VECTORISED:  # the last ones once more, as a whole block
            found = np.append(found[: count - VECTORISED], _in_blocks(self.rand(VECTORISED)))
        return found

    def randperm(self, count: int) -> Array:
        """torch.randperm(count): Fisher and Yates's shuffle, from the front."""
        order = list(range(count))
        for i, word in enumerate(self._random_raw(count - 1).tolist()):
            j = i + word % (count - i)
            order[i], order[j] = order[j], order[i]
        return np.array(order)


def _normal(radius: Array, angle: Array) -> tuple[Array, Array]:
    """Two sets of normal numbers from two sets of uniform ones."""
    length = np.sqrt(-2 * np.log1p(-radius))
    return length * np.cos(2 * np.pi * angle), length * np.sin(2 * np.pi * angle)


def _in_blocks(uniform: Array) -> Array:
    """Normal numbers from uniform ones, each block's first half paired with its second."""
    radius, angle = uniform.reshape(-1, 2, VECTORISED // 2).swapaxes(0, 1)
    return np.concatenate(_normal(radius, angle), axis=1).ravel()


def _layer(generator: TorchGenerator, features: int, _: Training) -> Array:
    bound = 1 / math.sqrt(features)
    return bound * (2 * np.append(generator.rand(features), generator.rand(1)) - 1)


def _fixed(_: TorchGenerator, features: int, settings: Training) -> Array:
    return np.array([1.0, 0.0]) if settings.model_dump()["form"] == "slope-intercept" else np.zeros(features + 1)


STARTS: dict[str, Callable[[TorchGenerator, int, Training], Array]] = {
    "manual": lambda generator, _features, _settings: generator.rand(2),
    "noisy": lambda generator, _features, _settings: np.append(generator.randn(1), 0),
    "minibatch": lambda generator, features, _: np.append(0.01 * generator.randn(features), 0),
    "nn": _layer,
    "shared": _layer,
    "logistic": _fixed,
}


def drawn_start(name: str, features: int, settings: Training) -> tuple[Array, TorchGenerator]:
    """theta at iteration 0, (parameters,), in the units of the fit, and the generator that goes on to the shuffles."""
    generator = TorchGenerator(getattr(settings, "seed", 0))
    start = STARTS[name](generator, features, settings)
    return np.array([significant(value) for value in start.tolist()]), generator
