"""Reads and writes config files."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import Message

from tzrec import storage
from tzrec.config.build import Builder, Dialect
from tzrec.config.json_syntax import parse_json
from tzrec.config.problem import Problem, SourceMap, as_error, render, warning
from tzrec.config.syntax import TextSyntaxError, parse_text
from tzrec.errors import ConfigError, did_you_mean
from tzrec.protos.data_pb2 import FG_DAG, FG_NONE, FG_NORMAL, FgMode
from tzrec.protos.pipeline_pb2 import EasyRecConfig

logger = logging.getLogger("tzrec")


def load_pipeline_config(
    path: str | os.PathLike[str], allow_unknown_field: bool = False
) -> EasyRecConfig:
    """Loads a config: JSON when the name ends in ``.json``, else protobuf text format.

    Only syntax and schema are checked; `tzrec.config.prepare` checks the meaning too.

    Args:
        path: config file.
        allow_unknown_field: leave out fields that the schema does not have, with a warning.

    Raises:
        ConfigError: the file is missing or does not follow the schema.
    """
    config, source, problems = read_config(path, allow_unknown_field=allow_unknown_field)
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise as_error(fatal, source)
    for problem in problems:
        logger.warning(render(problem, source).removeprefix("warning: "))
    return config


def read_config(
    path: str | os.PathLike[str], *, allow_unknown_field: bool = False
) -> tuple[EasyRecConfig, SourceMap, list[Problem]]:
    """Loads a config and says what it noticed.

    Returns:
        The config (as far as it could be read), where its parts were written, the problems.

    Raises:
        ConfigError: the file is missing or its syntax is broken.
    """
    name = os.fspath(path)
    text = _read(name)
    source = SourceMap(name)
    is_json = name.endswith(".json")
    try:
        tree = parse_json(text) if is_json else parse_text(text)
    except TextSyntaxError as error:
        source.lines[error.path] = error.line
        problem = Problem(error.path, error.what, error.hint or _other_format(text, is_json))
        raise as_error([problem], source) from None
    if not tree.fields:
        raise ConfigError(
            f"config file {name!r} is empty", hint="docs/own_data.md shows a whole config"
        )
    builder = Builder(Dialect(json=is_json, allow_unknown=allow_unknown_field))
    config = EasyRecConfig()
    builder.fill(config, tree)
    source.lines |= builder.lines
    return config, source, builder.problems + map_fg_encoded(config)


def map_fg_encoded(config: EasyRecConfig) -> list[Problem]:
    """Turns the deprecated ``fg_encoded``, where it is written, into ``fg_mode``."""
    data = config.data_config
    if not data.HasField("fg_encoded"):
        return []
    not_encoded = FG_DAG if data.fg_threads > 0 else FG_NORMAL
    mode = FG_NONE if data.fg_encoded else not_encoded
    problems = []
    if data.HasField("fg_mode") and data.fg_mode != mode:
        text = str(data.fg_encoded).lower()
        problems.append(
            warning(
                "data_config.fg_encoded",
                f"the deprecated fg_encoded: {text} wins over fg_mode: {FgMode.Name(data.fg_mode)}"
                f" and means {FgMode.Name(mode)}",
                "remove fg_encoded",
            )
        )
    data.fg_mode = mode
    data.ClearField("fg_encoded")
    return problems


def save_message(message: Message, path: str | os.PathLike[str]) -> None:
    """Writes a message in text format; the file appears whole or not at all."""
    text = text_format.MessageToString(message, as_utf8=True)
    if storage.is_remote(path):
        with storage.open_file(path, "w", encoding="utf-8") as stream:
            stream.write(text)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)


def _read(name: str) -> str:
    if "://" in name:
        return _read_uri(name)
    path = Path(name)
    if not path.exists():
        raise ConfigError(f"config file {name!r} does not exist{_similar_file(path)}")
    if path.is_dir():
        raise ConfigError(f"config file {name!r} is a folder{_config_inside(path)}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"config file {name!r} is not UTF-8 text (byte {error.start})",
            hint="a config is a protobuf text file or, with the ending .json, a JSON file",
        ) from None
    except OSError as error:
        raise ConfigError(f"config file {name!r} cannot be read: {error.strerror}") from None


def _read_uri(name: str) -> str:
    import fsspec

    try:
        with fsspec.open(name, "r", encoding="utf-8") as stream:
            return str(stream.read())
    except FileNotFoundError:
        raise ConfigError(f"config file {name!r} does not exist") from None
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"config file {name!r} cannot be read: {error}") from error


def _other_format(text: str, is_json: bool) -> str:
    """Returns a hint where a text looks as if it was meant for the other file ending."""
    starts = text.lstrip()[:1]
    if is_json and (starts.isalpha() or starts == "#"):
        return "the ending .json is for JSON; a config in text format ends in .config"
    if not is_json and starts == "{":
        return "if this is JSON, name the file with the ending .json"
    return ""


def _config_inside(folder: Path) -> str:
    configs = sorted(entry for entry in folder.iterdir() if entry.suffix in (".config", ".json"))
    return f"; did you mean {str(configs[0])!r}?" if configs else ""


def _similar_file(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    files = [str(path.parent / entry.name) for entry in path.parent.iterdir() if entry.is_file()]
    return did_you_mean(str(path), files)
