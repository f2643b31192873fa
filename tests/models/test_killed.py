"""Trainings that are killed, stopped and gone on with end bit for bit as those that were left alone."""

import multiprocessing
import random
import signal
import time

import pytest

from lpdirs.base.checkpoints import TWICE, load_checkpoint, train
from tests.models.killed import STEPS, make, run
from tests.models.test_training import same

KINDS = ("gan", "vae", "discovery")


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.models.killed"])  # so that a child is there within milliseconds
    return context


def done(folder) -> int:
    saved = load_checkpoint(folder)
    return len(saved["history"]) if saved else 0


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments_it_ends_the_same(kind, dataset, tmp_path, processes):
    whole = make(kind, dataset)
    history = train(whole, STEPS, tmp_path / "whole", {}, save_every=3)
    moment = random.Random(kind)
    for _ in range(8):
        counter, enough = processes.Value("i", 0), moment.randint(1, 6)
        child = processes.Process(target=run, args=(kind, dataset, tmp_path / "killed", 3, counter))
        child.start()
        until = time.monotonic() + 60
        while counter.value < enough and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(moment.uniform(0, 0.02))  # within the next step, or while it saves
        child.kill()
        child.join(30)
        assert child.exitcode == -signal.SIGKILL
    assert 0 < done(tmp_path / "killed") < STEPS
    again = make(kind, dataset)
    assert train(again, STEPS, tmp_path / "killed", {}, save_every=3) == history
    assert same(again.state_dict(), whole.state_dict())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_finish_and_saves_it(number, dataset, tmp_path):
    task = make("vae", dataset)
    step = task.step
    task.step = lambda index: (signal.raise_signal(number) if index == 4 else None, step(index))[1]
    ended = []
    before = signal.signal(number, lambda got, _: ended.append(got))
    try:
        assert len(train(task, STEPS, tmp_path, {}, save_every=1000)) == 5
        assert ended == [number], "what handled the signal before still gets it"
    finally:
        signal.signal(number, before)
    assert done(tmp_path) == 5


def test_a_second_signal_ends_at_once(dataset, tmp_path):
    """Whoever presses Ctrl-C twice does not wait for the step."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell has in the background
    task = make("vae", dataset)
    step, after = task.step, []

    def twice(index):
        if index == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # a terminal and what runs in it: one and the same
            time.sleep(TWICE + 0.1)
            signal.raise_signal(signal.SIGINT)
            after.append(index)
        return step(index)

    task.step = twice
    try:
        with pytest.raises(KeyboardInterrupt):
            train(task, STEPS, tmp_path, {}, save_every=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not after and done(tmp_path) == 4
