"""Training that ends the same whether or not it was interrupted."""

import hashlib
import io
import json
import os
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lpdirs.base.errors import SettingsDiffer, UserError
from lpdirs.base.files import alone, check_settings, write_atomic
from lpdirs.base.interrupts import on_interrupt

# modules that do not change what a training computes: with other ones of these a checkpoint goes on
NOT_MATHEMATICS = tuple(f"lpdirs.base.{name}" for name in ("errors", "files", "checked", "code", "interrupts", "places", "progress"))


def stream(seed: int, *keys: int, device: Any = "cpu") -> torch.Generator:
    """A random stream that depends on (seed, keys) and the kind of device alone, so that step n draws the same after a resume."""
    digest = hashlib.blake2b(json.dumps([seed, *keys]).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


TWICE = 1.0  # seconds within which signals are one: a terminal and what runs in it may both pass it on


class Task:
    """What `train` drives, one optimiser step at a time: `parts` are its attributes, modules and optimisers, that hold all its state."""

    parts: tuple[str, ...] = ()

    def step(self, index: int) -> dict[str, float]:
        """One step; returns its losses."""
        raise NotImplementedError

    def state_dict(self) -> dict:
        """All state, as tensors and plain values."""
        return {name: getattr(self, name).state_dict() for name in self.parts}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict`."""
        for name in self.parts:
            getattr(self, name).load_state_dict(state[name])


def train(
    task: Task,
    steps: int,
    folder: Path,
    settings: dict,
    save_every: int = 200,
    report: Callable[[int, int, dict[str, float]], None] = lambda done, total, losses: None,
) -> list[dict[str, float]]:
    """Run `task` to `steps`, saving to folder/checkpoint.pt; goes on where an earlier call stopped.

    Saves every `save_every` steps, at the end, and when it is interrupted: SIGINT (Ctrl-C, Interrupt Kernel) and SIGTERM let the
    step finish, save, and then end as they would have. Returns the history, a dict of losses a step. A checkpoint of other code
    (settings["code"]) is put aside under that code's name, and training begins again, or goes on with what this code once saved.
    A second signal ends at once, without saving. A second process that trains in the same folder waits for the first. Raises
    SettingsDiffer if the checkpoint was made with other `settings`, or has more steps than are asked for, and UserError when a loss
    is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        return _train(task, steps, folder, settings, save_every, report)


def _train(
    task: Task, steps: int, folder: Path, settings: dict, save_every: int, report: Callable[[int, int, dict[str, float]], None]
) -> list[dict[str, float]]:
    saved = _of_this_code(folder, settings.get("code"))
    history: list[dict[str, float]] = []
    if saved:
        check_settings(saved["settings"], settings, folder)
        if len(saved["history"]) > steps:
            raise SettingsDiffer(
                f"{folder.parent.name}/{folder.name} was trained for {len(saved['history'])} steps, and {steps} are asked for: "
                f"ask for at least as many, choose another run name, or delete that folder to begin again"
            )
        task.load_state_dict(saved["task"])
        history = saved["history"]
        if len(history) == steps:
            report(steps, steps, history[-1])
    began = 0.0

    def again(_: int) -> None:  # whoever asks again does not want to wait for the step
        nonlocal began
        began = began or time.monotonic()
        if time.monotonic() - began > TWICE:
            raise KeyboardInterrupt

    with on_interrupt(again) as caught:
        for index in range(len(history), steps):
            losses = task.step(index)
            if not all(np.isfinite(v) for v in losses.values()):
                raise UserError(
                    f"{folder.name}: a loss is not finite at step {index + 1} ({losses}); "
                    f"the last good state is {folder.name}/checkpoint.pt: try a smaller learning rate"
                )
            history.append(losses)
            report(index + 1, steps, losses)
            if (index + 1) % save_every == 0 or index + 1 == steps or caught:
                _save_checkpoint(folder, {"settings": settings, "history": history, "task": task.state_dict()})
            if caught:
                break
    if caught:
        signal.raise_signal(caught[0])  # with whatever handled it before
    return history


def _save_checkpoint(folder: Path, content: dict) -> None:
    path, new = folder / "checkpoint.pt", folder / "checkpoint.new.pt"
    file = io.BytesIO()
    torch.save(content, file)
    write_atomic(new, file.getbuffer())  # before the old one moves: a full disk costs neither
    if path.exists():
        os.replace(path, folder / "checkpoint.previous.pt")
    os.replace(new, path)


def load_checkpoint(folder: Path) -> dict | None:
    """The newest checkpoint that is whole, or None where there is none; UserError where all there are are damaged."""
    return _newest(folder)[1]


def _newest(folder: Path) -> tuple[Path | None, dict | None]:
    """Damaged ones are put aside, so that they never take the place of a good one, and said."""
    damaged: list[str] = []
    for path in (folder / "checkpoint.pt", folder / "checkpoint.previous.pt"):
        if path.exists():
            content = _read(path)
            if content is not None:
                for bad in damaged:
                    print(
                        f"{folder.name}: {bad} is damaged and kept as checkpoint.damaged.pt; going on from step {len(content['history'])}"
                    )
                return path, content
            os.replace(path, folder / "checkpoint.damaged.pt")
            damaged.append(path.name)
    if damaged:
        raise UserError(
            f"{folder.parent.name}/{folder.name}: {' and '.join(damaged)} cannot be read, and there is no other checkpoint; what is left "
            f"is checkpoint.damaged.pt: run the same again to train from the beginning, or put a copy of yours back"
        )
    return None, None


def _read(path: Path) -> dict | None:
    """A checkpoint, None where a bit of it is not what was written; errors of the machine (rights, memory) are raised."""
    try:
        with zipfile.ZipFile(path) as file:  # each tensor lies there with its checksum, which torch does not look at
            if file.testzip() is not None:
                return None
        content = torch.load(path, weights_only=True)
        return content if {"settings", "history", "task"} <= content.keys() else None
    except (PermissionError, MemoryError):
        raise
    except Exception:  # damaged bytes make the reader raise anything
        return None


def _of_this_code(folder: Path, code: str | None) -> dict | None:
    """The newest checkpoint that this code has saved; one of other code is put aside, under a name of its own."""
    path, saved = _newest(folder)
    if path is None or saved is None or saved["settings"].get("code") == code:
        return saved
    kept = folder / f"checkpoint.{saved['settings'].get('code') or 'old'}.pt"
    os.replace(path, kept)
    for leftover in (folder / "checkpoint.pt", folder / "checkpoint.previous.pt"):
        leftover.unlink(missing_ok=True)
    own = folder / f"checkpoint.{code}.pt"
    how = "what this code once saved goes on" if own.exists() else "begun again"
    print(f"{folder.name}: the code that trains has changed since the checkpoint, which is kept as {kept.name}: {how}")
    if own.exists():
        os.replace(own, folder / "checkpoint.pt")
    return load_checkpoint(folder)
