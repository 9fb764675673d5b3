"""A rank of the same role that is gone or late, as the libraries tell it that carry messages between ranks."""

from __future__ import annotations

import re

import torch.distributed as dist

from .bridge import BridgeError

_PLACE = re.compile(r"^\[[^\]]*\] ")
"""Where in its source gloo found an error."""
_ADVICE = ". This is typically"


def lost_peer(error: BaseException | None) -> str:
    """What the libraries say of a peer that is gone, if that is why `error` was raised; "" if it is not.

    An error that names the peer itself, a BridgeError, is left as it is.
    """
    while error is not None and not isinstance(error, BridgeError):
        for found in (error, *_of_ranks(error)):
            if isinstance(found, dist.DistError) or (isinstance(found, RuntimeError) and "/gloo/" in str(found)):
                return short(found)
        error = error.__cause__
    return ""


def short(error: BaseException) -> str:
    """The first line of a library's error, without where in its source it was and without advice."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return _PLACE.sub("", line).split(_ADVICE)[0][:200]


def _of_ranks(error: BaseException) -> list[BaseException]:
    """The errors of ranks that torch's distributed checkpoint has gathered into one."""
    failures = getattr(error, "failures", None)
    return [failure[0] for failure in failures.values()] if isinstance(failures, dict) else []
