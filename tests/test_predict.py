"""`python -m stages.predict`: predictions are those of the fit, by the features' names, and bad input is refused."""

import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from stages.common.errors import UserError
from stages.common.experiments import EXPERIMENTS
from stages.common.files import read_json, significant, write_csv
from stages.common.schema import Data
from stages.generate_data import draw
from stages.predict import with_predictions
from tests.clones import python_first
from tests.conftest import DEFAULTS, ROOT, Run


@pytest.fixture(autouse=True)
def fitted(project: Path) -> Path:
    """The project folder with the committed fits and the data they belong to."""
    shutil.copytree(ROOT / "reports/metrics", "reports/metrics")
    shutil.copy(ROOT / "dvc.lock", "dvc.lock")
    for name in Data.model_fields:
        write_csv(draw(getattr(DEFAULTS.data, name)), Path(f"data/{name}.csv"))
    return project


def metrics(experiment: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(Path(f"reports/metrics/{experiment}.json"))
    return found


def set_fit(experiment: str, **parameters: float) -> None:
    text = json.dumps({"fitted": parameters, "stopped": "iterations"})
    Path(f"reports/metrics/{experiment}.json").write_text(text, encoding="utf-8")


def set_data(experiment: str, columns: Mapping[str, list[float]]) -> None:
    """Other data, and a dvc.lock that says the experiment was fitted to them."""
    path, lock = Path(f"data/{EXPERIMENTS[experiment].data_set}.csv"), Path("dvc.lock").read_text(encoding="utf-8")
    before = hashlib.md5(path.read_bytes()).hexdigest()  # noqa: S324 DVC's hash
    write_csv(columns, path, digits=None)
    after = hashlib.md5(path.read_bytes()).hexdigest()  # noqa: S324
    Path("dvc.lock").write_text(lock.replace(before, after), encoding="utf-8")


def predicted(experiment: str, new: str) -> dict[str, np.ndarray]:
    """The columns of a CSV with its predictions, as numbers."""
    header, *rows = with_predictions(experiment, Path(new))
    return dict(zip(header, np.array(rows, dtype=float).T, strict=True))


# --- predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", [name for name, e in EXPERIMENTS.items() if e.factor is not None])
def test_predictions_for_the_fitted_rows_have_the_loss_of_the_fit(experiment: str) -> None:
    found = predicted(experiment, f"data/{EXPERIMENTS[experiment].data_set}.csv")
    loss = (EXPERIMENTS[experiment].factor or 0) / 2 * np.mean((found["prediction"] - found["y"]) ** 2)
    # the loss is small beside y where the fit is good: 10 digits of the parameters leave errors of 1e-9 in y
    assert loss == pytest.approx(metrics(experiment)["loss"], rel=1e-3, abs=1e-16)


def test_classes_of_the_fitted_rows_are_right_as_often_as_the_fit_says() -> None:
    found = predicted("logistic", "data/clusters.csv")
    assert np.mean(found["prediction"] == found["label"]) == metrics("logistic")["accuracy"]
    assert ((found["probability"] > 0.5) == (found["prediction"] == 1)).all()


def test_features_are_found_by_name_and_other_cells_stay_as_they_are() -> None:
    """Also those that are no numbers, that a float can't hold, and the empty y of rows to predict."""
    text = 'id,x2,who,y,x1\n12345678901234567890,2,bob,,3\n\n08,0.1,"a, b",?, 0\n'
    Path("new.csv").write_text(text, encoding="utf-8")
    set_fit("minibatch", w1=10.0, w2=1.0, b=0.5)
    assert with_predictions("minibatch", Path("new.csv")) == [
        ["id", "x2", "who", "y", "x1", "prediction"],
        ["12345678901234567890", "2", "bob", "", "3", "32.5"],
        ["08", "0.1", "a, b", "?", "0", "0.6"],
    ]


@pytest.mark.parametrize(
    ("fit", "z"),
    [
        ({"w": 2.0, "b": 0.25}, [-0.75, 2.25, 7.25]),  # slope-intercept: 2 a + 0.25 - b
        ({"w1": 2.0, "w2": -3.0, "b": 0.25}, [-2.75, 2.25, 13.25]),
    ],
)
def test_both_forms_of_logistic_and_labels_of_ones_own(fit: dict[str, float], z: list[float]) -> None:
    a, b = [0.0, 1.0, 2.0], [1.0, 0.0, -3.0]
    set_data("logistic", {"a": a, "b": b, "label": [3.0, -2.00000000001, 3.0]})
    write_csv({"b": b, "a": a}, Path("new.csv"))
    set_fit("logistic", **fit)
    found = predicted("logistic", "new.csv")
    np.testing.assert_allclose(found["probability"], expit(z))
    assert found["prediction"].tolist() == [-2.00000000001, 3, 3]


def test_it_prints_a_csv_that_can_be_read_again(run: Run) -> None:
    Path("new.csv").write_text("\ufeffx , 溫度\r\n0.1,3\r\n", encoding="utf-8")
    done = run("-m", "stages.predict", "nn", "new.csv")
    assert (done.returncode, done.stderr) == (0, "")
    fit = metrics("nn")["fitted"]
    prediction = repr(significant(0.1 * fit["w"] + fit["b"]))
    assert list(csv.reader(io.StringIO(done.stdout))) == [["x", "溫度", "prediction"], ["0.1", "3", prediction]]


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    write_csv({"x": range(100_000)}, Path("new.csv"))
    command = "python -m stages.predict nn new.csv | head -1"
    environment = {**python_first(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("x,prediction\n", "")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("X\n1\n", "new.csv: expected the features of nn's fit, x, found X and no x; names are case-sensitive"),
        ("x\n", "new.csv: expected at least one row"),
        ("x,prediction\n1,2\n", "new.csv: has a column 'prediction' already"),
        ("x\none\n", "new.csv: row 1 (line 2), column 'x': expected a finite number, found 'one'"),
        ("x\n1e150\n", "row 1: the prediction is not a finite number"),
        ("x\n1,2\n", "new.csv: row 1 (line 2): expected 1 cells as in the header (x), found 2"),
        (None, "new.csv: no such file; name the CSV"),
    ],
)
def test_bad_input_is_refused(content: str | None, message: str) -> None:
    if content is not None:
        Path("new.csv").write_text(content, encoding="utf-8")
    set_fit("nn", w=1e300, b=0.0)
    with pytest.raises(UserError, match=re.escape(message)):
        with_predictions("nn", Path("new.csv"))


def test_a_refusal_is_one_message_and_changes_nothing(refused: Run) -> None:
    """A fit to other data of as many features: the parameters would mean something else."""
    write_csv({"height": [1.0, 2.0], "y": [1.0, 3.0]}, Path("data/stream.csv"))
    message = refused("predict", "nn", "new.csv").stderr
    assert "reports/metrics/nn.json: is not a fit to data/stream.csv as it is now; run `dvc repro train-nn`" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(("dvc.lock", lock, "run `dvc repro train-nn`") for lock in (None, "", "stages: [", "stages: {train-nn: {}}")),
        *(
            ("reports/metrics/nn.json", fit, "reports/metrics/nn.json: expected what an earlier stage wrote")
            for fit in (
                None,
                "{",
                "{}",
                "[]",
                '{"fitted": null}',
                '{"fitted": {"w": 1, "b": 1}}',
                '{"fitted": {"w": null, "b": 1}, "stopped": "loss"}',
                '{"fitted": {"w": "a", "b": 1}, "stopped": "loss"}',
                '{"fitted": {"w": [1], "b": 1}, "stopped": "loss"}',
                '{"fitted": {"w": NaN, "b": 1}, "stopped": "loss"}',
                '{"fitted": {"w1": 1, "w2": 1, "b": 1}, "stopped": "loss"}',
            )
        ),
        (
            "reports/metrics/nn.json",
            '{"fitted": {"w": 1, "b": 1}, "stopped": "diverged"}',
            "the fit diverged, so that it predicts nothing; set train.nn.lr",
        ),
        ("data/stream.csv", None, "data/stream.csv: not found; `dvc repro` makes it"),
    ],
)
def test_a_fit_that_is_missing_damaged_or_diverged_is_refused(name: str, content: str | None, message: str) -> None:
    """So is one of which dvc.lock does not say that it belongs to the data."""
    Path(name).unlink()
    if content is not None:
        Path(name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        with_predictions("nn", Path("data/raw/norris.csv"))
