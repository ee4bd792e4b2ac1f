"""Holds one experiment against the exact solution, theory, its repetitions and the article.

in   params.yaml: data.<data set>, train.<experiment>; data/published.yaml, data/<data set>.csv, and what train and
     replicate wrote of the experiment
out  reports/evaluation/<experiment>.json, all that is found, as values, and .csv, at most 500 rows of the course:
     iteration, loss, parameters, the drawn line p x + q y + r = 0; reports/figures/<experiment>/*.svg
run  python -m stages.evaluate nn
"""

import argparse
import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np

from stages.common.errors import run_stage
from stages.common.experiments import EXPERIMENTS
from stages.common.files import (
    ESTIMATED,
    EVALUATION,
    FIGURES,
    METRICS,
    Columns,
    read_json,
    significant,
    write_csv,
    write_json,
    write_text,
)
from stages.common.published import read_published
from stages.evaluate.answers import ANSWERS, CHECKS
from stages.evaluate.checks import Check, checks, errors
from stages.evaluate.diagnosis import diagnosis
from stages.evaluate.estimates import share
from stages.evaluate.evidence import Evidence, compared_settings, gather, settings_of
from stages.evaluate.figures import (
    MAX_FRAMES,
    STYLE,
    Answer,
    Drawing,
    as_svg,
    axes_of,
    evenly_spaced,
    fit_drawing,
    loss_drawing,
    observed_drawing,
    residual_drawing,
    shown_features,
)
from stages.evaluate.mending import mend
from stages.evaluate.publication import publication_checks
from stages.evaluate.quantities import Quantity, quantities
from stages.evaluate.record import record_checks
from stages.evaluate.second_run import SecondRun, second_run

SMALLEST_ERROR = 1e-16  # a smaller one, also 0, is counted as this, since 0 has no logarithm
# Digits of an error: a small difference of large numbers, whose last digits differ between processors; hardly more than
# rounding is left of a deviation from theory.
ERROR_DIGITS = {"truth": 3, "exact": 3, "publication": 3, "theory": 1}
DIAGNOSED = 3  # digits of the numbers behind a state
MOVING = ("fit", "loss")  # the figures with a part that the page moves


def evaluation(
    e: Evidence, rows: list[Quantity], judged: list[Check], answer: Answer | None, drawings: Mapping[str, Drawing]
) -> dict[str, Any]:
    """All that is found, as nested values; what there is not to say has no key."""
    error = {name: significant(value, ERROR_DIGITS[name]) for name, value in errors(e, rows).items()}
    found = {
        name: significant(value, DIAGNOSED) if isinstance(value, float) else value
        for name, value in diagnosis(e).items()
    }
    in_summary = error | {name: found[name] for name in ("excess", "allowed") if name in found}
    settings = {} if found["state"] == "finished" else mend(e)
    return {
        "state": found.pop("state"),
        "diagnosis": found,
        **({"mend": settings} if settings else {}),
        "article": {**e.published["article"], "numbers": bool({"fitted", "losses"} & set(e.published))},
        **({"chosen_seeds": e.published["chosen_seeds"]} if "chosen_seeds" in e.published else {}),
        "train": _present(e.train.model_dump()),
        "run": e.metrics,
        "rows": len(e.table.target),
        "repetitions": e.count,
        **({"repetitions_asked": e.replicate.count} if e.count < e.replicate.count else {}),
        "settings": e.settings,
        "quantity": {row.key: quantity(row, judged, e.count) for row in rows},
        "check": {c.key: {"statement": c.statement, "verdict": c.verdict, "found": c.found} for c in judged},
        "error": error,
        "log10_error": {name: round(math.log10(max(value, SMALLEST_ERROR)), 3) for name, value in in_summary.items()},
        "theory": theory(e),
        **({} if answer is None else {"answer": answer.values}),
        "figure": {name: {"caption": drawing.caption} for name, drawing in drawings.items()},
        "axes": {name: axes_of(drawings[name].figure) for name in MOVING},
    }


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def quantity(row: Quantity, judged: list[Check], repetitions: int) -> dict[str, Any]:
    """A row of the results; six digits of what repetitions estimate and of the smallest loss, often only rounding."""
    percentile, verdicts = row.percentile, {check.key: check.verdict for check in judged}
    estimates = {
        "percentile_low": None if percentile is None else percentile.low,
        "percentile_high": None if percentile is None else percentile.high,
        "percentile_error": None
        if percentile is None
        else 100 * share(percentile.middle, repetitions)["standard_error"],
        "low": row.low,
        "high": row.high,
        "standard_error": row.standard_error,
    }
    known = ("column", "true", "exact", "predicted", "fitted", "published", "exact_standard_error")
    values = _present({name: getattr(row, name) for name in known})
    if row.key == "loss" and "exact" in values:
        values["exact"] = significant(values["exact"], ESTIMATED)
    return {
        "label": row.label,
        **values,
        **{name: significant(value, ESTIMATED) for name, value in _present(estimates).items()},
        **({"verdict": verdicts[row.key]} if row.key in verdicts else {}),
    }


