"""Why a request gets no answer, though nothing is wrong with it."""

from __future__ import annotations

from tzrec.errors import ServingError


class Fault(ServingError):  # noqa: N818 (its subclasses say what happened)
    """Base of the faults of a running server.

    Attributes:
        status: of HTTP.
        code: name of the fault in answers and metrics.
        is_counted: metrics have been told of it.
        retry_after: whole seconds after which to try again, None where that is not known.
    """

    status = 503
    code = "unavailable"
    is_counted = False  # whether metrics know of it

    def __init__(
        self, message: str = "", *, hint: str = "", retry_after: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Overloaded(Fault):
    """More rows wait than may: try again later."""

    status = 429
    code = "overloaded"


class DeadlineExceeded(Fault):
    """The answer would come, or came, too late."""

    status = 504
    code = "deadline_exceeded"


class TooManyConnections(Fault):
    """This worker has more connections than it may: try again, another one may take it."""

    status = 503
    code = "too_many_connections"


class NotReady(Fault):
    """No model is loaded yet, or the server is going."""

    status = 503
    code = "not_ready"
