"""Runs the stages of `minibatch` on ever more rows, and writes what each takes: seconds and memory.

Beside the stages stand what one would use instead: pandas to read the CSV, PyTorch's DataLoader to shuffle it, and
scikit-learn's SGDRegressor where that is installed. Everything runs in a clone of the last commit.

out  docs/scale.md
run  python -m benchmarks.scale; twenty minutes or so, in which nothing else should run; needs Linux or macOS
"""

import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from stages.common.files import write_text
from tools.machine import processor

ROWS = (100_000, 1_000_000, 10_000_000)
BATCH_SIZE = 1000
MIB = 1024 * (1 if platform.system() == "Linux" else 1024)  # what the kernel counts a process's memory in, in MiB
STAGES = {
    "generate-data": "python -m stages.generate_data plane",
    "train": "python -m stages.train.minibatch",
    "replicate": "python -m stages.replicate.minibatch",
    "evaluate": "python -m stages.evaluate minibatch",
    "report": "python -m stages.report",
}
READ = "import pandas; d = pandas.read_csv('data/plane.csv').to_numpy(); x, y = d[:, :-1], d[:, -1]; "
SGD = "from sklearn.linear_model import SGDRegressor as S; "
BESIDE = {
    "pandas reads the CSV": READ,
    "and scikit-learn fits 3 epochs": READ
    + SGD
    + "S(penalty=None, learning_rate='constant', eta0=0.03, max_iter=3, tol=None).fit(x, y)",
    "and scikit-learn's partial_fit takes batches, 3 epochs": READ
    + SGD
    + f"s = S(penalty=None, learning_rate='constant', eta0=0.03); n = range(0, len(y), {BATCH_SIZE});"
    + f" [s.partial_fit(x[i:i + {BATCH_SIZE}], y[i:i + {BATCH_SIZE}]) for _ in range(3) for i in n]",
    "and DataLoader shuffles and hands out batches, 1 epoch": READ
    + "import torch; from torch.utils.data import DataLoader, TensorDataset as T;"
    + f" [0 for _ in DataLoader(T(torch.tensor(x), torch.tensor(y)), batch_size={BATCH_SIZE}, shuffle=True)]",
}


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, and the most memory that it held, in MiB."""

    seconds: float
    memory: float


def cost(command: list[str], folder: str) -> Cost | None:
    """Of one run; None where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(time.perf_counter() - start, usage.ru_maxrss / MIB) if process.returncode == 0 else None


def set_rows(folder: str, rows: int) -> None:
    """In the clone's params.yaml."""
    path = Path(folder, "params.yaml")
    params: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["data"]["plane"]["rows"] = rows
    params["train"]["minibatch"]["batch_size"] = BATCH_SIZE
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def costs(folder: str) -> dict[str, list[Cost | None]]:
    """Of each stage, and of what stands beside it, by number of rows."""
    subprocess.run(["dvc", "repro", "--quiet"], cwd=folder, check=True)
    commands = {name: shlex.split(command) for name, command in STAGES.items()}
    commands |= {name: [sys.executable, "-c", code] for name, code in BESIDE.items()}
    found: dict[str, list[Cost | None]] = {name: [] for name in commands}
    with tqdm(total=len(ROWS) * len(commands), disable=None) as bar:
        for rows in ROWS:
            set_rows(folder, rows)
            for name, command in commands.items():
                found[name].append(cost(command, folder))
                bar.update()
    return found


def table(found: dict[str, list[Cost | None]]) -> str:
    """As a page of docs/."""
    lines = ""
    for name, of_rows in found.items():
        cells = ["not installed" if c is None else f"{c.seconds:.3g} s, {c.memory:,.0f} MiB" for c in of_rows]
        lines += f"| {name} | {' | '.join(cells)} | {_exponent(of_rows)} |\n"
    heads = " | ".join(f"{rows:,} rows" for rows in ROWS)
    return f"""\
# How it grows with the rows

Made by `python -m benchmarks.scale`: the stages of `minibatch` on drawn data of two features, three epochs in batches
of {BATCH_SIZE:,}, and what one would use instead. Seconds with the start of Python; the most memory that the process
held. The exponent is that of the rows in the seconds, from the first column to the last: 1 is in proportion.

{processor()}, Python {platform.python_version()}.

| what | {heads} | exponent |
|---|{"---|" * len(ROWS)}---|
{lines}"""


def _exponent(of_rows: list[Cost | None]) -> str:
    first, last = of_rows[0], of_rows[-1]
    if first is None or last is None:
        return ""
    return f"{math.log(last.seconds / first.seconds) / math.log(ROWS[-1] / ROWS[0]):.2f}"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", ".", folder], check=True)
        page = table(costs(folder))
    write_text(page, Path("docs/scale.md"))
    print(page)


if __name__ == "__main__":
    main()
