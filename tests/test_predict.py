"""`python -m stages.predict`: predictions are those of the fit, by the features' names, and bad input is refused."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from stages.common.evidence import EXPERIMENTS, FACTOR
from stages.common.files import significant, write_csv
from stages.common.params import Params
from stages.generate_data import draw
from stages.predict import with_predictions
from tests.conftest import ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def fitted(project: Path, params: Params) -> Path:
    """The project folder with the committed fits and the data they belong to."""
    shutil.copytree(ROOT / "reports/metrics", "reports/metrics")
    shutil.copy(ROOT / "dvc.lock", "dvc.lock")
    for name in params.data.model_dump():
        write_csv(draw(getattr(params.data, name)), Path(f"data/{name}.csv"))
    return project


def metrics(experiment: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(Path(f"reports/metrics/{experiment}.json").read_text(encoding="utf-8"))
    return found


def set_fit(experiment: str, **parameters: float) -> None:
    Path(f"reports/metrics/{experiment}.json").write_text(
        json.dumps({"fitted": parameters, "stopped": "iterations"}), encoding="utf-8"
    )


def set_data(experiment: str, frame: pd.DataFrame) -> None:
    """Other data, and a dvc.lock that says the experiment was fitted to them."""
    path = Path(f"data/{EXPERIMENTS[experiment][0]}.csv")
    before = hashlib.md5(path.read_bytes()).hexdigest()  # noqa: S324 DVC's hash
    write_csv(frame, path)
    lock = Path("dvc.lock").read_text(encoding="utf-8")
    Path("dvc.lock").write_text(lock.replace(before, hashlib.md5(path.read_bytes()).hexdigest()), encoding="utf-8")  # noqa: S324


def table(experiment: str, new: str) -> pd.DataFrame:
    """The new CSV with its predictions, as numbers."""
    header, *rows = with_predictions(experiment, Path(new))
    return pd.DataFrame(rows, columns=header).astype(float)


@pytest.mark.parametrize("experiment", FACTOR)
def test_predictions_for_the_fitted_rows_have_the_loss_of_the_fit(experiment: str) -> None:
    found = table(experiment, f"data/{EXPERIMENTS[experiment][0]}.csv")
    mean_square = ((found["prediction"] - found["y"]) ** 2).mean()
    # the loss is small beside y where the fit is good: 10 digits of the parameters leave errors of 1e-9 in y
    assert FACTOR[experiment] / 2 * mean_square == pytest.approx(metrics(experiment)["loss"], rel=1e-3, abs=1e-16)


def test_classes_of_the_fitted_rows_are_right_as_often_as_the_fit_says() -> None:
    found = table("logistic", "data/clusters.csv")
    assert (found["prediction"] == found["label"]).mean() == metrics("logistic")["accuracy"]
    assert ((found["probability"] > 0.5) == (found["prediction"] == 1)).all()


def test_features_are_found_by_name_and_other_cells_stay_as_they_are() -> None:
    """Also those that are no numbers, that a float can't hold, and the empty y of rows to predict."""
    Path("new.csv").write_text(
        'id,x2,who,y,x1\n12345678901234567890,2,bob,,3\n\n08,0.1,"a, b",?, 0\n', encoding="utf-8"
    )
    set_fit("minibatch", w1=10.0, w2=1.0, b=0.5)
    assert with_predictions("minibatch", Path("new.csv")) == [
        ["id", "x2", "who", "y", "x1", "prediction"],
        ["12345678901234567890", "2", "bob", "", "3", "32.5"],
        ["08", "0.1", "a, b", "?", "0", "0.6"],
    ]


