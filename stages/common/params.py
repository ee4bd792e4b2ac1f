"""Reads params.yaml, and says in one message all that is wrong with it."""

import re
from collections.abc import Hashable
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import UserError
from stages.common.schema import DISTRIBUTIONS, Group, Params, advice, shown

PARAMS = Path("params.yaml")
G = TypeVar("G", bound=Group)


def load_params() -> Params:
    """All of params.yaml.

    Raises:
        UserError: naming every key that is unknown, missing, of the wrong type or out of range.
    """
    return _validated(_read(), Params, where=())


def load_group(name: str, model: type[G]) -> G:
    """One group of params.yaml, for example `load_group("train.nn", NnTraining)`; the others are not looked at.

    Raises:
        UserError: as `load_params`.
    """
    where: tuple[str, ...] = ()
    tree = _read()
    for part in name.split("."):
        if not isinstance(tree, dict) or part not in tree:
            keys = list(tree) if isinstance(tree, dict) else []
            nearest = get_close_matches(part, [str(key) for key in keys], n=1)
            hint = f" (there is '{nearest[0]}')" if nearest else ""
            raise UserError(f"{PARAMS}: group '{name}' is missing{hint}; `git diff {PARAMS}` shows what was removed")
        where, tree = (*where, part), tree[part]
    return _validated(tree, model, where)


def _read() -> Any:
    """All of params.yaml as DVC reads it: YAML 1.2 by the same parser, where 010 is ten, and no key stands twice."""
    try:
        tree = _parsed(PARAMS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{PARAMS}: not found in {Path.cwd()}; run from the project's top folder") from None
    except (OSError, ValueError, LookupError, RecursionError, YAMLError) as error:
        # ValueError: not UTF-8, or no such date; LookupError: a tag whose value is none of its kind, as in !!int x
        raise UserError(f"{PARAMS}: can't be read as YAML: {error}") from None
    if tree is None:
        raise UserError(f"{PARAMS}: is empty; expected the groups {', '.join(Params.model_fields)}")
    return tree


@lru_cache(maxsize=1)  # a stage reads several groups of one file
def _parsed(text: str) -> Any:
    return YAML(typ="safe").load(text)


def _validated(tree: Any, model: type[G], where: tuple[str, ...]) -> G:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(details, tree, where) for details in error.errors()]
    found = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise UserError("\n  ".join([f"{PARAMS}: {found}; nothing was run", *problems]))


def _problem(details: ErrorDetails, tree: Any, where: tuple[str, ...]) -> str:
    """One line: the key's full name, what was expected, what was found."""
    key = ".".join(str(part) for part in (*where, *_path_in_file(details, tree))) or "the whole file"
    if details["type"] == "missing":
        return f"{key}: missing key; every key must be there (`git diff {PARAMS}` shows what was removed)"
    if details["type"] == "union_tag_not_found":
        return _missing_tag(details, key)
    if details["type"] == "stream":
        return details["msg"]
    if details["type"] in ("unknown_key", "standardize"):
        return f"{key}: {details['msg']}"
    expected = _expected(details)
    return f"{key}: {expected}, found {shown(details['input'])}"


def _expected(details: ErrorDetails) -> str:
    """Pydantic's message in the words of this file."""
    if details["type"] in ("model_type", "model_attributes_type"):
        return "expected a group of keys"
    if details["type"] == "union_tag_invalid":
        return DISTRIBUTIONS
    message = details["msg"].replace("Input should be", "expected").replace("List should have", "expected a list of")
    message = re.sub(r" after validation, not \d+$", "", message)
    return re.sub(r"^expected (greater|less)", r"expected a number \1", message)


def _missing_tag(details: ErrorDetails, key: str) -> str:
    """What is wrong with a choice of models, such as x, that lacks the key which makes the choice."""
    tag = str(details["ctx"]["discriminator"]).strip("'")
    unknown = get_close_matches(tag, [str(name) for name in details["input"]], n=1)
    return f"{key}: {advice(unknown[0], [tag])}" if unknown else f"{key}.{tag}: missing key; {DISTRIBUTIONS}"


def _path_in_file(details: ErrorDetails, tree: Any) -> list[Hashable]:
    """pydantic's location without the tags that it adds for a choice of models, as in data.line.x.uniform.low."""
    path: list[Hashable] = []
    for depth, part in enumerate(details["loc"], start=1):
        if isinstance(tree, dict):
            is_the_missing_key = details["type"] == "missing" and depth == len(details["loc"])
            if part not in tree and not is_the_missing_key:
                continue
            tree = tree.get(part)
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree):
            tree = tree[part]
        path.append(part)
    return path
