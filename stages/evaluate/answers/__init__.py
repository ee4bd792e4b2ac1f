"""The questions that the articles leave open, one module each, by experiment."""

from stages.evaluate.answers import nn, noisy, shared

ANSWERS = {"noisy": noisy.answer, "nn": nn.answer, "shared": shared.answer}