def theory(e: Evidence) -> dict[str, Any]:
    """What theory says of the loss on these data."""
    if e.is_separable is not None:
        return {"maximum_likelihood_exists": not e.is_separable}
    if e.bowl is None:
        return {}
    c = e.bowl.curvature
    noise = e.data.model_dump().get("noise") if e.data.file is None else None
    zeroed = e.experiment.step == "all rows" and e.train.zero_grad and c.eigenvalues[0] > 0 and e.train.lr < c.stable_lr
    return {
        **({"noise_loss": (e.experiment.factor or 1) / 2 * noise**2} if noise else {}),
        **(
            {"e_fold": {way: c.e_fold(lr=e.train.lr, place=k) for way, k in (("fast", -1), ("slow", 0))}}
            if zeroed
            else {}
        ),
        "smallest_eigenvalue": float(c.eigenvalues[0]),
        "largest_eigenvalue": float(c.eigenvalues[-1]),
        **({"condition_number": c.condition} if math.isfinite(c.condition) else {}),
        **({"stable_lr": c.stable_lr, "accumulating_lr": c.accumulating_lr} if e.experiment.step == "all rows" else {}),
    }


def course(e: Evidence) -> Columns:
    """The recorded rows for the page to step through, and the line that each of them draws."""
    frames = evenly_spaced(len(e.history["loss"]), MAX_FRAMES)
    shown, nowhere = shown_features(e), (math.nan, math.nan, math.nan)
    lines = [(shown and e.model.drawn(theta, shown)) or nowhere for theta in e.trail[frames]]
    return {
        "iteration": e.history["iteration"][frames].astype(int).tolist(),
        "loss": e.history["loss"][frames].tolist(),
        **dict(zip(e.names, e.trail[frames].T.tolist(), strict=True)),
        **dict(zip("pqr", np.array(lines).T.tolist(), strict=True)),
    }


def drawn(e: Evidence, rows: list[Quantity]) -> dict[str, Drawing]:
    """The figures of the run; `fit` and `loss` are those that the page moves."""
    shown, loss = shown_features(e), loss_drawing(e, rows)
    if e.data.file is None or e.table.has_classes:
        assert shown is not None
        return {"fit": fit_drawing(e, shown), "loss": loss}
    observed, residuals = observed_drawing(e), residual_drawing(e)
    if shown is None:
        return {"fit": observed, "loss": loss, "residuals": residuals}
    return {"fit": fit_drawing(e, shown), "loss": loss, "observed": observed, "residuals": residuals}


def all_checks(e: Evidence, rows: list[Quantity], answer: Answer | None, run: SecondRun | None) -> list[Check]:
    """Of the run, of its record, of the publication and of the answer."""
    name = e.experiment.name
    of_answer = [CHECKS[name](e, answer)] if name in CHECKS else []
    return [*checks(e, rows), *record_checks(e, run), *publication_checks(e), *of_answer]


def write_not_applicable(name: str) -> None:
    """The same files where the data are none for this experiment."""
    experiment, published = EXPERIMENTS[name], read_published(name)
    data, train = settings_of(experiment)
    found = {
        "state": "not_applicable",
        "article": published["article"],
        "settings": compared_settings(experiment, data, train, published["settings"]),
        **{part: {} for part in ("check", "figure", "log10_error")},
    }
    (FIGURES / name).mkdir(parents=True, exist_ok=True)
    write_csv({"iteration": [], "loss": []}, EVALUATION / f"{name}.csv")
    write_json(found, EVALUATION / f"{name}.json")


def main() -> None:
    parser = argparse.ArgumentParser(description="Holds one experiment against what it should be.")
    parser.add_argument("experiment", choices=EXPERIMENTS)
    name = parser.parse_args().experiment
    if read_json(METRICS / f"{name}.json").get("stopped") == "not_applicable":
        write_not_applicable(name)
        return
    e = gather(name)
    run = second_run(e)
    rows = quantities(e, run)
    with mpl.rc_context(fname=STYLE):
        answer = ANSWERS[name](e) if name in ANSWERS else None
        drawings = drawn(e, rows) | (answer.figures if answer else {})
        for figure, drawing in drawings.items():
            write_text(as_svg(drawing.figure, f"{name}-{figure}"), FIGURES / name / f"{figure}.svg")
        found = evaluation(e, rows, all_checks(e, rows, answer, run), answer, drawings)
    write_csv(course(e), EVALUATION / f"{name}.csv")
    write_json(found, EVALUATION / f"{name}.json")


if __name__ == "__main__":
    run_stage(main)
