"""What the articles published: data/published.yaml."""

from pathlib import Path
from typing import Any

import yaml

from stages.common.errors import UserError

PUBLISHED = Path("data/published.yaml")


def read_published(experiment: str) -> dict[str, Any]:
    """What an experiment's article published: the experiment's part of data/published.yaml.

    Raises:
        UserError: where the file has no such part.
    """
    try:
        published: dict[str, Any] = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))[experiment]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{PUBLISHED}: expected an entry for {experiment}; {error!r}") from None
    return published


def decimals_of(printed: str) -> int:
    """How many decimals a printed number has."""
    return len(printed.partition(".")[2])
