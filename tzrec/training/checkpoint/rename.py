"""Parameters that have another name in a checkpoint (reference 01 §1.1.5)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tzrec import storage
from tzrec.errors import CheckpointError, ConfigError, did_you_mean

# Copies of the user's tables in tiled models, and the collections that they copy.
_COPIES = {
    ".ebc_user.": ".ebc.",
    ".ec_dict_user.": ".ec_dict.",
    ".mc_ebc_user.": ".mc_ebc.",
    ".mc_ec_dict_user.": ".mc_ec_dict.",
}
_BY_DIM = re.compile(r"\.(mc_)?ec_dict\.\d+\.")


def read_param_map(path: str) -> dict[str, str]:
    """Reads ``fine_tune_ckpt_param_map``: per line a parameter and its name in the checkpoint.

    Names are full keys of the state dict (``model.…``), with blanks in between. Empty lines and
    lines that start with ``#`` are passed over.

    Raises:
        ConfigError: the file cannot be read, or a line is not of that form.
    """
    try:
        with storage.open_file(path, "r", encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except FileNotFoundError:
        raise ConfigError(f"fine_tune_ckpt_param_map {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"fine_tune_ckpt_param_map {path} cannot be read: {error}") from error
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if not parts or line.lstrip().startswith("#"):
            continue
        if len(parts) != 2:
            raise ConfigError(
                f"{path}:{number}: {line.strip()!r} has {len(parts)} names instead of two",
                hint="write: new_parameter_name checkpoint_parameter_name",
            )
        if names.setdefault(parts[0], parts[1]) != parts[1]:
            raise ConfigError(f"{path}:{number}: {parts[0]} is renamed twice")
    return names


def stored_names(
    shapes: Mapping[str, Sequence[int] | None],
    stored: Mapping[str, Sequence[int] | None],
    param_map: Mapping[str, str],
) -> dict[str, str]:
    """Returns key of the model → key in the checkpoint, of those that the checkpoint has.

    Args:
        shapes: key of the model → shape, None = no tensor.
        stored: the same of the checkpoint.
        param_map: what `read_param_map` returned.

    Raises:
        CheckpointError: a name of the map does not exist.
    """
    for new, old in param_map.items():
        for name, known, where in ((new, shapes, "the model"), (old, stored, "the checkpoint")):
            if name not in known:
                raise CheckpointError(
                    f"fine_tune_ckpt_param_map: {where} has no parameter {name}"
                    f"{did_you_mean(name, known)}"
                )
    found = {}
    for key, shape in shapes.items():
        if key in param_map:
            found[key] = param_map[key]
        elif key in stored:
            found[key] = key
        else:
            other = next((o for o in _other_names(key, stored) if stored[o] == shape), None)
            if other is not None:
                found[key] = other
    return found


def _other_names(key: str, stored: Collection[str]) -> Iterator[str]:
    """Yields the names that a key may have had, if the checkpoint holds them."""
    names = [key]
    for copy, original in _COPIES.items():
        if copy in key:
            names.append(key.replace(copy, original, 1))
    yield from (name for name in names[1:] if name in stored)
    for name in names:
        by_dim = _BY_DIM.search(name)
        if by_dim is None:
            continue
        before, after = name[: by_dim.start()], name[by_dim.end() :]
        listed = re.compile(
            rf"{re.escape(before)}\.{by_dim[1] or ''}ec_list\.\d+\.{re.escape(after)}"
        )
        yield from (old for old in stored if listed.fullmatch(old))


def stored_state_name(state: str, parameter: str, old_parameter: str) -> str:
    """Returns the name of an optimizer state under the parameter's old name.

    States of tables carry the table's name: ``{table}.momentum1`` of ``….{table}.weight``.
    """
    table, old_table = _table(parameter), _table(old_parameter)
    if table is not None and old_table is not None and state.startswith(f"{table}."):
        return f"{old_table}{state[len(table) :]}"
    return state


def _table(parameter: str) -> str | None:
    parts: Any = re.search(r"\.(?:embedding_bags|embeddings)\.(.+)\.weight$", parameter)
    return parts[1] if parts else None
