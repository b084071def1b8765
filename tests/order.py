"""Which tests run in one process, and which begin first, where a run has several (`pytest -n 3 --dist loadgroup`)."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadGroupScheduling

TOGETHER = {
    "tests/display/test_kernel.py": "kernels",  # of three versions, each started for a module
    "tests/display/test_latecomers.py": "kernels",
    "tests/display/test_stop.py": "stop",
    "tests/jobs/test_cluster.py": "dask",
    "tests/jobs/test_crew.py": "dask",
    "tests/jobs/test_written_elsewhere.py": "dask",
    "tests/test_demo.py": "demo",  # JupyterLab and a dashboard: one at a time on two cores
    "tests/test_wheel.py": "wheel",
}
"""Files whose tests share what takes seconds to set up, by a name for the group. Groups begin first, the largest ahead.

It is not the marker of pytest-xdist: 3.8 writes that into an attribute of tests that pytest 9.2 does not read.
"""
FIRST = ("tests/test_notebooks.py", "tests/cassette/test_notebooks.py", "tests/budgeting/test_hammer.py")
"""Files of tests of 5 to 20 s each: begun last, they would leave the other processes idle."""


class Order(LoadGroupScheduling):
    """Hands out tests one by one, but for those of a group."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(nodeid.partition("::")[0], nodeid)


def sort(items: list[pytest.Item]) -> None:
    """Brings the long ones to the front."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))
