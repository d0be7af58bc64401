"""What an export is asked for; written whole into the artefact."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

from tzrec.config.specs import MIXED_PRECISIONS
from tzrec.errors import ConfigError, Unsupported, did_you_mean
from tzrec.options import ExportVariables

logger = logging.getLogger("tzrec")

PARITY_TOLERANCE = 1e-6
# Rows of narrow tables are added up in another order than in training. Half a step of such a
# table is larger by orders: a wrong row, scale or type does not pass.
QUANTISED_TOLERANCE = 1e-5
# A step of the 16-bit type, of numbers up to 1, several times over: compiled code rounds at other
# places. Larger numbers have larger steps, so the tolerance grows with them.
MIXED_TOLERANCES = {"BF16": 2.0**-6, "FP16": 2.0**-8}
TARGETS = ("torchscript", "aoti", "aoti_unified")
# Narrow types of tables; FP32 is said for "as trained".
TABLE_TYPES = ("FP16", "INT8", "INT4", "INT2")
INPUT_TILES = (0, 2, 3)

# How the interface's online processor writes the targets.
_ENABLE_AOT = {"aoti": "1", "aoti_unified": "2"}


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        target: what runs the model: ``torchscript``, ``aoti`` (embeddings in TorchScript, the
            rest compiled ahead of time) or ``aoti_unified`` (all of it compiled).
        quantisation: type of the rows of pooled embedding tables: ``FP16``, ``INT8``, ``INT4``
            or ``INT2``; empty (or ``FP32``) = as trained.
        sequence_quantisation: the same for tables of sequence groups.
        input_tile: how user features arrive: 0 = one row a candidate; 2 and 3 = one row a
            request, repeated before (2) or after (3) the lookup.
        mixed_precision: autocast of the exported model, as ``export_config`` has it.
        max_batch_size: most rows of the golden batch; 0 = all of its batch.
        autotune: Inductor times its kernels on the golden batch (``aoti``).
        asset_files: files to copy along.
        additional_export_config: entries for ``model_acc.json``.
        tolerance: largest difference between the model and its export that is published; None =
            1e-6, or 1e-5 with narrow tables (compared with the model on the same rounded rows), or
            that of `MIXED_TOLERANCES`. With mixed precision it is for scores up to 1, and grows
            with the score.
        sources: option → who asked for it, where that is not the default.
        variables: environment variables that decided, with their text.
        weights: `fingerprint` of what is exported; set by the export.

    Raises:
        ConfigError: a value that the option cannot have.
    """

    target: str = "torchscript"
    quantisation: str = ""
    sequence_quantisation: str = ""
    input_tile: int = 0
    mixed_precision: str = ""
    max_batch_size: int = 0
    autotune: bool = False
    asset_files: tuple[str, ...] = ()
    additional_export_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tolerance: float | None = None
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weights: str = ""

    def __post_init__(self) -> None:
        _one_of("export target", self.target, TARGETS)
        _one_of("mixed_precision", self.mixed_precision, ("", *MIXED_PRECISIONS))
        for name in ("quantisation", "sequence_quantisation"):
            value = getattr(self, name).upper()
            _one_of(name, value, ("", "FP32", *TABLE_TYPES))
            self._set(name, "" if value == "FP32" else value)
        if self.input_tile not in INPUT_TILES:
            raise ConfigError(f"input_tile {self.input_tile} of an export: must be 0, 2 or 3")
        if self.max_batch_size < 0:
            raise ConfigError(f"max_batch_size {self.max_batch_size} of an export: at least 0")
        if self.autotune and self.target == "torchscript":
            raise ConfigError(
                "autotune is for compiled exports", hint="add --target aoti, or leave it out"
            )
        if self.tolerance is None:
            self._set("tolerance", self._usual)
        elif not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ConfigError(f"export tolerance {self.tolerance} is not a number of at least 0")
        self._set("asset_files", tuple(self.asset_files))
        for name in ("additional_export_config", "sources", "variables"):
            self._set(name, dict(getattr(self, name)))
        self._check_additional()

    def __str__(self) -> str:
        """Returns the target and what somebody decided, with who it was."""
        decided = [
            f"{name} {getattr(self, name) or 'off'} ({source})"
            for name, source in self.sources.items()
        ]
        return ", ".join(decided) or f"target {self.target}"

    @property
    def quantises(self) -> bool:
        """Whether any table gets a narrow type."""
        return bool(self.quantisation or self.sequence_quantisation)

    @property
    def largest_difference(self) -> float:
        """``tolerance``, which is a number once the options are made."""
        assert self.tolerance is not None
        return self.tolerance

    @property
    def plain_difference(self) -> float:
        """What an export with mixed precision may differ by when it runs without.

        A tolerance that somebody asked for counts here too, where it is larger.
        """
        if self.tolerance == MIXED_TOLERANCES.get(self.mixed_precision):
            return self._narrow
        return max(self._narrow, self.largest_difference)

    @property
    def _narrow(self) -> float:
        return QUANTISED_TOLERANCE if self.quantises else PARITY_TOLERANCE

    @property
    def _usual(self) -> float:
        return MIXED_TOLERANCES.get(self.mixed_precision, self._narrow)

    @property
    def relative_difference(self) -> float:
        """What is allowed beside `largest_difference`, as a part of the size of a score."""
        return self.largest_difference if self.mixed_precision else 0.0

    @property
    def scales_difference(self) -> bool:
        """Whether `largest_difference` is for scores up to 1 and grows with larger ones.

        So it is for compiled code, which adds in another order; not for a tolerance that somebody
        asked for.
        """
        return self.target != "torchscript" and self.tolerance == self._usual

    def to_dict(self) -> dict[str, Any]:
        """Returns all options as JSON values."""
        return dataclasses.asdict(self) | {"asset_files": list(self.asset_files)}

    def model_acc(self) -> dict[str, Any]:
        """Returns ``model_acc.json``: the switches that the interface's processor reads.

        A switch that came from the environment keeps the environment's text.
        """
        return self._switches() | dict(self.additional_export_config)

    def _switches(self) -> dict[str, str]:
        switches = {name: value for name, value in self._all_switches().items() if value}
        # Targets are written in the one way that the processor knows.
        kept = {name: self.variables[name] for name in switches if name in self.variables}
        return switches | {name: text for name, text in kept.items() if name != "ENABLE_AOT"}

    def _all_switches(self) -> dict[str, str]:
        """Returns every switch that the export decides, with ``""`` for what is off."""
        return {
            "SPARSE_INT64": "1",
            # Said even when off: the interface's default is a silent INT8.
            "QUANT_EMB": self.quantisation or "0",
            "QUANT_EC_EMB": self.sequence_quantisation,
            "INPUT_TILE": str(self.input_tile or ""),
            "ENABLE_AOT": _ENABLE_AOT.get(self.target, ""),
            "MAX_EXPORT_BATCH_SIZE": str(self.max_batch_size or ""),
            "AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS": "1" if self.autotune else "",
        }

    def _check_additional(self) -> None:
        switches = self._all_switches() | self._switches()
        for name, value in self.additional_export_config.items():
            if name in switches and str(value) != (switches[name] or "0"):
                raise ConfigError(
                    f"additional_export_config says {name} = {value!r}, the export has "
                    f"{switches[name] or '0'!r}",
                    hint="ask for it with the flag of the export; model_acc.json follows",
                )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@dataclasses.dataclass(frozen=True)
