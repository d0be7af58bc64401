"""From a config file and the command line to a checked config."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Sequence

from tzrec.config.edit import edit_config, set_config
from tzrec.config.load import map_fg_encoded, read_config
from tzrec.config.problem import Problem, SourceMap, as_error, render
from tzrec.config.validate import validate
from tzrec.config.validate.frame import Rule
from tzrec.errors import ConfigError
from tzrec.protos.pipeline_pb2 import EasyRecConfig

logger = logging.getLogger("tzrec")


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A checked config.

    Attributes:
        config: the config; read only from here on.
        source: where its parts were written.
        warnings: what is odd about it, but stops nothing.
    """

    config: EasyRecConfig
    source: SourceMap
    warnings: tuple[Problem, ...] = ()

    def warning_lines(self) -> list[str]:
        """Returns the warnings as text, with their places."""
        return [render(p, self.source).removeprefix("warning: ") for p in self.warnings]


def prepare(
    path: str | os.PathLike[str],
    *,
    train_input_path: str | None = None,
    eval_input_path: str | None = None,
    model_dir: str | None = None,
    fine_tune_checkpoint: str | None = None,
    edit_config_json: str | None = None,
    edits: Sequence[str] = (),
    allow_unknown_field: bool = False,
    for_serving: bool = False,
    log_warnings: bool = True,
    rules: Sequence[Rule] = (),
) -> Pipeline:
    """Loads a config, applies overrides and edits in the interface's order, and checks it.

    Args:
        path: config file.
        train_input_path: overrides the config's.
        eval_input_path: overrides the config's.
        model_dir: overrides the config's.
        fine_tune_checkpoint: overrides ``train_config.fine_tune_checkpoint``.
        edit_config_json: JSON object of edits, applied after the overrides.
        edits: edits as ``a.b.c=v``, applied last.
        allow_unknown_field: leave out fields that the schema does not have, with a warning.
        for_serving: training sections and input paths are not needed.
        log_warnings: say what is odd about the config.
        rules: further rules, of layers above this one; see `tzrec.config.validate`.

    Raises:
        ConfigError: with all problems, each as ``file:line: path: what``.
        Unsupported: the same, when every problem is about a part of a later version.
    """
    config, source, problems = read_config(path, allow_unknown_field=allow_unknown_field)
    # As in the interface: fine_tune_checkpoint first, then the paths.
    overrides = (
        ("train_config.fine_tune_checkpoint", fine_tune_checkpoint),
        ("train_input_path", train_input_path),
        ("eval_input_path", eval_input_path),
        ("model_dir", model_dir),
    )
    for where, value in overrides:
        if value is not None:
            message = config.train_config if where.startswith("train_config") else config
            setattr(message, where.rpartition(".")[2], value)
            source.mark(where, "--" + where.rpartition(".")[2])
    problems += _edit(config, source, edit_config_json, edits)
    problems += map_fg_encoded(config)
    problems = validate(
        config, source, schema_problems=problems, for_serving=for_serving, rules=rules
    )
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise as_error(fatal, source)
    pipeline = Pipeline(config, source, tuple(problems))
    if log_warnings:
        for line in pipeline.warning_lines():
            logger.warning(line)
    return pipeline


def _edit(
    config: EasyRecConfig, source: SourceMap, edit_json: str | None, edits: Sequence[str]
) -> list[Problem]:
    """Applies edits; a wrong one is a problem, and the others still count."""
    steps: list[tuple[str, Callable[[], list[str]]]] = []
    if edit_json is not None:
        steps.append(("--edit_config_json", functools.partial(edit_config, config, edit_json)))
    steps += [("--set", functools.partial(set_config, config, [edit])) for edit in edits]
    problems = []
    for flag, step in steps:
        try:
            for where in step():
                source.mark(where, flag)
        except ConfigError as error:
            where = ".".join(error.location)
            source.flags[where] = flag
            problems.append(Problem(where, error.message, error.hint))
    return problems
