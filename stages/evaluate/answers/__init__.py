"""The questions that the articles leave open, one module each, and what is checked of an answer; by experiment.

What `logistic` says comes from the second run, which is held against the fit.
"""

from collections.abc import Callable

from stages.evaluate.answers import logistic, nn, noisy, shared
from stages.evaluate.checks import Check
from stages.evaluate.evidence import Evidence
from stages.evaluate.figures import Answer

ANSWERS: dict[str, Callable[[Evidence], Answer | None]] = {
    "noisy": noisy.answer,
    "nn": nn.answer,
    "shared": shared.answer,
    "logistic": logistic.answer,
}
CHECKS: dict[str, Callable[[Evidence, Answer | None], Check]] = {
    "noisy": noisy.limit_check,
    "nn": nn.moments_check,
    "shared": shared.negative_check,
}
