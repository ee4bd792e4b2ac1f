"""NIST's certified regressions: how many digits of them the exact solution reaches, and how many descent does.

Source: NIST Statistical Reference Datasets, linear regression, https://www.itl.nist.gov/div898/strd/lls/lls.shtml:
Longley's economy of the USA (real, columns nearly dependent), Pontius's calibration of load cells (real, a parabola),
Wampler's polynomials of degree 5 (made up, ever more noise; the fifth has 1e7 times more than its coefficients say).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from stages.common.files import read_csv
from stages.theory.least_squares import least_squares
from tests.conftest import ROOT
from tests.evidence import lay_out, rerun

Array = np.ndarray


@dataclass(frozen=True)
class Certified:
    """A data set with its certified weights, b last, their standard errors, and the digits that are reached here.

    Attributes:
        exact: correct digits, -log10 of the relative error, of the exact solution.
        descends: how the command that the report gives finishes: within seconds, a minute, or not tried.
        descent: correct digits of descent by that command; below 0 where its error is larger than the number.
    """

    features: Array
    target: Array
    theta: Array
    standard_errors: Array | None
    exact: float
    descends: Literal["", "quickly", "slowly"] = ""
    descent: float = -np.inf


def longley() -> Certified:
    columns = np.array(list(read_csv(ROOT / "tests/nist/longley.csv").values()))
    weights = [15.0618722713733, -0.0358191792925910, -2.02022980381683, -1.03322686717359, -0.0511041056535807]
    errors = [84.9149257747669, 0.0334910077722432, 0.488399681651699, 0.214274163161675, 0.226073200069370]
    return Certified(
        columns[1:].T,
        columns[0],
        np.array([*weights, 1829.15146461355, -3482258.63459582]),
        np.array([*errors, 455.478499142212, 890420.383607373]),
        exact=11,
        descends="slowly",
        descent=5,
    )


def pontius() -> Certified:
    load = np.tile(150_000.0 * np.arange(1, 21), 2)
    first = (
        "11019 21956 32949 43899 54803 65694 76562 87487 98292 109146 120001 130822 141599 152399 163194 173947 184646"
    )
    second = (
        "11052 22018 32939 43886 54798 65739 76596 87474 98300 109150 120004 130818 141613 152408 163159 173965 184696"
    )
    ends = "195392 206128 216844", "195445 206177 216829"
    deflection = (
        np.array([float(number) for part in (first, ends[0], second, ends[1]) for number in part.split()]) / 1e5
    )
    return Certified(
        np.column_stack([load, load**2]),
        deflection,
        np.array([0.732059160401003e-06, -0.316081871345029e-14, 0.673565789473684e-03]),
        np.array([0.157817399981659e-09, 0.486652849992036e-16, 0.107938612033077e-03]),
        exact=12,
        descends="quickly",
        descent=5,
    )


def wampler(coefficient: float, noise: float, exact: float, descends: Literal["", "quickly", "slowly"]) -> Certified:
    x = np.arange(21.0)
    powers = np.column_stack([x**k for k in range(1, 6)])
    theta = coefficient ** np.array([1.0, 2, 3, 4, 5, 0])
    half = [759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048]
    errors = [
        2363.55173469681,
        779.343524331583,
        101.475507550350,
        5.64566512170752,
        0.112324854679312,
        2152.32624678170,
    ]
    return Certified(
        powers,
        powers @ theta[:-1] + theta[-1] + noise * np.array([*half, 2048, *half[::-1]]),
        theta,
        noise * np.array(errors) if noise else None,
        exact,
        descends,
    )


SETS = {
    "Longley": longley(),
    "Pontius": pontius(),
    "Wampler1": wampler(1, 0, 9, ""),
    "Wampler2": wampler(0.1, 0, 12, "slowly"),
    "Wampler3": wampler(1, 1, 9, "slowly"),
    "Wampler4": wampler(1, 100, 8, "quickly"),
    "Wampler5": wampler(1, 10_000, 6, ""),
}


def digits(found: Array, certified: Array) -> float:
    """Correct significant digits of the worst number."""
    return float(-np.log10(max(np.abs(found / certified - 1).max(), 1e-16)))


@pytest.mark.parametrize("name", SETS)
def test_the_exact_solution_reaches_the_certified_values(name: str) -> None:
    known = SETS[name]
    found = least_squares(known.features, known.target)
    assert found is not None
    assert digits(found.theta, known.theta) >= known.exact
    if known.standard_errors is not None:
        assert digits(found.standard_errors, known.standard_errors) >= 9


def of_the_command(known: Certified) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the report says of a first fit, and of the fit by the command that it gives."""
    lay_out()
    columns: dict[str, list[Any]] = {f"x{j}": x.tolist() for j, x in enumerate(known.features.T)}
    columns["y"] = known.target.tolist()
    settings: dict[str, object] = {"train.minibatch.standardize": True, "replicate.count": 2}
    first = rerun("minibatch", settings, columns)
    assert first["state"] != "finished"
    return first, rerun("minibatch", settings | first["mend"], columns) if known.descends else first


DESCENDED = [
    pytest.param(name, marks=[pytest.mark.slow] if known.descends == "slowly" else [])
    for name, known in SETS.items()
    if known.descends
]


@pytest.mark.parametrize("name", DESCENDED)
def test_descent_by_the_command_of_the_report_finishes(project: Path, name: str) -> None:
    known = SETS[name]
    _, found = of_the_command(known)
    theta = np.array([found["quantity"][key]["fitted"] for key in found["run"]["fitted"]])
    assert found["state"] == "finished"
    if known.standard_errors is not None:
        assert np.all(np.abs(theta - known.theta) < 0.5 * known.standard_errors)
    assert digits(theta, known.theta) >= known.descent


def test_the_polynomial_without_noise_takes_millions_of_updates(project: Path) -> None:
    """Its condition number is 2.7 million, and without noise finished means nearer than 1e-8 of the variance."""
    first, _ = of_the_command(SETS["Wampler1"])
    assert first["mend"]["train.minibatch.epochs"] > 5_000_000
