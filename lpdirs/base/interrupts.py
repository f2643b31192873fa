"""Ctrl-C, `kill` and a closed terminal: what happens at the first of them, and at those after it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def on_interrupt(handle: Callable[[int], None]) -> Iterator[list[int]]:
    """Within, each of ENDING calls handle(how many came before) and is listed; nothing in a thread, which signals do not reach.

    SIGINT also where the shell has it ignored, as it does for what a script starts with `&`; SIGHUP and SIGTERM are left alone where they
    are ignored: a run under `nohup` outlives its terminal.
    """
    came: list[int] = []

    def note(number: int, _: object) -> None:
        came.append(number)
        handle(len(came) - 1)

    main = threading.current_thread() is threading.main_thread()
    heard = [number for number in ENDING if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard if main}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(_: int) -> None:
    """Each of ENDING is a KeyboardInterrupt."""
    raise KeyboardInterrupt
