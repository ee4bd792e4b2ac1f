"""All that is known of one experiment before it is judged: settings, results, repetitions, exact solution, theory."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_type_hints

import numpy as np

from stages.common.experiments import EXPERIMENTS, Experiment
from stages.common.files import DATA, HISTORY, METRICS, REPLICATES, read_csv, read_json
from stages.common.params import load_group
from stages.common.published import read_published
from stages.common.schema import ClustersData, Data, DataSet, Replicate, Train, Training
from stages.common.tables import Table, read_clusters, read_linear_set
from stages.evaluate.draws import STARTS, drawn_start
from stages.theory.bowl import Bowl, Course
from stages.theory.models import Exact, Model, model_named

Array = np.ndarray
LAST_BITS = 8 * np.finfo(float).eps  # by which data differ that are the same but for rounding
MARGIN = 100  # of what those change: rounding in every update adds up to more than rounding once
MIN_REPETITIONS = 400  # fewer say too little about the ends of the central 99 %


@dataclass(frozen=True)
class Evidence:
    """One experiment's settings, what its stages wrote, and what follows from the data exactly.

    Attributes:
        experiment: its entry in the registry.
        data: the group data.<data set>.
        train: the group train.<experiment>.
        replicate: the group replicate.
        published: its part of data/published.yaml.
        metrics: reports/metrics/<experiment>.json.
        history: the columns of reports/history/<experiment>.csv.
        repetitions: the columns of reports/replicates/<experiment>.csv, one row a repetition.
        course: those of the CSV beside it, where there is one.
        table: the data set.
    """

    experiment: Experiment
    data: DataSet
    train: Training
    replicate: Replicate
    published: dict[str, Any]
    metrics: dict[str, Any]
    history: dict[str, Array]
    repetitions: dict[str, Array]
    course: dict[str, Array]
    table: Table

    @property
    def target_name(self) -> str:
        """As the user's own CSV calls the target, or the data set."""
        return self.data.target if self.data.file else self.table.target_name

    @property
    def names(self) -> list[str]:
        """The names of the parameters."""
        return list(self.metrics["fitted"])

    @property
    def theta(self) -> Array:
        """The fitted parameters, (parameters,)."""
        return np.array(list(self.metrics["fitted"].values()))

    @cached_property
    def trail(self) -> Array:
        """The parameters at the recorded iterations, (rows, parameters)."""
        return np.column_stack([self.history[name] for name in self.names])

    @property
    def standardize(self) -> bool:
        """Whether the fit was made on standardized features."""
        return getattr(self.train, "standardize", False)

    @cached_property
    def scale(self) -> tuple[Array | float, Array | float]:
        """Mean and standard deviation, each (features,); 0 and 1 where the fit leaves the features as they are."""
        features = self.table.features
        return (features.mean(axis=0), features.std(axis=0)) if self.standardize else (0.0, 1.0)

    @cached_property
    def scaled_features(self) -> Array:
        """The features as the fit sees them, (rows, features)."""
        mean, sd = self.scale
        return (self.table.features - mean) / sd

    @cached_property
    def mean_square(self) -> float:
        """Of the target: the scale of a loss, and of what rounding leaves of it."""
        return float(np.mean(self.table.target**2))

    def with_settings(self, **changes: object) -> "Evidence":
        """The same data with other settings of the fit."""
        return replace(self, train=self.train.model_copy(update=changes))

    @cached_property
    def model(self) -> Model:
        """What is fitted."""
        return model_named(self.experiment.model, self.experiment.factor, self.train.model_dump())

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Every setting in use beside the article's: `value`, `article` where it has one, and whether it `differs`."""
        return compared_settings(self.experiment, self.data, self.train, self.published["settings"])

    @property
    def differs(self) -> bool:
        """Whether a setting is not the article's, so that its numbers can't be expected."""
        return any(setting["differs"] for setting in self.settings.values())

    @cached_property
    def true(self) -> Array | None:
        """The parameters that the data were drawn from, (parameters,)."""
        return None if self.data.file is not None else self.model.truth(self.data.model_dump())

    @cached_property
    def exact(self) -> Exact | None:
        """The minimum of the loss on these data; None where there is no single one."""
        return self.model.exact(self.table.features, self.table.target, near=self.theta)

    @cached_property
    def is_separable(self) -> bool | None:
        """Whether the classes are, so that there is no minimum; None without classes."""
        if not self.table.has_classes:
            return None
        return self.exact is None and self.model.is_separable(self.table.features, self.table.target)

    @cached_property
    def bowl(self) -> Bowl | None:
        """The loss, decomposed, in the units of the fit; None where it is not quadratic."""
        return self.model.bowl(self.table.features, self.table.target, standardize=self.standardize)

    @property
    def start(self) -> Array:
        """The parameters at iteration 0, (parameters,): as the seed gives them; else, with ten digits, as recorded."""
        if self.experiment.name not in STARTS:
            return np.array(list(self.metrics["initial"].values()))
        theta, _ = drawn_start(self.experiment.name, len(self.table.feature_names), self.train)
        return in_csv_units(theta[np.newaxis], *self.scale)[0]

    @cached_property
    def with_other_last_bits(self) -> "Evidence":
        """The same on data of which every number is up to a few units in the last place too large.

        What fits and formulas make of the difference is what they make of their own rounding. Up only: ups and downs
        could cancel in a mean.
        """
        table, generator = self.table, np.random.default_rng(0)
        features = table.features * (1 + LAST_BITS * generator.uniform(0, 1, table.features.shape))
        target = table.target * (1 + LAST_BITS * generator.uniform(0, 1, table.target.shape))
        return replace(self, table=replace(table, features=features, target=target))

    def predicted(self, iterations: Array, *, accumulate: bool | None = None) -> Course | None:
        """Theory's course from the start; None where there is no closed form, or no single solution."""
        if self.experiment.step != "all rows" or self.bowl is None:
            return None
        accumulate = not self.train.zero_grad if accumulate is None else accumulate
        return self.bowl.course(self.start, iterations, lr=self.train.lr, accumulate=accumulate)

    @property
    def count(self) -> int:
        """How many repetitions there are."""
        return len(self.repetitions["loss"])

    @property
    def too_few(self) -> str | None:
        """Why percentiles are not judged."""
        return None if self.count >= MIN_REPETITIONS else f"{self.count} repetitions, fewer than {MIN_REPETITIONS}"


