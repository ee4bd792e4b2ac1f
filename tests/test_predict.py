"""`python -m stages.predict`: predictions are those of the fit, by the features' names, and bad input is refused."""

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from stages.common.evidence import EXPERIMENTS, FACTOR
from stages.common.files import write_csv
from stages.common.params import Params
from stages.generate_data import draw
from stages.predict import with_predictions
from tests.conftest import ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def fitted(project: Path, params: Params) -> Path:
    """The project folder with the committed fits and the data they belong to."""
    shutil.copytree(ROOT / "reports/metrics", "reports/metrics")
    for name in params.data.model_dump():
        write_csv(draw(getattr(params.data, name)), Path(f"data/{name}.csv"))
    return project


def metrics(experiment: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(Path(f"reports/metrics/{experiment}.json").read_text(encoding="utf-8"))
    return found


def set_fit(experiment: str, **parameters: float) -> None:
    Path(f"reports/metrics/{experiment}.json").write_text(json.dumps({"fitted": parameters}), encoding="utf-8")


@pytest.mark.parametrize("experiment", FACTOR)
def test_predictions_for_the_fitted_rows_have_the_loss_of_the_fit(experiment: str) -> None:
    table = with_predictions(experiment, Path(f"data/{EXPERIMENTS[experiment][0]}.csv"))
    mean_square = ((table["prediction"] - table["y"]) ** 2).mean()
    # the loss is small beside y where the fit is good: 10 digits of the parameters leave errors of 1e-9 in y
    assert FACTOR[experiment] / 2 * mean_square == pytest.approx(metrics(experiment)["loss"], rel=1e-3, abs=1e-16)


def test_classes_of_the_fitted_rows_are_right_as_often_as_the_fit_says() -> None:
    table = with_predictions("logistic", Path("data/clusters.csv"))
    assert (table["prediction"] == table["label"]).mean() == metrics("logistic")["accuracy"]
    assert ((table["probability"] > 0.5) == (table["prediction"] == 1)).all()


def test_features_are_found_by_name_and_other_columns_stay() -> None:
    Path("new.csv").write_text("id,x2,y,x1\n7,2,5,3\n8,0.1,6,0\n", encoding="utf-8")
    set_fit("minibatch", w1=10.0, w2=1.0, b=0.5)
    expected = pd.DataFrame({"id": [7.0, 8], "x2": [2, 0.1], "y": [5.0, 6], "x1": [3.0, 0], "prediction": [32.5, 0.6]})
    pd.testing.assert_frame_equal(with_predictions("minibatch", Path("new.csv")), expected, check_exact=False)


def test_both_forms_of_logistic_and_labels_of_ones_own() -> None:
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0], "b": [1.0, 0.0, -3.0], "label": [3.0, -2.0, 3.0]})
    write_csv(frame, Path("data/clusters.csv"))
    write_csv(frame[["b", "a"]], Path("new.csv"))
    set_fit("logistic", w=2.0, b=0.25)
    z = 2 * frame["a"] + 0.25 - frame["b"]
    table = with_predictions("logistic", Path("new.csv"))
    np.testing.assert_allclose(table["probability"], expit(z))
    assert table["prediction"].tolist() == [-2, 3, 3]
    set_fit("logistic", w1=2.0, w2=-3.0, b=0.25)
    table = with_predictions("logistic", Path("new.csv"))
    np.testing.assert_allclose(table["probability"], expit(2 * frame["a"] - 3 * frame["b"] + 0.25))


def test_it_prints_a_csv_that_can_be_read_again(run: Run) -> None:
    Path("new.csv").write_text("\ufeffx , 溫度\r\n0.1,3\r\n", encoding="utf-8")
    done = run("-m", "stages.predict", "nn", "new.csv")
    assert (done.returncode, done.stderr) == (0, "")
    table = pd.read_csv(io.StringIO(done.stdout))
    assert list(table.columns) == ["x", "溫度", "prediction"]
    fit = metrics("nn")["fitted"]
    assert table["prediction"][0] == 0.1 * fit["w"] + fit["b"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("X\n1\n", "new.csv: expected the features of the fit, x, found X and no x; names are case-sensitive"),
        ("x\n", "new.csv: expected at least one row"),
        ("x,prediction\n1,2\n", "new.csv: has a column 'prediction' already"),
        ("x\none\n", "new.csv: row 1 (line 2), column 'x': expected a finite number, found 'one'"),
        ("x\n1e150\n", "row 1: the prediction is not a finite number"),
        (None, "new.csv: not found; name the CSV"),
    ],
)
def test_bad_input_is_refused(refused: Run, content: str | None, message: str) -> None:
    if content is not None:
        Path("new.csv").write_text(content, encoding="utf-8")
    set_fit("nn", w=1e300, b=0.0)
    assert message in refused("predict", "nn", "new.csv").stderr


def test_a_fit_to_other_features_is_refused(refused: Run) -> None:
    Path("new.csv").write_text("x\n1\n", encoding="utf-8")
    set_fit("nn", w1=1.0, w2=1.0, b=0.0)
    message = refused("predict", "nn", "new.csv").stderr
    assert "expected a fit to the features of data/stream.csv, x, found the parameters w1, w2, b" in message
    assert "`dvc repro train-nn`" in message


def test_missing_data_are_named(refused: Run) -> None:
    Path("data/stream.csv").unlink()
    assert "data/stream.csv: not found; `dvc repro` makes it" in refused("predict", "nn", "new.csv").stderr
