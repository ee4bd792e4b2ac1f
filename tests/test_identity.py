"""Byte for byte: the same results under every vector level, thread count, locale, time zone and hash seed."""

import sys
from pathlib import Path

import pytest

from stages.common.experiments import EXPERIMENTS
from stages.common.schema import Data
from tests.clones import clone_with_data, run, set_param

WITHOUT_VECTORS = {"ATEN_CPU_CAPABILITY": "default"}
BASELINE = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL"}
CONDITIONS = {
    "ATen without vectors": WITHOUT_VECTORS,
    "ATen AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATen AVX512": {"ATEN_CPU_CAPABILITY": "avx512"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "NumPy's baseline": BASELINE,
    "OpenBLAS for Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "OpenBLAS for Prescott": {"OPENBLAS_CORETYPE": "Prescott"},
    "locale C": {"LANG": "C", "LC_ALL": "C"},
    "another time zone": {"TZ": "Asia/Tokyo"},
    "another hash seed": {"PYTHONHASHSEED": "7"},
}
FITS = [f"train.{name}" for name in EXPERIMENTS]
REPETITIONS = [f"replicate.{name}" for name in EXPERIMENTS]
OTHERS = [*(f"generate_data {name}" for name in Data.model_fields), *(f"evaluate {e}" for e in EXPERIMENTS), "report"]


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a folder with spaces and letters beyond ASCII, with the data drawn."""
    return clone_with_data(tmp_path_factory.mktemp("identity") / "ein Ordner für Tests")


def contents(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*.*") if path.is_file()}


def assert_same_bytes(clone: Path, commands: list[str], environment: dict[str, str]) -> None:
    """Stages that run under these conditions write what is committed."""
    before = contents(clone / "reports", clone / "data")
    for command in commands:
        run(clone, sys.executable, "-m", *f"stages.{command}".split(), environment=environment)
    after = contents(clone / "reports", clone / "data")
    run(clone, "git", "checkout", "--quiet", ".")
    assert sorted(path.name for path in before | after if before.get(path) != after.get(path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_stage_writes_the_same_bytes(clone: Path, condition: str) -> None:
    """Without torch the vector level of ATen is nothing to the others."""
    others = [] if condition.startswith("ATen") else [*REPETITIONS, *OTHERS]
    assert_same_bytes(clone, [*FITS, *others], CONDITIONS[condition])


def test_a_sample_writes_the_same_bytes_without_vectors(clone: Path) -> None:
    """The conditions most likely to tell, and a hash seed that shuffles sets."""
    environment = WITHOUT_VECTORS | BASELINE | CONDITIONS["OpenBLAS for Prescott"] | CONDITIONS["another hash seed"]
    assert_same_bytes(clone, ["train.minibatch", "replicate.logistic", "evaluate manual", "evaluate nn"], environment)


def test_the_settings_take_effect(clone: Path) -> None:
    """Otherwise the conditions above would prove nothing."""
    torch_level = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    assert run(clone, sys.executable, "-c", torch_level, environment=WITHOUT_VECTORS).strip() in ("DEFAULT", "NO AVX")
    features = "from numpy._core._multiarray_umath import __cpu_features__ as f"
    numpy_level = f"{features}; print(f.get('X86_V3', f.get('AVX2')))"
    assert run(clone, sys.executable, "-c", numpy_level, environment=BASELINE).strip() == "False"


@pytest.mark.slow
def test_a_whole_run_elsewhere(clone: Path) -> None:
    """All of it at once, through DVC: another folder, locale, time zone, hash seed, thread count and vector level."""
    names = ("locale C", "another time zone", "another hash seed", "2 threads", "ATen without vectors")
    everything = {key: value for name in names for key, value in CONDITIONS[name].items()}
    run(clone, sys.executable, "-m", "dvc", "repro", "--force", environment=everything)
    assert run(clone, "git", "status", "--porcelain") == ""
    assert run(clone, sys.executable, "-m", "tools.compare").startswith("identical")


@pytest.mark.slow
def test_runs_long_enough_to_reach_the_floor_of_rounding(clone: Path) -> None:
    """nn at 40,000 steps: what is left is residue of rounding, and still the same in every file."""
    set_param(clone, "train.nn.iterations", 40_000)
    results = []
    for condition in ("ATen without vectors", "ATen AVX2", "ATen AVX512"):
        run(clone, sys.executable, "-m", "stages.train.nn", environment=CONDITIONS[condition])
        results.append(contents(clone / "reports/history", clone / "reports/metrics"))
    run(clone, "git", "checkout", "--quiet", ".")
    assert results[0] == results[1] == results[2]
