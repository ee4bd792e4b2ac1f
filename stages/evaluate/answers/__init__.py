"""The questions that the articles leave open, one module each, and what is checked of an answer; by experiment."""

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
CHECKS: dict[str, Callable[[Evidence], Check]] = {"nn": nn.moments_check}
