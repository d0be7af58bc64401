"""`Slot`: the version that answers, and the thread that looks for a newer one."""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from typing import Any, Protocol

from tzrec import storage
from tzrec.errors import TzrecError
from tzrec.serving.faults import NotReady
from tzrec.serving.observer import Observer
from tzrec.serving.versions import Pointer, Source

logger = logging.getLogger("tzrec")

# A version that could not be fetched is tried again, later and later: for so many times as long
# as the try took, so that trying takes little of a core.
_LONGEST_PAUSE = 600.0
_PAUSE_TIMES = 10.0


class Load(Protocol):
    """Makes a servable that was checked against its golden batch."""

    def __call__(self, directory: str, *, version: str) -> Any:
        """Returns it; ``version`` is its name, empty for a directory without versions."""
        ...


class Slot:
    """Holds one loaded version; replaces it by another one when that is current and works.

    A version that cannot be loaded never answers: the old one stays. A new one of this machine
    is not tried again until the pointer is written again; one of another storage is, as that may
    have been away for a moment, and so is one whose files could not be read.

    Args:
        source: where versions come from.
        load: makes a servable of a directory.
        observer: told of versions.
        reload_seconds: how often to look.
    """

    def __init__(
        self,
        source: Source,
        load: Load,
        *,
        observer: Observer,
        reload_seconds: float,
    ) -> None:
        self.source = source
        self.observer = observer
        self.error: BaseException | None = None
        self._load = load
        self._seconds = reload_seconds
        self._servable: Any = None
        self._answering = ""
        self._complaint = ""
        self._seen: Pointer | None = None
        self._pause = 0.0
        self._again_at = math.inf
        self._stop = threading.Event()
        self._loaded = threading.Event()
        self._thread = threading.Thread(target=self._run, name="versions", daemon=True)

    def start(self) -> None:
        """Loads the current version in the background, then looks for others."""
        self._thread.start()

    def close(self) -> None:
        """Stops looking; a version that is being loaded is given up."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> None:
        """Waits for the first version.

        Raises:
            TzrecError: it cannot be loaded.
            NotReady: it takes longer.
        """
        if not self._loaded.wait(seconds):
            raise NotReady(f"the model was not loaded within {seconds:g} s")
        if self.error is not None:
            raise self.error

    @property
    def is_loaded(self) -> bool:
        """Whether loading the first version has ended, well or not."""
        return self._loaded.is_set()

    @property
    def servable(self) -> Any:
        """The version that answers.

        Raises:
            NotReady: none is loaded yet.
        """
        servable = self._servable
        if servable is None:
            raise NotReady("the model is being loaded", hint="wait until GET /ready answers 200")
        return servable

    @property
    def version(self) -> str:
        """Name of the version that answers, empty before the first."""
        return self._answering

    def refresh(self) -> bool:
        """Looks at the pointer, and loads what it names if that is new.

        Returns:
            Whether another version answers now.
        """
        pointer = self.source.current()
        if pointer != self._seen:
            self._pause, self._again_at = 0.0, math.inf
        elif time.monotonic() < self._again_at:
            return False
        self._seen = pointer
        if self._servable is not None and pointer.version == self._answering:
            return False  # rolled back to what still answers
        return self._replace(pointer)

    def _replace(self, pointer: Pointer) -> bool:
        started = time.monotonic()
        old = self._servable
        try:
            servable = self._load(pointer.directory, version=pointer.version)
            servable.warm_up()
        except Exception as error:
            self.observer.on_reload(
                pointer.version, is_loaded=False, seconds=time.monotonic() - started
            )
            if old is None:
                raise
            logger.error(
                "version %s cannot be loaded, %s goes on answering%s: %s",
                pointer.version,
                self._answering,
                self._plan_again(pointer, error, time.monotonic() - started),
                error,
                exc_info=not isinstance(error, TzrecError),
            )
            return False
        self._again_at = math.inf
        self._answering = pointer.version or servable.version
        self._servable = servable
        seconds = time.monotonic() - started
        self.observer.on_reload(pointer.version, is_loaded=True, seconds=seconds)
        logger.info("version %s answers from now on (loaded in %.1f s)", self._answering, seconds)
        if old is not None:
            del old, servable
            gc.collect()
        return True

    def _plan_again(self, pointer: Pointer, error: Exception, seconds: float) -> str:
        """Decides when a version that failed is tried again; returns it for the log."""
        if not isinstance(error, OSError) and not storage.is_remote(pointer.directory):
            self._again_at = math.inf
            return ""
        longer = max(self._seconds, 2 * self._pause, _PAUSE_TIMES * seconds)
        self._pause = min(longer, _LONGEST_PAUSE)
        self._again_at = time.monotonic() + self._pause
        return f", next try in {self._pause:.0f} s"

    def _run(self) -> None:
        try:
            self.refresh()
        except BaseException as error:  # handed to `wait`, whatever it is
            self.error = error
            return
        finally:
            self._loaded.set()
        while not self._stop.wait(self._seconds):
            self._look()

    def _look(self) -> None:
        try:
            self.refresh()
        except Exception as error:
            complaint = str(error)
            if complaint != self._complaint:  # once, not every two seconds
                is_known = isinstance(error, (OSError, TzrecError))
                logger.warning("cannot look for a new version: %s", error, exc_info=not is_known)
            self._complaint = complaint
        else:
            self._complaint = ""
