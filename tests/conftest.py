"""What holds for all tests."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # as many tests run at once as there are cores; it is read when torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
