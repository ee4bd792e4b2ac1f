"""The schema of params.yaml.

One class a group. No key has a default, so that params.yaml shows every setting; unknown keys are refused, so that a
misspelled one can't go unnoticed; every number has a range.
"""

from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    model_validator,
)
from pydantic_core import PydanticCustomError

RAW = Path("data/raw")


# For messages: values cut off, so that one line tells where the fault is; full texts would fill the screen, and a value
# of many nested aliases memory and time as well.
SHORT = Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 60
SHORT.maxlevel = 2


def _number_from_text(value: object) -> object:
    """A string that spells a number counts as it: other tools may quote 1e-05, or write it as YAML 1.1 reads it."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "expected a number")
    if not isinstance(value, str) or not value.isascii():
        return value
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value


def _below_raw(file: str | None) -> str | None:
    """Accepts a path only if it is a file that really lies below data/raw/, links followed."""
    if file is None:
        return None
    path = Path(file)
    if path.parts[:2] != RAW.parts or ".." in path.parts:
        raise PydanticCustomError("outside_raw", "expected a path below data/raw/, relative to the project")
    try:
        is_inside, is_file = path.resolve().is_relative_to(RAW.resolve()), path.is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long, a link to itself, a NUL
        is_inside, is_file = True, False
    if not is_inside:
        raise PydanticCustomError("outside_raw", "expected a path below data/raw/, not a link to elsewhere")
    if not is_file:
        raise PydanticCustomError(
            "no_file",
            "expected a CSV that exists; put it there or correct the name (for"
            " experiments in folders of their own, --temp and --queue, `git add` it first)",
        )
    return file


Number = Annotated[float, BeforeValidator(_number_from_text), Field(allow_inf_nan=False, ge=-1e9, le=1e9)]
Positive = Annotated[float, BeforeValidator(_number_from_text), Field(allow_inf_nan=False, gt=0, le=1e9)]
NonNegative = Annotated[float, BeforeValidator(_number_from_text), Field(allow_inf_nan=False, ge=0, le=1e9)]
Count = Annotated[int, BeforeValidator(_number_from_text), Field(ge=1, le=100_000_000)]
Rows = Annotated[int, BeforeValidator(_number_from_text), Field(ge=2, le=100_000_000)]
DISTRIBUTIONS = "expected distribution: uniform with low and high, or distribution: normal with mean and sd"
Seed = Annotated[int, BeforeValidator(_number_from_text), Field(ge=0, lt=2**32)]
Point = Annotated[list[Number], Field(min_length=2, max_length=2)]
OwnCsv = Annotated[str | None, AfterValidator(_below_raw)]


class Group(BaseModel):
    """A group of params.yaml: all keys needed, no others allowed, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, group: object) -> object:
        if isinstance(group, dict):
            unknown = [key for key in group if key not in cls.model_fields]
            if unknown:
                raise PydanticCustomError(
                    "unknown_key",
                    "{advice}",
                    {"advice": "; ".join(advice(key, list(cls.model_fields)) for key in unknown)},
                )
        return group


