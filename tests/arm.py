"""Python for 64-bit ARM on another machine, under qemu's emulation: the real ARM code of NumPy, SciPy and PyTorch.

Works on a Debian system, without rights on it; what is needed is kept in .tmp/arm. PyTorch is the newest whose ARM
wheels come without CUDA. For stages only: what they would start would not be emulated.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.conftest import ROOT

HOME = ROOT / ".tmp/arm"
TORCH = "torch==2.8.0"
NEEDED_BY_TORCH = ["filelock", "fsspec", "networkx", "setuptools", "sympy", "typing-extensions"]
TOOLS = ["qemu-aarch64-static", "apt-get", "dpkg"]
PROCESSORS = {"NEON": "cortex-a57", "SVE": "max,pauth-impdef=on,sve-max-vq=2"}  # vectors of 128 bits, of up to 256


def missing_tools() -> list[str]:
    """What this system lacks of what the emulation needs."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def command(processor: str) -> list[str]:
    """What runs Python on such a processor; installs it first, which takes minutes."""
    ready = HOME / "ready"
    if not ready.exists():
        shutil.rmtree(HOME, ignore_errors=True)
        install_system()
        install_packages()
        ready.touch()
    environment = ["-E", f"PYTHONPATH={HOME / 'site'}"]
    return ["qemu-aarch64-static", "-cpu", PROCESSORS[processor], *environment, "-L", str(HOME / "root"), str(python())]


def python() -> Path:
    return next(path for path in (HOME / "root/usr/bin").glob("python3.*") if path.suffix[1:].isdigit())


def install_system() -> None:
    """Debian's Python and C libraries for ARM, by an apt that knows of nothing installed and has its own folders."""
    state = {"APT::Architecture": "arm64", "APT::Architectures": "arm64", "Dir::State": HOME / "state"}
    state |= {"Dir::State::status": HOME / "status", "Dir::Cache": HOME / "cache", "APT::Sandbox::User": "root"}
    apt = ["apt-get", "--quiet", *(f"--option={key}={value}" for key, value in state.items())]
    for folder in ("state/lists/partial", "cache/archives/partial", "root"):
        (HOME / folder).mkdir(parents=True)
    (HOME / "status").touch()
    run(*apt, "update")
    wanted = ["python3", "libgomp1", "libstdc++6", "zlib1g"]
    run(*apt, "install", "--yes", "--download-only", "--no-install-recommends", *wanted)
    for deb in (HOME / "cache/archives").glob("*.deb"):
        run("dpkg", "--extract", str(deb), str(HOME / "root"))


def install_packages() -> None:
    """The stages' packages in the pinned versions, pytest, which the tests' modules need, and PyTorch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = [name for name in project["dependencies"] if not name.startswith(("dvc", "torch"))]
    constraints = HOME / "constraints.txt"
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    constraints.write_text("\n".join(pin for pin in pins if not pin.startswith("torch==")), encoding="utf-8")
    version = python().name.removeprefix("python")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(HOME / "site"), "--only-binary=:all:"]
    pip += ["--python-version", version, "--implementation", "cp", "--constraint", str(constraints)]
    pip += [f"--platform=manylinux_{glibc}_aarch64" for glibc in ("2_17", "2_26", "2_27", "2_28")]
    pip += ["--platform=manylinux2014_aarch64", "--platform=any", "--root-user-action=ignore"]
    run(*pip, *direct, *NEEDED_BY_TORCH, "pytest")
    run(*pip, "--no-deps", TORCH)


def run(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
