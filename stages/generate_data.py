"""Makes data/<data set>.csv: drawn from its seed, or a checked copy of the user's own CSV.

in   params.yaml: data.<data set>; data/raw/ where `file` names a CSV
out  data/<data set>.csv
run  python -m stages.generate_data line
"""

import argparse
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pandas as pd

from stages.common.errors import run_stage
from stages.common.files import DATA, clusters, linear_set, read_numbers, write_csv
from stages.common.params import ClustersData, Data, DataSet, LinearData, OneFeatureData, load_group
from stages.common.sampling import draw_clusters, draw_linear_set

MODELS: dict[str, type[DataSet]] = {name: get_type_hints(Data)[name] for name in Data.model_fields}


def draw(settings: DataSet) -> pd.DataFrame:
    """The rows that the settings describe; the same settings give the same rows."""
    generator = np.random.default_rng(settings.seed)
    if isinstance(settings, ClustersData):
        return draw_clusters(settings, generator)
    assert isinstance(settings, LinearData)
    return draw_linear_set(settings, generator)


def read_own(file: Path, settings: DataSet) -> pd.DataFrame:
    """The user's own CSV, its numbers unchanged.

    Raises:
        UserError: where it does not have the form that the data set's experiments read.
    """
    frame = read_numbers(file)
    if isinstance(settings, ClustersData):
        clusters(frame, file)
    else:
        linear_set(frame, file, features=1 if isinstance(settings, OneFeatureData) else None)
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes data/<data set>.csv.")
    parser.add_argument("data_set", choices=MODELS)
    name = parser.parse_args().data_set
    settings = load_group(f"data.{name}", MODELS[name])
    if settings.file is None:
        write_csv(draw(settings), DATA / f"{name}.csv")
    else:
        write_csv(read_own(Path(settings.file), settings), DATA / f"{name}.csv", exact=True)


if __name__ == "__main__":
    run_stage(main)
