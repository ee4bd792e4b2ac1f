"""Several processes share the rows of minibatch: the files keep their bytes, and a fault ends in one message."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from stages.common.files import write_csv
from stages.common.tables import read_linear_set, read_part
from stages.generate_data import draw
from stages.train import minibatch
from tests.clones import set_param
from tests.conftest import DEFAULTS, ROOT, with_changes

OUTS = [Path("reports/metrics/minibatch.json"), Path("reports/history/minibatch.csv")]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
FAR = {"x": {"distribution": "normal", "mean": 300.0, "sd": 40.0}, "noise": 1.0}
WIDE = [0.5, -1.0, 2.0, 0.1, 3.0, -0.2, 7.0]

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # data.plane, train.minibatch
    "default": ({}, {}),
    "standardize": ({**FAR, "rows": 200}, {"standardize": True}),
    "short last batch": ({"rows": 53, "noise": 0.5}, {"batch_size": 10, "epochs": 10}),
    "short last batch, standardize": ({**FAR, "rows": 53, "weights": WIDE}, {"batch_size": 20, "standardize": True}),
    "one row a batch": ({"rows": 30, "noise": 0.5}, {"batch_size": 1}),
    "all rows a batch": ({"rows": 100, "noise": 0.5}, {"batch_size": 1000, "epochs": 50, "lr": 0.5}),
    "gathered more than once": ({"rows": 20_000}, {"batch_size": 3000, "epochs": 5}),
    "two rows": ({"rows": 2, "weights": [2.0]}, {"batch_size": 1, "standardize": True}),
    "added gradients": ({"noise": 0.5}, {"zero_grad": False, "lr": 0.001}),
    "stop": ({"rows": 200, "noise": 0.5}, {"stop_below": 0.2, "epochs": 10}),
    "diverges": ({"rows": 100, "noise": 0.5}, {"lr": 9.0, "epochs": 40}),
    "every other epoch": ({"rows": 100, "noise": 0.1}, {"log_every": 2, "epochs": 7}),
    **{
        f"seed {seed}": ({"seed": seed, "rows": 99, "noise": 1.0, "weights": WIDE}, {"seed": seed, "epochs": 10})
        for seed in range(8)
    },
}

ALL_IN_ONE_GROUP = """
import os, sys
from torch import distributed
from stages.train.minibatch import main

distributed.init_process_group("gloo")
distributed.init_process_group = distributed.destroy_process_group = lambda *_, **__: None
for folder in sys.argv[1:]:
    os.chdir(folder)
    main()
os._exit(0)  # without destroying the group
"""


def prepare(folder: Path, data: dict[str, Any], settings: dict[str, Any]) -> None:
    """A project folder of its own for the stage."""
    (folder / "data").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    for key, value in settings.items():
        set_param(folder, f"train.minibatch.{key}", value)
    write_csv(draw(with_changes(DEFAULTS.data.plane, **data)), folder / "data/plane.csv")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def stage(folder: Path, workers: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.train.minibatch"]
    return subprocess.run(
        command, cwd=folder, env=environment(WORKERS=workers), capture_output=True, encoding="utf-8", check=False
    )


def outs(folder: Path) -> list[bytes]:
    return [(folder / out).read_bytes() for out in OUTS]


def refusal(done: subprocess.CompletedProcess[str], folder: Path) -> str:
    """The message of a stage that must end in one, and write nothing."""
    assert (done.returncode, done.stdout, done.stderr.count("error: ")) == (1, "", 1), done
    assert not (folder / "reports").exists()
    (message,) = done.stderr.splitlines()
    return message.removeprefix("error: ")


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A folder in which the stage has not run."""
    prepare(tmp_path / "one", {"rows": 40}, {})
    return tmp_path / "one"


