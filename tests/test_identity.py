"""Byte for byte: the same results under every vector level, thread count, locale, time zone and hash seed."""

import hashlib
import sys
from pathlib import Path

import pytest

from stages.common.evidence import EXPERIMENTS
from stages.common.params import Data
from tests.clones import clone_with_data, run, set_param
from tests.conftest import ROOT

CONDITIONS = {
    "ATen without vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "ATen AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATen AVX512": {"ATEN_CPU_CAPABILITY": "avx512"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "NumPy's baseline": {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL"},
    "OpenBLAS for Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "OpenBLAS for Prescott": {"OPENBLAS_CORETYPE": "Prescott"},
    "locale C": {"LANG": "C", "LC_ALL": "C"},
    "another time zone": {"TZ": "Asia/Tokyo"},
    "another hash seed": {"PYTHONHASHSEED": "7"},
}
FITS = [f"stages.{kind}{name}" for name in EXPERIMENTS for kind in ("train_", "replicate.")]


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a folder with spaces and letters beyond ASCII, with the data drawn."""
    return clone_with_data(tmp_path_factory.mktemp("identity") / "ein Ordner für Tests")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}


def assert_same(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert [name for name in expected if found.get(name) != expected[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize("condition", CONDITIONS)
def test_fits_and_repetitions(clone: Path, condition: str) -> None:
    before = contents(clone / "reports")
    for module in FITS:
        run(clone, sys.executable, "-m", module, environment=CONDITIONS[condition])
    assert_same(contents(clone / "reports"), before)


@pytest.mark.slow
@pytest.mark.parametrize("condition", [name for name in CONDITIONS if not name.startswith("ATen")])
def test_data_and_report(clone: Path, condition: str) -> None:
    before = contents(clone / "reports") | contents(clone / "data")
    for name in Data.model_fields:
        run(clone, sys.executable, "-m", "stages.generate_data", name, environment=CONDITIONS[condition])
    run(clone, sys.executable, "-m", "stages.report", environment=CONDITIONS[condition])
    assert_same(contents(clone / "reports") | contents(clone / "data"), before)


@pytest.mark.slow
def test_a_whole_run_elsewhere(clone: Path) -> None:
    """All of it at once, through DVC: another folder, locale, time zone, hash seed, thread count and vector level."""
    names = ("locale C", "another time zone", "another hash seed", "2 threads", "ATen without vectors")
    everything = {key: value for name in names for key, value in CONDITIONS[name].items()}
    run(clone, sys.executable, "-m", "dvc", "repro", "--force", environment=everything)
    assert run(clone, "git", "status", "--porcelain") == ""
    assert run(clone, sys.executable, "-m", "tools.compare").startswith("identical")


@pytest.mark.parametrize("module", ["stages.train_minibatch", "stages.train_nn", "stages.replicate.logistic"])
def test_a_sample_without_vectors(clone: Path, module: str) -> None:
    """The conditions most likely to tell: everything that is vectorised, without vectors."""
    before = contents(clone / "reports")
    run(
        clone,
        sys.executable,
        "-m",
        module,
        environment=CONDITIONS["ATen without vectors"] | CONDITIONS["NumPy's baseline"],
    )
    assert_same(contents(clone / "reports"), before)


def test_the_settings_take_effect(clone: Path) -> None:
    """Otherwise the conditions above would prove nothing."""
    torch_level = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    without = run(clone, sys.executable, "-c", torch_level, environment=CONDITIONS["ATen without vectors"]).strip()
    assert without in ("DEFAULT", "NO AVX")
    numpy_level = (
        "from numpy._core._multiarray_umath import __cpu_features__ as f; print(f.get('X86_V3', f.get('AVX2')))"
    )
    assert run(clone, sys.executable, "-c", numpy_level, environment=CONDITIONS["NumPy's baseline"]).strip() == "False"


@pytest.mark.slow
def test_runs_long_enough_to_reach_the_floor_of_rounding(clone: Path) -> None:
    """nn at 40,000 steps: what is left is residue of rounding, and still the same in every file."""
    set_param(clone, "train.nn.iterations", 40_000)
    results = []
    for environment in (CONDITIONS["ATen without vectors"], CONDITIONS["ATen AVX2"], CONDITIONS["ATen AVX512"]):
        run(clone, sys.executable, "-m", "stages.train_nn", environment=environment)
        results.append(contents(clone / "reports/history") | contents(clone / "reports/metrics"))
    run(clone, "git", "checkout", "--quiet", ".")
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def test_the_committed_data_are_what_the_settings_draw(clone: Path) -> None:
    """dvc.lock's hashes of the data are those of the data drawn here."""
    lock = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    for name in Data.model_fields:
        digest = hashlib.md5((clone / f"data/{name}.csv").read_bytes()).hexdigest()  # noqa: S324 DVC's hash
        assert digest in lock, name
