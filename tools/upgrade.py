"""Asks whether other versions of some packages change a result: reproduces the last commit with them, and compares.

`make reproduce TORCH=2.15.0 NUMPY=2.3.0` runs it. Its environment is `.venvs/numpy-2.3.0+torch-2.15.0`, and it runs in
a clone in a temporary folder, so that `.venv`, requirements.txt and the working tree stay as they are.

run  python -m tools.upgrade torch=2.15.0; needs nothing installed
"""

import os
import re
import subprocess
import sys
import tempfile
from difflib import get_close_matches
from pathlib import Path

REQUIREMENTS = Path("requirements.txt")
ENVIRONMENTS = Path(".venvs")  # ignored by git and DVC
BIN = "Scripts" if os.name == "nt" else "bin"


def pinned(text: str) -> dict[str, str]:
    """Package -> version, of the lines `package==version`."""
    return {found[1].lower(): found[2] for found in re.finditer(r"^([\w.-]+)==([^\s;]+)", text, flags=re.MULTILINE)}


def wanted(arguments: list[str]) -> dict[str, str]:
    """Package -> version, of arguments such as `TORCH=2.15.0`."""
    known, found = pinned(REQUIREMENTS.read_text(encoding="utf-8")), {}
    for argument in arguments:
        name, _, version = argument.partition("=")
        package = name.lower().replace("_", "-")
        if package not in known:
            near = ", ".join(get_close_matches(package, known)) or "none with such a name"
            sys.exit(f"error: {name}: expected a package of {REQUIREMENTS}, found none; near it: {near}")
        if not re.fullmatch(r"\d+(\.\w+)*(\+\w+)?", version):
            sys.exit(f"error: {name}: expected a version such as {known[package]}, found {version!r}")
        found[package] = version
    return dict(sorted(found.items()))


def install(versions: dict[str, str]) -> Path:
    """The folder with the programs of an environment that has these versions, and all else as pinned.

    What the other versions themselves need may differ from what is pinned, and is installed after it.
    """
    folder = ENVIRONMENTS / "+".join(f"{package}-{version}" for package, version in versions.items())
    text, ready = REQUIREMENTS.read_text(encoding="utf-8"), folder / "ready"
    if ready.exists() and ready.read_text(encoding="utf-8") == text:
        return folder / BIN
    print(f"Installing into {folder}; PyTorch is large, this can take minutes.", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    named = [f"{package}=={version}" for package, version in versions.items()]
    pip(folder / BIN, "install", "--dry-run", "--no-deps", *named)  # before anything large is installed
    with tempfile.TemporaryDirectory() as temporary:
        others = Path(temporary) / "others.txt"
        lines = [line for line in text.splitlines() if not pinned(line).keys() & versions.keys()]
        others.write_text("\n".join(lines), encoding="utf-8")
        # the others without what they need, which is pinned too: torch would come along in the version that it has now
        pip(folder / BIN, "install", "--no-deps", "--requirement", str(others))
    pip(folder / BIN, "install", *named)
    ready.write_text(text, encoding="utf-8")
    return folder / BIN


def pip(bin_folder: Path, command: str, *arguments: str) -> str:
    """What a command of an environment's pip prints; ends in one message where it fails."""
    run = [str(bin_folder / "python"), "-m", "pip", command, "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        sys.exit(f"error: pip: {said[0] if said else done.stderr.strip()}")
    return done.stdout


def besides(bin_folder: Path, versions: dict[str, str]) -> list[str]:
    """What else is not as pinned, since the other versions need it so."""
    installed = pinned(pip(bin_folder, "freeze", "--all"))
    known = pinned(REQUIREMENTS.read_text(encoding="utf-8")) | versions
    return [
        f"{package} {installed[package]} instead of {version}"
        for package, version in known.items()
        if package in installed and installed[package].split("+")[0] != version.split("+")[0]
    ]


def main() -> None:
    versions = wanted(sys.argv[1:])
    bin_folder = install(versions).resolve()
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    print("The last commit with", ", ".join(f"{package} {version}" for package, version in versions.items()))
    if others := besides(bin_folder, versions):
        print("and, since these need it,", ", ".join(others))
    with tempfile.TemporaryDirectory() as clone:
        subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
        for tool in ("tools.reproduce", "tools.compare"):
            sys.stdout.flush()
            done = subprocess.run([bin_folder / "python", "-m", tool], cwd=clone, env=environment, check=False)
            if done.returncode:
                sys.exit(done.returncode)


if __name__ == "__main__":
    main()