def test_both_forms_of_logistic_and_labels_of_ones_own() -> None:
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0], "b": [1.0, 0.0, -3.0], "label": [3.0, -2.0, 3.0]})
    set_data("logistic", frame)
    write_csv(frame[["b", "a"]], Path("new.csv"))
    set_fit("logistic", w=2.0, b=0.25)
    z = 2 * frame["a"] + 0.25 - frame["b"]
    found = table("logistic", "new.csv")
    np.testing.assert_allclose(found["probability"], expit(z))
    assert found["prediction"].tolist() == [-2, 3, 3]
    set_fit("logistic", w1=2.0, w2=-3.0, b=0.25)
    found = table("logistic", "new.csv")
    np.testing.assert_allclose(found["probability"], expit(2 * frame["a"] - 3 * frame["b"] + 0.25))


def test_it_prints_a_csv_that_can_be_read_again(run: Run) -> None:
    Path("new.csv").write_text("\ufeffx , 溫度\r\n0.1,3\r\n", encoding="utf-8")
    done = run("-m", "stages.predict", "nn", "new.csv")
    assert (done.returncode, done.stderr) == (0, "")
    found = pd.read_csv(io.StringIO(done.stdout))
    assert list(found.columns) == ["x", "溫度", "prediction"]
    fit = metrics("nn")["fitted"]
    assert found["prediction"][0] == significant(0.1 * fit["w"] + fit["b"])  # type: ignore[index]


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
def test_bad_input_is_refused(refused: Run, content: str | None, message: str) -> None:
    if content is not None:
        Path("new.csv").write_text(content, encoding="utf-8")
    set_fit("nn", w=1e300, b=0.0)
    assert message in refused("predict", "nn", "new.csv").stderr


def test_a_fit_to_other_data_is_refused(refused: Run) -> None:
    """Of as many features, too: the parameters would mean something else."""
    Path("new.csv").write_text("height\n1\n", encoding="utf-8")
    write_csv(pd.DataFrame({"height": [1.0, 2.0], "y": [1.0, 3.0]}), Path("data/stream.csv"))
    message = refused("predict", "nn", "new.csv").stderr
    assert "reports/metrics/nn.json: is not a fit to data/stream.csv as it is now; run `dvc repro train-nn`" in message


@pytest.mark.parametrize("lock", ["", "stages: [", "stages: {train-nn: {}}", None])
def test_a_lock_that_says_nothing_is_no_proof(refused: Run, lock: str | None) -> None:
    Path("dvc.lock").unlink()
    if lock is not None:
        Path("dvc.lock").write_text(lock, encoding="utf-8")
    assert "run `dvc repro train-nn`" in refused("predict", "nn", "new.csv").stderr


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{}",
        "[]",
        '{"fitted": null}',
        '{"fitted": {"w": null, "b": 1}}',
        '{"fitted": {"w": "a", "b": 1}}',
        '{"fitted": {"w": [1], "b": 1}}',
        '{"fitted": {"w": NaN, "b": 1}}',
        '{"fitted": {"w1": 1, "w2": 1, "b": 1}}',
    ],
)
def test_a_damaged_fit_is_refused(refused: Run, content: str) -> None:
    Path("reports/metrics/nn.json").write_text(content, encoding="utf-8")
    assert (
        "error: reports/metrics/nn.json: expected what an earlier stage wrote" in refused("predict", "nn", "x").stderr
    )


def test_a_fit_that_diverged_predicts_nothing(refused: Run) -> None:
    path = Path("reports/metrics/nn.json")
    path.write_text(path.read_text(encoding="utf-8").replace('"iterations"\n', '"diverged"\n'), encoding="utf-8")
    assert (
        "nn.json: the fit diverged, so that it predicts nothing; set train.nn.lr"
        in refused("predict", "nn", "x").stderr
    )


def test_a_reader_that_has_seen_enough_is_no_error(fitted: Path) -> None:
    pd.DataFrame({"x": range(100_000)}).to_csv("new.csv", index=False)
    command = f"'{sys.executable}' -m stages.predict nn new.csv | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("x,prediction\n", "")


def test_missing_data_are_named(refused: Run) -> None:
    Path("data/stream.csv").unlink()
    assert "data/stream.csv: not found; `dvc repro` makes it" in refused("predict", "nn", "new.csv").stderr