# --- the same digits -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4])
def test_several_workers_write_the_same_bytes_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Among the cases are batches of which some worker has no row, and workers that hold none at all."""
    (tmp_path / "all.py").write_text(ALL_IN_ONE_GROUP)
    expected = {}
    for name, (data, settings) in CASES.items():
        prepare(tmp_path / name, data, settings)
        monkeypatch.chdir(tmp_path / name)
        minibatch.main()
        expected[name] = outs(tmp_path / name)
        shutil.rmtree(tmp_path / name / "reports")
    folders = [str(tmp_path / name) for name in CASES]
    command = [*TORCHRUN, "--standalone", f"--nproc-per-node={count}", str(tmp_path / "all.py"), *folders]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    assert [name for name in CASES if outs(tmp_path / name) != expected[name]] == []


def test_workers_on_one_machine_are_started_by_the_stage(one: Path) -> None:
    alone = stage(one, "1")
    expected = outs(one)
    shutil.rmtree(one / "reports")
    shared = stage(one, "2")
    assert (shared.returncode, shared.stdout, shared.stderr) == (0, alone.stdout, "")
    assert outs(one) == expected


@pytest.mark.slow
def test_workers_on_two_hosts_join_each_other(tmp_path: Path) -> None:
    """Two torchruns, each in a folder of its own; one of them writes."""
    prepare(tmp_path / "alone", {}, {})
    assert stage(tmp_path / "alone", "1").returncode == 0
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meeting = f"--rdzv-endpoint=localhost:{free.getsockname()[1]}"
    hosts = [tmp_path / "a", tmp_path / "b"]
    for host in hosts:
        prepare(host, {}, {})
    command = [*TORCHRUN, "--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d", meeting, "--rdzv-id=1"]
    command += ["--local-addr=localhost", "-m", "stages.train.minibatch"]
    started = [subprocess.Popen(command, cwd=host, env=environment(), stderr=subprocess.DEVNULL) for host in hosts]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    (wrote,) = [host for host in hosts if (host / "reports").exists()]
    assert outs(wrote) == outs(tmp_path / "alone")


def test_one_process_does_without_torch_distributed(one: Path) -> None:
    """Beyond what `import torch` brings along."""
    program = (
        "import sys, torch\nbefore = set(sys.modules)\nfrom stages.train.minibatch import main\nmain()\n"
        "print([name for name in set(sys.modules) - before if 'distributed' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=one, env=environment(), capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# --- each reads its part ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [1, 2, 3, 7, 40, 100])
@pytest.mark.parametrize("change", ["", "no last newline", "CRLF", "byte order mark", "blank lines"])
def test_the_parts_of_a_file_are_its_rows_in_their_order(one: Path, change: str, of: int) -> None:
    path = one / "data/plane.csv"
    text = path.read_text(encoding="utf-8")
    text = text[:-1] if change == "no last newline" else text
    text = text.replace("\n", {"CRLF": "\r\n", "blank lines": "\n\n"}.get(change, "\n"))
    path.write_text(text, encoding="utf-8-sig" if change == "byte order mark" else "utf-8", newline="")
    parts = [read_part(path, part, of) for part in range(of)]
    whole = read_linear_set(path)
    assert [row for part in parts for row in part.features.tolist()] == whole.features.tolist()
    assert [value for part in parts for value in part.target.tolist()] == whole.target.tolist()
    assert max(len(part.target) for part in parts) <= 2 * -(-len(whole.target) // of)


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["", "0", "-1", "1.5", "two", "257", "99999", "٣"])
def test_a_number_of_workers_that_is_none_is_refused(one: Path, workers: str) -> None:
    message = refusal(stage(one, workers), one)
    assert message.startswith(f"WORKERS in the environment: expected a whole number from 1 to 256, found '{workers}'")


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [3, 38])
def test_a_cell_that_is_no_number_is_named_as_by_one_worker(one: Path, spoilt: int) -> None:
    path = one / "data/plane.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[spoilt] = re.sub("^[^,]*", "much", lines[spoilt])
    path.write_text("\n".join(lines), encoding="utf-8")
    messages = {refusal(stage(one, workers), one) for workers in ("1", "2")}
    assert len(messages) == 1
    assert f"row {spoilt} (line {spoilt + 1}), column 'x1'" in messages.pop()


@pytest.mark.slow
def test_single_precision_is_refused_to_several_workers(one: Path) -> None:
    """Its digits depend on the order of every sum."""
    set_param(one, "train.minibatch.dtype", "float32")
    assert refusal(stage(one, "2"), one).startswith("train.minibatch.dtype: several workers need float64")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_is_killed_ends_the_stage_in_one_message(tmp_path: Path, victim: int) -> None:
    prepare(tmp_path / "long", {}, {"epochs": 1_000_000})
    command = [sys.executable, "-m", "stages.train.minibatch"]
    with subprocess.Popen(
        command,
        cwd=tmp_path / "long",
        env=environment(WORKERS="2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as running:
        workers = workers_of(running.pid, 2)
        time.sleep(5)  # in the middle of the fit
        workers[victim].kill()
        killed = time.monotonic()
        stdout, stderr = running.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    done = subprocess.CompletedProcess(command, running.returncode, stdout, stderr)
    assert refusal(done, tmp_path / "long").startswith("a worker died before the fit was done")
    assert not psutil.pid_exists(workers[1 - victim].pid)


def workers_of(pid: int, count: int) -> list[psutil.Process]:
    """The workers of a stage, once they have loaded torch."""
    while True:
        found = [child for child in psutil.Process(pid).children(recursive=True) if "-m" in child.cmdline()]
        workers = [child for child in found if "torch.distributed.run" not in child.cmdline()]
        if len(workers) == count:
            return workers
        time.sleep(0.1)