class Asked:
    """Options of an export as somebody says them; None where nothing is said.

    The attributes are those of `ExportOptions`.
    """

    target: str | None = None
    quantisation: str | None = None
    sequence_quantisation: str | None = None
    input_tile: int | None = None
    max_batch_size: int | None = None
    autotune: bool | None = None
    tolerance: float | None = None


# What ``python -m tzrec.export`` does when nothing is said; the interface has it so.
INTERFACE_DEFAULTS = Asked(quantisation="INT8")


def resolve_options(
    asked: Asked | None = None,
    environment: ExportVariables | None = None,
    *,
    defaults: Asked | None = None,
    **fixed: Any,
) -> ExportOptions:
    """Decides how to export: flag, else environment, else default.

    Args:
        asked: the flags.
        environment: the variables.
        defaults: what the command does when neither says anything.
        fixed: other attributes of `ExportOptions` (``mixed_precision``, ``asset_files``, …).

    Raises:
        ConfigError: a value that the option cannot have.
    """
    environment = _without_effectless(asked, environment or ExportVariables())
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    variables: dict[str, str] = {}
    for field in dataclasses.fields(Asked):
        flag = getattr(asked, field.name, None)
        default = getattr(defaults, field.name, None)
        variable, text = environment.verbatim.get(field.name, ("", ""))
        if flag is not None:
            values[field.name], sources[field.name] = flag, "asked for"
        elif variable:
            values[field.name] = getattr(environment, field.name)
            sources[field.name] = f"environment variable {variable}"
            variables[variable] = text
        elif default is not None:
            values[field.name], sources[field.name] = default, "default of the command"
    return ExportOptions(**values, sources=sources, variables=variables, **fixed)


def _without_effectless(asked: Asked | None, environment: ExportVariables) -> ExportVariables:
    """Leaves out a variable that says how to compile where nothing is compiled, and says so.

    A flag that asks for it is an error of `ExportOptions`; variables are often set for all jobs.
    """
    target = (asked.target if asked else None) or environment.target or ExportOptions.target
    if not environment.autotune or target != "torchscript":
        return environment
    verbatim = dict(environment.verbatim)
    name, text = verbatim.pop("autotune")
    logger.info("%s=%s is for compiled exports: this one is %s", name, text, target)
    return dataclasses.replace(environment, autotune=None, verbatim=verbatim)


def refuse_later(variables: Collection[str]) -> None:
    """Refuses environment variables that ask for an export which this version does not have.

    Args:
        variables: ``NAME=value``.

    Raises:
        Unsupported: there is one.
    """
    if variables:
        raise Unsupported(
            f"{', '.join(variables)} in the environment: that kind of export comes with a later "
            "version",
            hint="unset it; docs/export.md lists what the environment can ask for",
        )


def refuse_device(options: Mapping[str, Any], device_type: str) -> None:
    """Refuses to run an export where it cannot run.

    Args:
        options: of its manifest.
        device_type: ``cpu``, ``cuda``, …

    Raises:
        Unsupported: its tables or its autocast are the CPU's.
    """
    if device_type == "cpu":
        return
    for name in ("mixed_precision", "quantisation", "sequence_quantisation"):
        if options.get(name):
            raise Unsupported(
                f"an export with {name} {options[name]} runs on the CPU only, not on {device_type}",
                hint="export the checkpoint again without it",
            )


def _one_of(what: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ConfigError(
            f"{what} {value!r} is not one of {', '.join(repr(name) for name in known)}"
            f"{did_you_mean(value, known)}"
        )
