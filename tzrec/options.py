"""What the environment says, read once: no other file touches the environment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from tzrec.constant import PREDICT_QUEUE_TIMEOUT
from tzrec.errors import ConfigError, did_you_mean

_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
_SEEDS = ("PYTHON_RANDOM_SEED", "TORCH_MANUAL_SEED", "NUMPY_MANUAL_SEED")

_AUTOTUNE = "AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS"

# Set before torch is imported, where the user has not chosen: torch and glog log errors only.
_PROCESS_DEFAULTS = {
    "GLOG_minloglevel": "2",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_LOGS": "-all",
}

# The same: idle OpenMP threads sleep (the loader's threads want those cores), but not before they
# have waited for about 0.1 ms: the next operation of a step comes sooner than a thread wakes up.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}

# Switches of the interface whose parts come with later versions, and the values that mean "off".
_LATER = {
    "INPUT_TILE_3_ONLINE": ("", "0"),
    "USE_RTP": ("", "0"),
    "DIST_QUANT": ("",),
    "USE_DISTRIBUTED_EMBEDDING": ("", "0"),
    "ENABLE_TRT": ("", "0"),
    "ONLINE_DENSE_EXPORT": ("", "0"),
}

# What QUANT_EMB and QUANT_EC_EMB may say; FP32 is how tables are without quantisation.
_TABLE_TYPES = {
    "0": "FP32",
    "1": "INT8",
    "FP32": "FP32",
    "FP16": "FP16",
    "INT8": "INT8",
    "INT4": "INT4",
    "INT2": "INT2",
}


@dataclasses.dataclass(frozen=True)
class ExportVariables:
    """What the environment says about an export; None where it says nothing.

    Attributes:
        target: ``torchscript``, ``aoti`` (``ENABLE_AOT=1``) or ``aoti_unified``
            (``ENABLE_AOT=2``, ``UNIFIED_AOT=1``).
        quantisation: type of pooled tables (``QUANT_EMB``).
        sequence_quantisation: type of sequence tables (``QUANT_EC_EMB``).
        input_tile: 0, 2 or 3 (``INPUT_TILE``; its 1 is 0).
        max_batch_size: most rows of a batch (``MAX_EXPORT_BATCH_SIZE``).
        autotune: time kernels on the sample batch (``AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS``).
        verbatim: attribute → (variable, its text).
    """

    target: str | None = None
    quantisation: str | None = None
    sequence_quantisation: str | None = None
    input_tile: int | None = None
    max_batch_size: int | None = None
    autotune: bool | None = None
    verbatim: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class KafkaLookup:
    """How Kafka offsets are looked up by time (``TZREC_KAFKA_OFFSETS_FOR_TIMES_*``).

    Attributes:
        batch_size: partitions per request (``_BATCH_SIZE``).
        timeout: seconds of a request (``_TIMEOUT``).
        retries: how often a failed one is repeated (``_RETRIES``).
    """

    batch_size: int = 32
    timeout: float = 30.0
    retries: int = 2


@dataclasses.dataclass(frozen=True)
class Options:
    """What the environment decides about a process.

    Attributes:
        log_level: level name of the logger ``tzrec``.
        seed: seed of the environment, None when it has none; a seed written in the config wins.
        deterministic: use torch's deterministic algorithms.
        farm_hash: hash with FarmHash Fingerprint64 (``USE_FARM_HASH_TO_BUCKETIZE``).
        string_ids: ids in the tables of samplers are text of any form (``USE_HASH_NODE_ID``), as
            the samplers' own ``string_ids`` says.
        predict_queue_timeout: seconds before a stuck prediction queue is an error.
        process_group_timeout: seconds before a collective is an error, None = torch's default.
        rank: rank of this process among all.
        local_rank: rank among the processes of this machine.
        world_size: number of processes.
        local_world_size: number of processes of this machine.
        launched: True under torchrun (a rendezvous address is known).
        cache_dir: where remote models are staged (``LOCAL_CACHE_DIR``), None = the system's
            directory for temporary files.
        export: what it says about exports.
        no_effect: documented variables that are set and ask for a part that this version does
            not have, as ``NAME=value``.
    """

    log_level: str = "INFO"
    seed: int | None = None
    deterministic: bool = False
    farm_hash: bool = False
    string_ids: bool = False
    predict_queue_timeout: int = PREDICT_QUEUE_TIMEOUT
    process_group_timeout: int | None = None
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    launched: bool = False
    cache_dir: str | None = None
    export: ExportVariables = ExportVariables()
    no_effect: tuple[str, ...] = ()


def from_environment(environ: Mapping[str, str] | None = None) -> Options:
    """Reads the documented variables.

    Args:
        environ: variables; None reads those of the process.

    Raises:
        ConfigError: a variable has a value that it cannot have.
    """
    env = os.environ if environ is None else environ  # noqa: TID251
    options = Options(
        log_level=_level(env),
        seed=_seed(env),
        deterministic=_flag(env, "USE_DETERMINISTIC_ALGORITHMS"),
        farm_hash=_flag(env, "USE_FARM_HASH_TO_BUCKETIZE"),
        string_ids=_flag(env, "USE_HASH_NODE_ID"),
        predict_queue_timeout=_integer(env, "PREDICT_QUEUE_TIMEOUT", PREDICT_QUEUE_TIMEOUT, 1),
        process_group_timeout=_integer(env, "PROCESS_GROUP_TIMEOUT_SECONDS", 0, 1) or None,
        rank=_integer(env, "RANK", 0, 0),
        local_rank=_integer(env, "LOCAL_RANK", 0, 0),
        world_size=_integer(env, "WORLD_SIZE", 1, 1),
        local_world_size=_integer(env, "LOCAL_WORLD_SIZE", 1, 1),
        launched="MASTER_ADDR" in env and "RANK" in env,
        cache_dir=env.get("LOCAL_CACHE_DIR", "").strip() or None,
        export=_export_variables(env),
        no_effect=tuple(
            f"{name}={env[name]}" for name, off in _LATER.items() if env.get(name, "") not in off
        ),
    )
    storage_reserve(env)
    wants_stored_plan(env)
    if options.rank >= options.world_size:
        raise ConfigError(
            f"environment variable RANK is {options.rank}, "
            f"but WORLD_SIZE is {options.world_size}: ranks count from 0",
            hint="start several processes with torchrun, which sets both",
        )
    if options.world_size > 1 and not options.launched:
        raise ConfigError(
            f"environment variable WORLD_SIZE is {options.world_size}, but MASTER_ADDR is not set",
            hint="start several processes with torchrun; one process needs none of these",
        )
    return options


def current_rank() -> int:
    """Returns the rank of this process, 0 where the environment does not (rightly) say; for
    messages, so it never fails.
    """
    rank, world = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))  # noqa: TID251
    if not rank.isdecimal() or not world.isdecimal():
        return 0
    return int(rank) if int(rank) < int(world) else 0


def kafka_lookup(environ: Mapping[str, str] | None = None) -> KafkaLookup:
    """Returns how Kafka offsets are looked up by time.

    Args:
        environ: variables; None reads those of the process.

    Raises:
        ConfigError: a variable has a value that it cannot have.
    """
    env = os.environ if environ is None else environ  # noqa: TID251
    prefix, default = "TZREC_KAFKA_OFFSETS_FOR_TIMES_", KafkaLookup()
    text = env.get(f"{prefix}TIMEOUT", "").strip()
    try:
        timeout = float(text or default.timeout)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < float("inf"):
        raise ConfigError(f"environment variable {prefix}TIMEOUT is {text!r}, must be seconds")
    return KafkaLookup(
        batch_size=_integer(env, f"{prefix}BATCH_SIZE", default.batch_size, 1),
        timeout=timeout,
        retries=_integer(env, f"{prefix}RETRIES", default.retries, 0),
    )


def storage_reserve(environ: Mapping[str, str] | None = None) -> float:
    """Returns the share of memory that plans of tables keep for the rest (0.15).

    Args:
        environ: variables; None reads those of the process.

    Raises:
        ConfigError: ``STORAGE_RESERVE_PERCENT`` is no such share.
    """
    env = os.environ if environ is None else environ  # noqa: TID251
    text = env.get("STORAGE_RESERVE_PERCENT", "").strip()
    try:
        share = float(text or 0.15)
    except ValueError:
        share = 1.0
    if not 0 <= share < 1:
        raise ConfigError(
            f"environment variable STORAGE_RESERVE_PERCENT is {text!r}, must be a share below 1",
            hint="0.15 keeps 15 % of the memory",
        )
    return share


def wants_stored_plan(environ: Mapping[str, str] | None = None) -> bool:
    """Returns whether a run is asked to place its tables as a checkpoint says.

    Args:
        environ: variables; None reads those of the process.

    Raises:
        ConfigError: ``FORCE_LOAD_SHARDING_PLAN`` is neither 0 nor 1.
    """
    env = os.environ if environ is None else environ  # noqa: TID251
    return _flag(env, "FORCE_LOAD_SHARDING_PLAN")


def prepare_process() -> None:
    """Sets what libraries read when they are loaded, where the user has not set it.

    A command calls this before it imports torch; importing tzrec never does.
    """
    chosen = any(name in os.environ for name in _WAITING)  # noqa: TID251
    for name, value in {**_PROCESS_DEFAULTS, **({} if chosen else _WAITING)}.items():
        os.environ.setdefault(name, value)  # noqa: TID251


def allocator_is_chosen(environ: Mapping[str, str] | None = None) -> bool:
    """Returns whether the environment tunes the C library's allocator.

    Args:
        environ: variables; None reads those of the process.
    """
    env = os.environ if environ is None else environ  # noqa: TID251
    names = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")
    return any(name in env for name in (*names, "GLIBC_TUNABLES"))


def _export_variables(env: Mapping[str, str]) -> ExportVariables:
    target_name, target = _target(env)
    found: dict[str, tuple[str, Any]] = {
        "target": (target_name, target),
        "quantisation": ("QUANT_EMB", _table_type(env, "QUANT_EMB")),
        "sequence_quantisation": ("QUANT_EC_EMB", _table_type(env, "QUANT_EC_EMB")),
        "input_tile": ("INPUT_TILE", _input_tile(env)),
        "max_batch_size": (
            "MAX_EXPORT_BATCH_SIZE",
            _integer(env, "MAX_EXPORT_BATCH_SIZE", 0, 1) or None,
        ),
        "autotune": (_AUTOTUNE, _switch(env, _AUTOTUNE)),
    }
    said = {key: (name, value) for key, (name, value) in found.items() if value is not None}
    verbatim = {key: (name, env[name].strip()) for key, (name, _) in said.items()}
    return ExportVariables(**{key: value for key, (_, value) in said.items()}, verbatim=verbatim)


def _target(env: Mapping[str, str]) -> tuple[str, str | None]:
    unified = _switch(env, "UNIFIED_AOT")
    text = env.get("ENABLE_AOT", "").strip()
    if text not in ("", "0", "1", "2"):
        raise ConfigError(f"environment variable ENABLE_AOT is {text!r}, must be 0, 1 or 2")
    if unified:
        if text == "0":
            raise ConfigError("environment variables disagree: UNIFIED_AOT=1 and ENABLE_AOT=0")
        return "UNIFIED_AOT", "aoti_unified"
    return "ENABLE_AOT", {"0": "torchscript", "1": "aoti", "2": "aoti_unified"}.get(text)


def _table_type(env: Mapping[str, str], name: str) -> str | None:
    text = env.get(name, "").strip().upper()
    if not text:
        return None
    if text not in _TABLE_TYPES:
        raise ConfigError(
            f"environment variable {name} is {env[name]!r}, must be one of "
            f"{', '.join(_TABLE_TYPES)}{did_you_mean(text, _TABLE_TYPES)}"
        )
    return _TABLE_TYPES[text]


def _input_tile(env: Mapping[str, str]) -> int | None:
    text = env.get("INPUT_TILE", "").strip()
    modes = {"": None, "0": 0, "1": 0, "2": 2, "3": 3}
    if text not in modes:
        raise ConfigError(f"environment variable INPUT_TILE is {text!r}, must be 0, 1, 2 or 3")
    return modes[text]


def _switch(env: Mapping[str, str], name: str) -> bool | None:
    return _flag(env, name) if env.get(name, "").strip() else None


def set_thread_counts(given: int | None, default: int) -> int:
    """Sets how many threads one operation of torch takes; before torch is imported.

    Args:
        given: by a flag; None leaves it to ``OMP_NUM_THREADS``.
        default: where neither says it.

    Returns:
        The number.

    Raises:
        ConfigError: ``OMP_NUM_THREADS`` is no number.
    """
    count = given or _integer(os.environ, "OMP_NUM_THREADS", default, 1)  # noqa: TID251
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)  # noqa: TID251
    return count


def set_metrics_directory(path: str) -> None:
    """Names the directory in which processes of one server share their metrics.

    prometheus-client reads it when it is imported, in this process and in those it starts.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = path  # noqa: TID251


def _integer(env: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        raise ConfigError(f"environment variable {name} is {text!r}, not an integer") from None
    if value < least:
        raise ConfigError(f"environment variable {name} is {value}, must be at least {least}")
    return value


def _flag(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "").strip().lower()
    if text in ("", "0", "false"):
        return False
    if text in ("1", "true"):
        return True
    raise ConfigError(f"environment variable {name} is {env[name]!r}, must be 0 or 1")


def _level(env: Mapping[str, str]) -> str:
    text = env.get("LOG_LEVEL", "").strip().upper() or "INFO"
    text = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(text, text)
    if text not in _LEVELS:
        raise ConfigError(
            f"environment variable LOG_LEVEL is {env['LOG_LEVEL']!r}, must be one of "
            f"{', '.join(_LEVELS)}{did_you_mean(text, _LEVELS)}"
        )
    return text


def _seed(env: Mapping[str, str]) -> int | None:
    seeds = {name: _integer(env, name, 0, 0) for name in _SEEDS if env.get(name, "").strip()}
    if len(set(seeds.values())) > 1:
        raise ConfigError(
            f"environment variables disagree on the seed: {seeds}", hint="one seed drives all"
        )
    return next(iter(seeds.values()), None)
