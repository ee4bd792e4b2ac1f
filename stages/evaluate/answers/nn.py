"""How fast single-row descent gets there, and how often it shows the published decimals."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from stages.common.schema import LinearData, Uniform
from stages.evaluate.checks import Check, judged, not_applicable
from stages.evaluate.estimates import share
from stages.evaluate.evidence import Array, Evidence
from stages.evaluate.figures import BLUE, INK, ORANGE, Answer, Drawing, add_legend, use_log_scale
from stages.theory import single_rows

EARLY = 2000  # iterations after which the article says that the fit has not settled
STANDARD_ERRORS = 4  # that the repetitions may be from theory at any step


@dataclass(frozen=True)
class Steps:
    """The repetitions' mean squared parameter error beside theory's, at the recorded iterations, each (steps,).

    `difference` is the mean of observed - predicted in pairs, each run against its own start's prediction.
    """

    iteration: Array
    predicted: Array
    observed: Array
    difference: Array
    standard_error: Array


def against_theory(e: Evidence) -> Steps | None:
    """None where theory has no prediction: own data, several features, scaled features, gradients that add up.

    A prediction t . m + a is linear in the products m of its start's error (stages/replicate/nn.py writes the moments),
    so that the variance of observed - predicted is var(observed) - 2 t . cov(observed, m) + t' cov(m) t.
    """
    settings_fit = e.train.zero_grad and not e.standardize and (e.repetitions["stopped"] != "diverged").all()
    if "squared_error" not in e.course or not settings_fit:
        return None
    assert isinstance(e.data, LinearData)
    known = e.course["iteration"] <= e.data.rows  # later steps meet rows again, which are no longer independent
    course = {name: values[known] for name, values in e.course.items()}
    x = feature_distribution(e.data)
    t, a = single_rows.expected_error(
        x, lr=e.train.lr, steps=course["iteration"].astype(int).tolist(), noise=e.data.noise
    )
    t = np.column_stack([t[:, 0], t[:, 1] + t[:, 2], t[:, 3]])  # of w^2, w b, b^2
    start = np.array([e.repetitions["w_start"], e.repetitions["b_start"]]).T - [*e.data.weights, e.data.bias]
    products = np.array([start[:, 0] ** 2, start[:, 0] * start[:, 1], start[:, 1] ** 2])
    with_start = np.column_stack([course[f"covariance_{name}"] for name in ("ww", "wb", "bb")])
    of_predicted = ((t @ np.cov(products)) * t).sum(axis=1)
    variance = course["variance"] - 2 * (t * with_start).sum(axis=1) + of_predicted
    predicted = t @ products.mean(axis=1) + a
    return Steps(
        course["iteration"],
        predicted,
        course["squared_error"],
        course["squared_error"] - predicted,
        np.sqrt(np.maximum(variance, 0) / e.count),
    )


def moments_check(e: Evidence, _answer: Answer | None) -> Check:
    """The repetitions have the mean-square error that theory predicts, at every step."""
    statement = f"squared error of the repetitions as theory predicts, within {STANDARD_ERRORS} standard errors"
    steps = against_theory(e)
    if steps is None:
        why = "theory predicts one drawn feature, zeroed gradients, as it is"
        return not_applicable("moments", statement, why)
    if e.too_few:
        return not_applicable("moments", statement, e.too_few)
    compared = (steps.iteration > 0) & (steps.predicted > 1e-17)
    deviation = float(np.max(np.abs(steps.difference[compared] / steps.standard_error[compared])))
    found = f"at most {deviation:.2f} over {np.count_nonzero(compared)} steps"
    return judged("moments", statement, deviation <= STANDARD_ERRORS, found)


def feature_distribution(data: LinearData) -> single_rows.Distribution:
    """The distribution of a feature, as theory takes it."""
    x = data.x
    return single_rows.uniform(x.low, x.high) if isinstance(x, Uniform) else single_rows.normal(x.mean, x.sd)


def answer(e: Evidence) -> Answer | None:
    """None where the repetitions are not those of the article's kind."""
    steps = against_theory(e)
    if steps is None or "share_as_published" not in e.course:
        return None
    iteration, shares = e.course["iteration"], e.course["share_as_published"]
    at_2000 = shares[iteration == EARLY]
    return Answer(
        values={
            **({"early": EARLY, "share_early": share(at_2000[0], e.count)} if len(at_2000) else {}),
            "share_at_end": share(shares[-1], e.count),
            "end": int(iteration[-1]),
        },
        figures={
            "error": Drawing(
                error_figure(steps),
                "Squared error of the parameters, mean of the repetitions and theory's prediction from their starts.",
            ),
            "share": Drawing(
                share_figure(iteration, shares),
                "Share of the repetitions that show the published three decimals.",
            ),
        },
    )


def error_figure(steps: Steps) -> Figure:
    """Mean squared parameter error of the repetitions over the iterations, beside theory's, with 4 standard errors."""
    figure = Figure()
    axes = figure.subplots()
    use_log_scale(axes, np.concatenate([steps.predicted, steps.observed]))
    margin = 4 * steps.standard_error
    low = np.maximum(steps.predicted - margin, steps.predicted / 10)
    band = {"color": ORANGE, "alpha": 0.35, "linewidth": 0}
    axes.fill_between(steps.iteration, low, steps.predicted + margin, label="4 standard errors", **band)  # type: ignore[arg-type]
    axes.plot(steps.iteration, steps.observed, color=BLUE, label="repetitions")
    axes.plot(steps.iteration, steps.predicted, color=INK, linestyle=(0, (4, 3)), linewidth=1.2, label="theory")
    axes.set(xlabel="iteration", ylabel="mean of |(w, b) - truth|²")
    add_legend(figure, axes)
    return figure


def share_figure(iteration: Array, share: Array) -> Figure:
    """The share of repetitions that show the published decimals, over the iterations."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot(iteration, 100 * share, color=BLUE, label="show both published values to three decimals")
    axes.set(xlabel="iteration", ylabel="repetitions, %", ylim=(0, 100))
    add_legend(figure, axes)
    return figure
