"""A process that works for another ends when that one is gone: a sweep's jobs, and the ranks of a run."""

import os
import signal
import threading
import time

PARENT = "SMALLBATCH_PARENT"  # in the environment: the process that ours works for
LOOK_SECONDS, GRACE_SECONDS = 1.0, 30.0


def lead() -> None:
    """What this process starts from now on works for it."""
    os.environ[PARENT] = str(os.getpid())


def follow() -> None:
    """Watches the parent, where this process was started to work for it."""
    parent = os.environ.get(PARENT)
    if parent is not None and int(parent) != os.getpid():
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)  # a run saves and stops, where it can
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
