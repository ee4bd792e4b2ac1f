"""Validates all of params.yaml before DVC deletes or runs anything else.

in   params.yaml
out  .params.ok, the marker that all data wait for, and with them all else; its content never changes, so nothing reruns
     for it
run  python -m stages.check_params
"""

from pathlib import Path

from stages.common.errors import run_stage
from stages.common.params import load_params

MARKER = Path(".params.ok")


def main() -> None:
    load_params()
    MARKER.write_text("params.yaml is valid\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
