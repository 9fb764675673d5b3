"""What a failure to write is put down to."""

from __future__ import annotations

import errno
import os

import pytest

from megatron_distill.config.error import disk_hint


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_may_be_full(code: int) -> None:
    assert disk_hint(f"[Errno {code}] {os.strerror(code)}: '/run/latest'") == "; is the disk full?"
    assert disk_hint("unexpected pos 64 vs 0") == "; is the disk full?"


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EEXIST, errno.EROFS, errno.ENOTDIR, errno.EISDIR])
def test_what_a_full_disk_does_not_do(code: int) -> None:
    assert disk_hint(f"[Errno {code}] {os.strerror(code)}: '/run/latest'") == ""
    assert disk_hint("/run/latest cannot be written: it is a directory; give another file") == ""
