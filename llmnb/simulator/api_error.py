"""Refusals in the API's error envelope."""

from __future__ import annotations

from llmnb.simulator.json_value import Json, dump_bytes

ERROR_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Error types and their HTTP status (https://platform.claude.com/docs/en/api/errors)."""

ERROR_TYPE = {status: kind for kind, status in ERROR_STATUS.items()}


class ApiError(Exception):
    """A request the API refuses: `kind` is its error type; `headers` go out with it; `details` carry an error code."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        status: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        details: Json | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = ERROR_STATUS.get(kind, 500) if status is None else status
        self.headers = headers
        self.details = details

    def envelope(self, request_id: str) -> Json:
        """The error as the API's JSON object."""
        error: Json = {"type": self.kind, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        return {"type": "error", "error": error, "request_id": request_id}

    def body(self, request_id: str) -> bytes:
        """The envelope as bytes."""
        return dump_bytes(self.envelope(request_id))


def invalid(message: str, details: Json | None = None) -> ApiError:
    """400: the request is not one the API takes."""
    return ApiError("invalid_request_error", message, details=details)


def not_found(message: str, details: Json | None = None) -> ApiError:
    """404."""
    return ApiError("not_found_error", message, details=details)
