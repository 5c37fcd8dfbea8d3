"""What one client, or all clients together, may ask of the service."""

from __future__ import annotations

from dataclasses import dataclass

from arkasr.errors import UserError

MIN_BYTES_PER_SECOND = 8 * 2**10  # of an upload, on average


@dataclass(frozen=True)
class Limits:
    """Limits of the service. Each has an option of `arkasr serve` and a status code (docs/serving.md).

    Attributes:
        max_mib: Largest request in MiB.
        max_seconds: Longest audio of one request in seconds.
        max_requests: Requests that may be uploaded, wait or run at once.
        max_uploads: Requests whose bytes are read at once. Further ones wait for their turn.
        client_timeout: Seconds for which a client may send nothing, or not read its answer.
        request_timeout: Seconds for one request after its upload.

    Raises:
        UserError: `max_uploads` is larger than `max_requests`.
    """

    max_mib: float = 256.0
    max_seconds: float = 4 * 3600.0
    max_requests: int = 256
    max_uploads: int = 32
    client_timeout: float = 20.0
    request_timeout: float = 1800.0

    def __post_init__(self) -> None:
        if self.max_uploads > self.max_requests:
            raise UserError(
                f"--max_uploads {self.max_uploads}: is more than --max_requests {self.max_requests}, so it would limit "
                "nothing; lower it, or raise --max_requests"
            )

    @property
    def max_bytes(self) -> int:
        """Largest request in bytes."""
        return int(self.max_mib * 2**20)
