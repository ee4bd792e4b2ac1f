"""Prints the microseconds that a step of a loop takes: the stage's, recording included, or the bare program's.

The fastest of five runs of the loop in one process: what else the machine does makes a run slower, never faster.

run  python -m benchmarks.steps nn stage; python -m benchmarks.steps nn bare
"""

import contextlib
import importlib
import io
import runpy
import sys
import time

import torch

from stages.common.experiments import EXPERIMENTS
from stages.common.files import DATA
from stages.common.params import load_params
from stages.common.tables import read_linear_set
from stages.train.start import as_tensors, use_one_deterministic_thread

RUNS = 5


def main() -> None:
    name, kind = sys.argv[1:]
    use_one_deterministic_thread()
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)  # its first use imports torch's compiler
    settings = getattr(load_params().train, name)
    features, target = as_tensors(read_linear_set(DATA / f"{EXPERIMENTS[name].data_set}.csv"))
    fit = importlib.import_module(f"stages.train.{name}").fit
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        if kind == "stage":
            fit(features, target, settings, torch.Generator().manual_seed(settings.seed))
        else:
            with contextlib.redirect_stdout(io.StringIO()):
                runpy.run_path(f"benchmarks/bare/{name}.py")
        seconds.append(time.perf_counter() - start)
    print(1e6 * min(seconds) / settings.iterations)


if __name__ == "__main__":
    main()
