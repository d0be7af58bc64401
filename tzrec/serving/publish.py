"""Adds versions to a root that servers watch, makes one current, and goes back."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
from pathlib import Path

from tzrec.errors import ConfigError, ServingError, did_you_mean
from tzrec.serving.roots import LocalRoot, RemoteRoot, root_of
from tzrec.serving.slot import Load
from tzrec.serving.versions import CURRENT, is_version_name

logger = logging.getLogger("tzrec")

PUBLISHED = "published.json"


@dataclasses.dataclass(frozen=True)
class Version:
    """One of the versions of a root.

    Attributes:
        name: of the version.
        published: UTC time, ISO 8601; empty for one that was copied there by hand.
        is_current: servers answer with it.
    """

    name: str
    published: str
    is_current: bool


def publish(source: str, root: str, *, name: str | None = None, keep: int = 5, load: Load) -> str:
    """Adds a version and makes it current.

    Nothing is changed before the copy has been loaded and has scored its golden batch.

    Args:
        source: local export or retriever.
        root: directory of versions, made where there is none; local, or with a scheme.
        name: of the version; default the UTC time.
        keep: how many versions stay, the newest ones; 0 keeps all. The current one and the one
            before it always stay.
        load: makes a servable of a directory, and checks it.

    Returns:
        The name of the version.

    Raises:
        ConfigError: the name is taken, or cannot be one.
        ServingError: the source is no whole export that scores here as where it was made.
    """
    name = name or dt.datetime.now(dt.timezone.utc).strftime("%Y%m%d-%H%M%S-%f")[:-3]
    if not is_version_name(name):
        raise ConfigError(
            f"a version cannot be called {name!r}",
            hint="letters, digits, '.', '_' and '-'; a letter or digit first; at most 128",
        )
    if not Path(source).is_dir():
        raise ServingError(f"{source} is not a directory", hint="make it with `tzrec export`")
    if Path(source).absolute() in [Path(root).absolute(), *Path(root).absolute().parents]:
        raise ConfigError(f"{root} lies in {source}", hint="name a root outside of the export")
    place = root_of(root)
    place.refuse_other_use()
    with place.locked():
        before = _ordered(place)
        if name in [entry[0] for entry in before]:
            raise ConfigError(
                f"{root} has a version {name!r} already",
                hint="versions never change: choose another name, or make it current with "
                f"--rollback --name {name}",
            )
        place.add(source, name, load)
        order = [*_behind(before, place.read(CURRENT).strip()), (name, _now())]
        place.write(PUBLISHED, json.dumps(order, indent=1) + "\n")
        place.write(CURRENT, name + "\n")
        logger.info("version %s is current in %s", name, root)
        for old in _superfluous([entry[0] for entry in order], keep):
            place.remove(old)
            logger.info("version %s is removed", old)
    return name


def roll_back(root: str, name: str | None = None) -> str:
    """Makes an older version current.

    Args:
        root: directory of versions.
        name: which one; default the one before the current one.

    Returns:
        Its name.

    Raises:
        ConfigError: there is no such version, or none before the current one.
        ServingError: the directory has no versions.
    """
    versions(root)  # a directory without any is no root: nothing is written into it
    place = root_of(root)
    with place.locked():
        known = [version.name for version in versions(root)]
        current = place.read(CURRENT).strip()
        if name is None:
            before = known[: known.index(current)] if current in known else known
            if not before:
                raise ConfigError(f"{root} has no version before {current!r}")
            name = before[-1]
        elif name not in known:
            raise ConfigError(
                f"{root} has no version {name!r}{did_you_mean(name, known)}",
                hint=f"versions: {', '.join(known)}",
            )
        place.write(CURRENT, name + "\n")
    logger.info("version %s is current in %s, it was %s", name, root, current or "none")
    return name


def versions(root: str) -> list[Version]:
    """Returns the versions of a root: each one before the one that took its place.

    Versions that were rolled back from when another one was published come first.

    Raises:
        ServingError: the directory has no versions.
    """
    place = root_of(root)
    order = _ordered(place)
    if not order:
        raise ServingError(f"{root} has no versions", hint=f"tzrec publish EXPORT {root} adds one")
    current = place.read(CURRENT).strip()
    return [Version(name, when, name == current) for name, when in order]


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")


def _ordered(place: LocalRoot | RemoteRoot) -> list[tuple[str, str]]:
    """Returns name and time of the versions that are there; first those that came by hand."""
    there = place.names()
    text = place.read(PUBLISHED)
    try:
        known = [(str(name), str(when)) for name, when in json.loads(text or "[]")]
    except (ValueError, TypeError) as error:
        raise ServingError(f"{place.root}/{PUBLISHED} cannot be read: {error}") from error
    listed = {name for name, _ in known}
    by_hand = [(name, "") for name in sorted(there) if name not in listed]
    return by_hand + [entry for entry in known if entry[0] in there]


def _behind(order: list[tuple[str, str]], current: str) -> list[tuple[str, str]]:
    """Returns the versions with the current one last.

    Those that it was rolled back from come first: nobody wants to go back to them.
    """
    names = [entry[0] for entry in order]
    end = names.index(current) + 1 if current in names else len(names)
    return order[end:] + order[:end]


def _superfluous(names: list[str], keep: int) -> list[str]:
    return names[: -max(keep, 2)] if keep else []
