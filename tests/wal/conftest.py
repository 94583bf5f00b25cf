"""Who syncs the log in a test."""

import pytest

from tests.wal.log_session import LogSession


@pytest.fixture(scope="module", params=["thread", "kernel"])
def whoever_syncs(request):
    """The test runs twice: all groups are the thread's, and short ones are the caller's and the kernel's."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(LogSession, "has_kernel", request.param == "kernel")
        yield request.param
