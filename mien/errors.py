"""The one tree of errors. Each carries a stable code, an HTTP status and a sentence for a person."""

from __future__ import annotations


class MienError(Exception):
    """Base of every error that Mien shows to people.

    ``code`` is stable and documented (docs/api.md); ``status`` is the HTTP status it answers with; ``detail`` is the
    sentence: what was wrong, with which file or field, and what to do.
    """

    code = "internal_error"
    status = 500
    title = "Something went wrong inside Mien"

    def __init__(self, detail: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        if code is not None:
            self.code = code


class SettingsError(MienError):
    """A MIEN_* variable holds a value that cannot be used."""

    code = "bad_setting"
    title = "A setting cannot be used"


class InvalidRequestError(MienError):
    """The request cannot be understood; ``field`` names the part that is wrong."""

    code = "invalid_request"
    status = 400
    title = "The request is not valid"


class UnauthorizedError(MienError):
    """No key, or one that does not open this door."""

    code = "unauthorized"
    status = 401
    title = "An API key is needed"


class ForbiddenError(MienError):
    """Known, but not allowed."""

    code = "forbidden"
    status = 403
    title = "This is not allowed"


class NotFoundError(MienError):
    """No such job, image or page."""

    code = "not_found"
    status = 404
    title = "There is no such thing"


class ConflictError(MienError):
    """The thing exists but its state does not allow what was asked."""

    code = "conflict"
    status = 409
    title = "The state of the job does not allow this"


class UnprocessableError(MienError):
    """Well-formed, but it cannot be carried out as it stands (a missing folder, an unknown model)."""

    code = "unprocessable"
    status = 422
    title = "The request cannot be carried out"


class SourceError(UnprocessableError):
    """The folder named cannot be used: missing, outside the roots, not a folder."""

    code = "bad_source"
    title = "The source cannot be used"


class ModelError(UnprocessableError):
    """A model folder is defective, or no such model is installed."""

    code = "bad_model"
    title = "The model cannot be used"


class TooLargeError(MienError):
    """More than a limit allows; the sentence says which, how much it is and how much came."""

    code = "too_large"
    status = 413
    title = "This is too large"


class NoSpaceError(MienError):
    """The disk that holds the uploads is full, or would be."""

    code = "no_space"
    status = 507
    title = "There is no room for this"


class UnavailableError(MienError):
    """A part Mien needs (database, broker) does not answer just now; trying again later is right."""

    code = "unavailable"
    status = 503
    title = "Mien is not ready"


class DeadlineError(MienError):
    """The answer did not come in the time that was given; trying again may help."""

    code = "deadline"
    status = 504
    title = "There was no answer in time"


class LimitError(MienError):
    """More than this key may do just now; ``retry_after_s`` says when to try again, ``limit`` which one it was."""

    code = "rate_limited"
    status = 429
    title = "This is more than the key may do"

    def __init__(self, detail: str, *, code: str, limit: str, retry_after_s: int) -> None:
        super().__init__(detail, code=code)
        self.limit = limit
        self.retry_after_s = retry_after_s


class LeaseLostError(MienError):
    """The lease was taken back: nothing may be written under its fencing token any more."""

    code = "lease_lost"
    status = 409
    title = "The lease was lost"


class ImageError(Exception):
    """One image cannot be read. It becomes that image's ``failed`` outcome and never disturbs another image."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return self.detail
