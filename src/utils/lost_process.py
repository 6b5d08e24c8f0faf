"""How it looks from here when another process of the run is gone."""

from src.utils.errors import UserError

# What gloo, NCCL and the store that processes meet in say.
WORDS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket Timeout",
         "remote process exited", "failed to recv, got 0 bytes", "Connection was likely closed")  # fmt: skip


def lost_process(error: BaseException) -> UserError | None:
    """The error in a person's words where a collective call failed for want of another process, else None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return None
        if isinstance(cause, RuntimeError) and any(words in str(cause) for words in WORDS):
            return UserError(
                "another process of this run is gone; expected all to run to the end; what it said, here or in its "
                "error.log, tells why"
            )
        cause = cause.__cause__
    return None
