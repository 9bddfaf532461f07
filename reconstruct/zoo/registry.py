"""Where models lie, and what they are called. The one module that knows the zoo's folders and files."""

from __future__ import annotations

import json
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from reconstruct.errors import ModelError
from reconstruct.zoo.checks import LONGEST_NAME, expect, is_there, table_of
from reconstruct.zoo.not_models import what_it_is

_PACKAGE = Path(__file__).parent.parent
_PACKAGED = _PACKAGE / "models"  # in a wheel
MODELS = _PACKAGED if _PACKAGED.is_dir() else _PACKAGE.parent / "models"  # in a checkout
CONFIG = "config.json"
"""The file that describes a model in a folder of the Hugging Face layout, beside ``PRETRAINED``."""
PRETRAINED = "model.safetensors"
_MOST_CONFIG_BYTES = 10**6


def model_names() -> list[str]:
    """Names of the models in the zoo, bases first.

    Examples
    --------
    >>> import reconstruct
    >>> "crelu_conv1_4" in reconstruct.model_names()
    True
    """
    bases = {path.stem: "base" not in read_specification(path) for path in MODELS.glob("*.toml")}
    return sorted(bases, key=lambda name: (not bases[name], name))


def specification_path(name: str) -> Path:
    """The file that describes a model given by name or path.

    Parameters
    ----------
    name : a name in the zoo, the path of a TOML specification, or a folder that holds ``config.json``; a name of the
        zoo goes before a folder of the same name.

    Raises
    ------
    ModelError : there is no such model (the message has the nearest names, or says how what is there becomes one), or
        the folder holds no config.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not is_there(path):
            raise ModelError(f"there is no specification {name}")
        return path
    known = {path.stem: path for path in MODELS.glob("*.toml")}
    if name in known:
        return known[name]
    if _is_folder(name):
        config = Path(name) / CONFIG
        if not config.is_file():
            raise ModelError(f"the folder {name} holds no {CONFIG}; name the .toml file of a model in it")
        return config
    if (told := what_it_is(name)) is not None:
        raise ModelError(told)
    near = get_close_matches(name[:LONGEST_NAME], known, n=3)
    ending = f"; did you mean {', '.join(near)}?" if near else "."
    raise ModelError(
        f"there is no model '{name}'{ending} Models: {', '.join(sorted(known))}, the path of a .toml file, a folder, "
        "torchvision:NAME, timm:NAME, or package.module:function"
    )


def is_zoo_name(name: str) -> bool:
    """Whether a name is that of a model in the zoo, which goes before a folder of the same name."""
    return any(path.stem == name for path in MODELS.glob("*.toml"))


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long for a name, or with a zero in it
        return False


def is_model_name(name: str) -> bool:
    """Whether a name serves in file names: letters, digits, ``_``, ``.`` and ``-``, the first a letter or digit."""
    return len(name) <= LONGEST_NAME and re.fullmatch(r"[^\W_][\w.-]*", name) is not None


def class_names(name: str) -> list[str] | None:
    """Names of a model's classes in the order of its outputs, None where nothing tells them.

    They are in ``NAME.classes.json``, beside the specification or in its folder ``weights``; those of a folder are in
    ``id2label`` of its ``config.json``.

    Raises
    ------
    ModelError : there is no such model, or the file of its classes is no list of names.
    """
    model = specification_path(name)
    if model.name == CONFIG:
        labels = read_specification(model).get("id2label")
        return None if labels is None else labels_of(model, labels)
    path = file_beside(model, f"{model.stem}.classes.json")
    if not path.is_file():
        return None
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    expect(isinstance(names, list) and all(isinstance(each, str) for each in names), path, "this is no list of names")
    return names


def labels_of(path: Path, labels: object) -> list[str]:
    """The names in ``id2label`` of a config, which has a name for each number, as a string, from 0 on.

    Raises
    ------
    ModelError : a number is missing, or something is no name.
    """
    complaint = 'id2label has a name for every class, {"0": ..., "1": ...}'
    table = table_of(labels, path, complaint)
    expect(table.keys() == {str(number) for number in range(len(table))}, path, complaint)
    expect(all(isinstance(each, str) for each in table.values()), path, complaint)
    return [table[str(number)] for number in range(len(table))]


def file_beside(specification: Path, file: str) -> Path:
    """A file that belongs to a specification: it lies in the folder ``weights`` beside it, or beside it."""
    inside = specification.parent / "weights" / file
    return inside if is_there(inside) else specification.parent / file


def read_specification(path: Path) -> dict[str, Any]:
    """What a TOML specification or a ``config.json`` holds, not yet checked.

    Raises
    ------
    ModelError : the file cannot be read, is neither TOML nor JSON, or is a config larger than any that is meant.
    """
    what = "JSON" if path.name == CONFIG else "TOML"
    try:
        small = path.stat().st_size <= _MOST_CONFIG_BYTES
        expect(small, path, f"a specification is smaller than {_MOST_CONFIG_BYTES} bytes")
        if what == "TOML":
            return tomllib.loads(path.read_text(encoding="utf-8"))
        spec = json.loads(path.read_text(encoding="utf-8"))
    except ModelError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # the parsers' own errors are values, too
        raise ModelError(f"{path} cannot be read as {what}: {error}") from error
    return table_of(spec, path, "a config is one JSON object")
