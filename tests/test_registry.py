"""The registry of experiments, and what holds for their code as text."""

import pytest

from stages.common.experiments import EXPERIMENTS, parameter_names
from stages.common.schema import Data, Train
from tests.conftest import ROOT


def test_registry_and_schema_have_the_same_experiments_and_data_sets() -> None:
    assert list(EXPERIMENTS) == list(Train.model_fields)
    assert {experiment.data_set for experiment in EXPERIMENTS.values()} == set(Data.model_fields)


def test_every_experiment_has_its_own_name_title_and_random_numbers() -> None:
    assert all(experiment.name == name for name, experiment in EXPERIMENTS.items())
    assert len({experiment.title for experiment in EXPERIMENTS.values()}) == len(EXPERIMENTS)
    assert len({experiment.stream for experiment in EXPERIMENTS.values()}) == len(EXPERIMENTS)


@pytest.mark.parametrize(("weights", "names"), [(1, ["w", "b"]), (2, ["w1", "w2", "b"]), (3, ["w1", "w2", "w3", "b"])])
def test_parameters_are_w_or_numbered_then_b(weights: int, names: list[str]) -> None:
    assert parameter_names(weights) == names


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_file_of_a_fit_has_less_than_100_lines_names_its_command_and_ends_in_it(experiment: str) -> None:
    text = (ROOT / f"stages/train/{experiment}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    assert f"run  python -m stages.train.{experiment}\n" in text
    assert text.endswith('if __name__ == "__main__":\n    run_stage(main)\n')
