"""What the environment says, read once: no other file touches the environment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from tzrec.constant import PREDICT_QUEUE_TIMEOUT
from tzrec.errors import ConfigError, did_you_mean

_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
_SEEDS = ("PYTHON_RANDOM_SEED", "TORCH_MANUAL_SEED", "NUMPY_MANUAL_SEED")

# Set before torch is imported, where the user has not chosen: idle OpenMP threads sleep instead
# of spinning (the loader's threads want those cores), and torch and glog log errors only.
_PROCESS_DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GLOG_minloglevel": "2",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_LOGS": "-all",
}

# Switches of the interface whose parts come with later versions, and the values that mean "off".
_LATER = {
    "INPUT_TILE": ("", "0", "1"),
    "INPUT_TILE_3_ONLINE": ("", "0"),
    "USE_RTP": ("", "0"),
    "QUANT_EMB": ("", "0", "FP32"),
    "QUANT_EC_EMB": ("", "0", "FP32"),
    "DIST_QUANT": ("",),
    "USE_DISTRIBUTED_EMBEDDING": ("", "0"),
    "ENABLE_TRT": ("", "0"),
    "ENABLE_AOT": ("", "0"),
    "UNIFIED_AOT": ("", "0"),
    "ONLINE_DENSE_EXPORT": ("", "0"),
}


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
        no_effect=tuple(
            f"{name}={env[name]}" for name, off in _LATER.items() if env.get(name, "") not in off
        ),
    )
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


def prepare_process() -> None:
    """Sets what libraries read when they are loaded, where the user has not set it.

    A command calls this before it imports torch; importing tzrec never does.
    """
    for name, value in _PROCESS_DEFAULTS.items():
        os.environ.setdefault(name, value)  # noqa: TID251


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
