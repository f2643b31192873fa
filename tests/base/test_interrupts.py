"""Signals that end a run, and those that a shell has told a process to ignore."""

import signal

import pytest

from lpdirs.base.interrupts import interrupt, on_interrupt


@pytest.fixture
def ignored():
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_nohup_keeps_from_a_run_does_not_end_it_and_ctrl_c_does(ignored):
    with on_interrupt(interrupt):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_each_is_counted_and_what_handled_it_before_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    seen = []
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with on_interrupt(seen.append):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        assert seen == [0, 1] and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
