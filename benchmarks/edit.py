"""Edits train.nn.lr in params.yaml to a new value: `make bench` times the way from there to the report."""

import re
import time
from pathlib import Path

PARAMS = Path("params.yaml")


def main() -> None:
    lr = 0.01 + (time.time_ns() % 1_000_000) * 1e-9
    text = PARAMS.read_text(encoding="utf-8")
    PARAMS.write_text(re.sub(r"(?s)(\n  nn:.*?lr: )\S+", rf"\g<1>{lr:.9f}", text, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