def settings_of(experiment: Experiment) -> tuple[DataSet, Training]:
    """Its groups data.<data set> and train.<experiment>."""
    data: DataSet = load_group(f"data.{experiment.data_set}", get_type_hints(Data)[experiment.data_set])
    train: Training = load_group(f"train.{experiment.name}", get_type_hints(Train)[experiment.name])
    return data, train


def gather(name: str) -> Evidence:
    """Reads what the stages of an experiment wrote, and its settings."""
    experiment = EXPERIMENTS[name]
    data, train = settings_of(experiment)
    read = read_clusters if isinstance(data, ClustersData) else read_linear_set
    course = REPLICATES / f"{name}-course.csv"
    return Evidence(
        experiment=experiment,
        data=data,
        train=train,
        replicate=load_group("replicate", Replicate),
        published=read_published(name),
        metrics=read_json(METRICS / f"{name}.json"),
        history=_arrays(read_csv(HISTORY / f"{name}.csv", first_column="iteration")),
        repetitions=_arrays(read_csv(REPLICATES / f"{name}.csv")),
        course=_arrays(read_csv(course)) if course.exists() else {},
        table=read(DATA / f"{experiment.data_set}.csv"),
    )


def _arrays(columns: dict[str, list[Any]]) -> dict[str, Array]:
    return {name: np.array(values) for name, values in columns.items()}


def in_csv_units(theta: Array, mean: Array | float, sd: Array | float) -> Array:
    """w = w'/sd, b = b' - sum of w mean: (states, parameters) of a fit to (x - mean) / sd."""
    weights = theta[:, :-1] / sd
    return np.column_stack([weights, theta[:, -1] - np.sum(weights * mean, axis=1)])


def compared_settings(
    experiment: Experiment, data: DataSet, train: Training, article: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Every setting in use beside the article's; a CSV of one's own leaves only `file` of the data settings in use."""
    columns = {"file", "target", "features"}  # the latter two mean something for a CSV only
    in_use = data.model_dump(include=columns) if data.file else data.model_dump(exclude=columns - {"file"})
    groups = (
        (f"data.{experiment.data_set}", in_use, article["data"]),
        (f"train.{experiment.name}", train.model_dump(), article["train"]),
    )
    return {
        f"{group}.{key}": {
            "value": spelled(value),
            **({"article": spelled(theirs[key])} if key in theirs else {}),
            "differs": key in theirs and theirs[key] != value,
        }
        for group, ours, theirs in groups
        for key, value in ours.items()
    }


def spelled(value: object) -> object:
    """A setting for JSON: numbers, booleans and text as they are; null, lists and groups as params.yaml spells them."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return ", ".join(f"{key} {spelled_in_text(part)}" for key, part in value.items())
    return spelled_in_text(value) if isinstance(value, list) else value


def spelled_in_text(value: object) -> str:
    """A number or list of numbers within another setting."""
    if isinstance(value, list):
        return f"[{', '.join(map(spelled_in_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
