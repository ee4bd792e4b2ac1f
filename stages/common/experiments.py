"""The six experiments: the one place that says which data, which model and which random numbers each of them has."""

from dataclasses import dataclass
from typing import Literal

EXPLODED = 10  # times the loss at its start: a fit that ends above has exploded; chance takes one only a little above


@dataclass(frozen=True)
class Experiment:
    """What the stages of one experiment need to know beside its settings.

    Attributes:
        name: as in params.yaml, dvc.yaml and the names of files.
        data_set: the group of `data` in params.yaml that it is fitted to.
        title: for headings.
        model: what is fitted, a name of stages.theory.models.
        factor: its loss is factor/2 * mean((y_hat - y)^2): 2 for squares, 1 for half of them; None in logistic.
        step: what an update is computed from.
        stream: keeps the random numbers of its repetitions apart from those of the others.
    """

    name: str
    data_set: str
    title: str
    model: Literal["line", "line applied twice", "logit"]
    factor: int | None
    step: Literal["all rows", "batch", "one row"]
    stream: int


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("manual", "line", "Linear regression by hand", "line", 2, "all rows", 1),
        Experiment("noisy", "noisy_line", "A noisy line and an early stop", "line", 1, "all rows", 2),
        Experiment("minibatch", "plane", "Mini-batches from scratch", "line", 1, "batch", 3),
        Experiment("nn", "stream", "One linear layer", "line", 2, "one row", 4),
        Experiment("shared", "stream", "One layer applied twice", "line applied twice", 2, "one row", 5),
        Experiment("logistic", "clusters", "Logistic regression on two clusters", "logit", None, "all rows", 6),
    )
}


def parameter_names(weights: int) -> list[str]:
    """The parameters as all files call them: `w` or `w1`, `w2`, ..., then `b`."""
    return ["w", "b"] if weights == 1 else [*(f"w{j}" for j in range(1, weights + 1)), "b"]
