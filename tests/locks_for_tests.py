"""Folders that another thread holds."""

import contextlib
import threading

from jaxmnist.host import lock


@contextlib.contextmanager
def held_elsewhere(folder):
    """Holds a folder in another thread; yields an event that ends it."""
    begun, end = threading.Event(), threading.Event()

    def body():
        with lock.hold(folder):
            begun.set()
            end.wait()

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    assert begun.wait(10)
    try:
        yield end
    finally:
        end.set()
        thread.join()


def is_held(folder) -> bool:
    """Returns whether another thread is kept out of a folder."""
    refused = []

    def body():
        try:
            with lock.hold(folder):
                pass
        except ValueError as error:
            refused.append(str(error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return bool(refused)