def advice(key: object, valid: list[str]) -> str:
    """What to say of an unknown key: the nearest valid one, or all of them."""
    name = shown(key).strip("'")
    nearest = get_close_matches(name, valid, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"valid keys are {', '.join(valid)}"
    return f"unknown key '{name}'; {hint}"


def shown(value: object) -> str:
    """A value for a message: short, and printable everywhere."""
    try:
        return SHORT.repr(value).encode("utf-8", "backslashreplace").decode("utf-8")
    except ValueError:  # Python prints no whole number of more than 4300 digits
        return "a number of thousands of digits"


# --- data.<data set> -------------------------------------------------------------------------------------------------


class Uniform(Group):
    """Each feature uniform on [low, high)."""

    distribution: Literal["uniform"]
    low: Number = Field(description="lower end, included")
    high: Number = Field(description="upper end, excluded")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise PydanticCustomError("range", "expected low below high")
        return self


class Normal(Group):
    """Each feature normal with this mean and standard deviation."""

    distribution: Literal["normal"]
    mean: Number
    sd: Positive


class DataSet(Group):
    """What every data set has."""

    file: OwnCsv = Field(
        description="null: the data are drawn; a path below data/raw/: that CSV is used, the drawing keys are ignored"
    )
    target: Annotated[str, Field(min_length=1)] = Field(description="of an own CSV: the column to predict")
    features: Annotated[list[str], Field(min_length=1)] | None = Field(
        description="of an own CSV: the columns to predict it from; null: all others. What is not named is not read"
    )
    seed: Seed = Field(description="seed of the drawing")

    @model_validator(mode="after")
    def _each_column_once(self) -> Self:
        names = [self.target, *(self.features or [])]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise PydanticCustomError("columns", "column '{name}' is named twice", {"name": shown(twice).strip("'")})
        return self


class LinearData(DataSet):
    """rows of y = weights . x + bias + noise."""

    rows: Rows
    x: Annotated[Uniform | Normal, Field(discriminator="distribution")] = Field(
        description="distribution of each feature"
    )
    weights: Annotated[list[Number], Field(min_length=1, max_length=100)] = Field(description="one a feature")
    bias: Number
    noise: NonNegative = Field(description="standard deviation of the normal noise on y")


class OneFeatureData(LinearData):
    """A linear set for experiments that take one feature only."""

    weights: Annotated[list[Number], Field(min_length=1, max_length=1)] = Field(description="one weight: one feature")


class ClustersData(DataSet):
    """Two normal clusters in the plane, class 0 around the first centre, class 1 around the second."""

    rows_per_cluster: Rows
    centers: Annotated[list[Point], Field(min_length=2, max_length=2)]
    std: Positive = Field(description="standard deviation in either direction")


class Data(Group):
    line: OneFeatureData
    noisy_line: OneFeatureData
    plane: LinearData
    stream: LinearData
    clusters: ClustersData


# --- train.<experiment> ----------------------------------------------------------------------------------------------


class Training(Group):
    """What every fit has."""

    lr: Positive = Field(description="learning rate")
    zero_grad: StrictBool = Field(
        description="false: gradients are never zeroed and add up, which is descent with momentum 1"
    )
    stop_below: Positive | None = Field(
        description="a loss over the whole CSV below this ends the fit, after the update"
    )
    dtype: Literal["float64", "float32"]
    log_every: Count = Field(description="iterations (minibatch: epochs) from one recorded row to the next")


class IterativeTraining(Training):
    """A fit that counts iterations, from a random start."""

    iterations: Count = Field(description="updates, at most")
    seed: Seed = Field(description="seed of the start")


class ManualTraining(IterativeTraining):
    standardize: StrictBool = Field(description="scale the feature to mean 0 and standard deviation 1 for the fit")


class NoisyTraining(IterativeTraining):
    standardize: StrictBool = Field(description="scale the feature to mean 0 and standard deviation 1 for the fit")


class MinibatchTraining(Training):
    epochs: Count = Field(description="passes over the rows, at most")
    batch_size: Count = Field(description="rows a batch; the gradient is divided by it, also for a short last batch")
    seed: Seed = Field(description="seed of the start and of the shuffles")
    standardize: StrictBool = Field(description="scale each feature to mean 0 and standard deviation 1 for the fit")


class NnTraining(IterativeTraining):
    standardize: StrictBool = Field(description="scale each feature to mean 0 and standard deviation 1 for the fit")


class SharedTraining(IterativeTraining):
    pass


class LogisticTraining(Training):
    """The start is fixed, so there is no seed."""

    iterations: Count = Field(description="updates, at most")
    loss: Literal["mse", "bce"] = Field(description="mse: squared error of the probability; bce: binary cross-entropy")
    form: Literal["slope-intercept", "general"] = Field(
        description="slope-intercept: sigmoid(w*x + b - y), two features; general: sigmoid(w1*x1 + ... + b)"
    )
    standardize: StrictBool = Field(description="scale each feature to mean 0 and sd 1; only with form: general")

    @model_validator(mode="after")
    def _standardize_needs_general(self) -> Self:
        if self.standardize and self.form != "general":
            raise PydanticCustomError(
                "standardize",
                "standardize: true needs form: general; with the coefficient of y fixed at -1, a fit on scaled features"
                " has no equivalent in the CSV's units",
            )
        return self


class Train(Group):
    manual: ManualTraining
    noisy: NoisyTraining
    minibatch: MinibatchTraining
    nn: NnTraining
    shared: SharedTraining
    logistic: LogisticTraining


# --- the whole file --------------------------------------------------------------------------------------------------


class Replicate(Group):
    """The seeded repetitions of every experiment."""

    count: Annotated[int, BeforeValidator(_number_from_text), Field(ge=1, le=1_000_000)]
    budget: Annotated[int, BeforeValidator(_number_from_text), Field(ge=1, le=1_000_000_000)] = Field(
        description="millions of numbers that the repetitions of an experiment may read, rows times parameters in every"
        " update; where `count` of them would read more, fewer are made, and the report says so"
    )
    seed: Seed


class Params(Group):
    """All of params.yaml."""

    data: Data
    train: Train
    replicate: Replicate
