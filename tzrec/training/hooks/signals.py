"""Ctrl-C and SIGTERM: finish the step, save, leave."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from tzrec.batch import Batch
from tzrec.errors import DistributedError
from tzrec.training.hooks.base import Hook, StepResult
from tzrec.training.peers import Vote, num_ranks
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# torchrun passes on what the terminal has sent to everybody already.
_ECHO_SECONDS = 2.0
# Steps of several ranks between two exchanges, each of which takes a moment of the step.
_VOTE_EVERY = 4


class Interrupted(KeyboardInterrupt):
    """A signal ended the run, and everything up to it is saved.

    Args:
        message: what is saved, and how to go on.
        signal_number: the signal.

    Attributes:
        exit_code: as a shell names the end by this signal (130, 143).
    """

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class SignalHook(Hook):
    """Ends training after the step in which SIGINT or SIGTERM came; a second one ends at once.

    Of several ranks all stop after the same step, a few later, whoever got the signal. Put it
    before hooks that save. The second signal finds the system's own handler, so that it also ends
    a process that is stuck; what Python would do at its end is left out then.

    Args:
        model_dir: the run, for the message.

    Attributes:
        received: the first signal that came, None = none.
    """

    def __init__(self, model_dir: str | os.PathLike[str]) -> None:
        self._dir = model_dir
        self._vote: Vote | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._time = 0.0
        self._trainer: Trainer | None = None
        self.received: signal.Signals | None = None

    def on_train_start(self, trainer: Trainer) -> None:
        """Installs the handlers, where Python lets us: in the main thread."""
        self._trainer = trainer
        if num_ranks() > 1:
            self._vote = Vote()
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            # A process started in the background or with nohup is to ignore Ctrl-C.
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)

    def after_step(self, trainer: Trainer, result: StepResult) -> None:
        """Asks the trainer to stop when a signal came to any of several ranks."""
        if self._vote is None or trainer.state.step % _VOTE_EVERY:
            return
        if self._vote.cast(self.received is not None):
            self._stop(trainer, self.received or signal.SIGTERM)

    def close(self) -> None:
        """Puts the handlers back that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        self._trainer = None
        if self._vote is not None:
            self._vote.close()

    def message(self, trainer: Trainer) -> str:
        """Returns where the run stopped and how to go on."""
        name = self.received.name if self.received else "a signal to another rank"
        step = trainer.state.step
        if step == 0:
            return f"interrupted by {name} before the first step"
        return (
            f"interrupted by {name} after {step:,} steps; "
            f"everything up to here is saved in {self._dir}/model.ckpt-{step - 1}\n"
            f"  to go on: tzrec train {self._dir}/pipeline.config --continue"
        )

    def watched(self, loader: Any, trainer: Trainer) -> Any:
        """Returns ``loader``, whose iteration ends with `Interrupted` once a signal came.

        For the evaluation that follows a save: nothing is lost, it is made when the run goes
        on. Several ranks finish it instead, since they have to leave together.
        """
        return loader if num_ranks() > 1 else _Watched(loader, self, trainer)

    @staticmethod
    def _stop(trainer: Trainer, number: signal.Signals) -> None:
        trainer.interrupted = number
        trainer.stop(f"{number.name} was received")

    def _handle(self, number: int, frame: Any) -> None:
        alone = self._vote is None
        if self.received is not None:
            # Several ranks: torchrun repeats to each what the terminal has sent to all.
            if time.monotonic() - self._time > _ECHO_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.received, self._time = signal.Signals(number), time.monotonic()
        logger.warning(
            "%s: finishing the step, saving and leaving; once more leaves at once",
            self.received.name,
        )
        if alone and self._trainer is not None:
            self._stop(self._trainer, self.received)
            for each in self._before:
                signal.signal(each, signal.SIG_DFL)


class _Watched:
    """A loader that a signal ends."""

    def __init__(self, loader: Any, signals: SignalHook, trainer: Trainer) -> None:
        self._loader = loader
        self._signals = signals
        self._trainer = trainer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __iter__(self) -> Iterator[Batch]:
        try:
            for batch in self._loader:
                self._leave_if_asked()
                yield batch
        except DistributedError:
            # A signal to the whole process group ends the loader's processes as well.
            self._leave_if_asked()
            raise

    def _leave_if_asked(self) -> None:
        if self._signals.received is not None:
            message = self._signals.message(self._trainer)
            raise Interrupted(message, self._signals.received)
