"""A progress bar that is live while a notebook runs and reads as one plain line once it is stored."""

import json
import sys
import time
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from tqdm import tqdm

_watched: list[Path] = []  # the file that `note` writes to, if any


def note_to(path: Path) -> None:
    """From now on also write each progress to the file at `path`, for whoever watches from outside: a sweep's terminal."""
    _watched[:] = [path]
    note("started", 0, 0)


def note(label: str, done: int, total: int) -> None:
    """What is being done, into the file that `note_to` named."""
    for path in _watched:
        with suppress(OSError):  # nobody's work stops because it cannot be watched
            path.write_text(json.dumps({"doing": label, "done": done, "total": total}))


def in_kernel() -> bool:
    """Whether this is a notebook's process; a sweep's workers have loaded the same, and are none."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


class Progress:
    """Callable as progress(done, total, values); in a notebook a bar that is updated in place, elsewhere tqdm."""

    def __init__(self, label: str, every: float = 0.5):
        self.label, self.every = label, every
        self.start = self.last = time.monotonic()
        self.begun: int | None = None  # how much was done before, when a run is resumed
        self.handle: Any = None
        self.bar: Any = None
        if in_kernel():
            from IPython.display import HTML, display

            self._html = HTML
            self.handle = display(HTML(escape(label)), display_id=True)

    def __call__(self, done: int, total: int, values: dict[str, float] | None = None) -> None:
        now = time.monotonic()
        before = self.begun is None and done == total
        self.begun = done - 1 if self.begun is None else self.begun
        if done < total and now - self.last < self.every:
            return
        self.last, seconds = now, now - self.start
        note(self.label, done, total)
        losses = "  ".join(f"{k} {v:.3f}" for k, v in (values or {}).items())
        if self.handle is None and self.bar is None and done == total:
            return  # over before there was anything to wait for
        if self.handle is None:
            self.bar = self.bar or tqdm(total=total, desc=self.label, initial=done, leave=False)
            self.bar.update(done - self.bar.n)
            self.bar.set_postfix_str(losses)
            if done == total:
                self.bar.close()
        elif done < total:
            left = seconds / max(done - self.begun, 1) * (total - done)
            text = escape(f"{self.label}: {done}/{total}, {left:.0f} s left  {losses}")
            self.handle.update(self._html(f'<progress value="{done}" max="{total}" style="width:20em"></progress> {text}'))
        else:
            took = "done before" if before else f"done in {seconds:.0f} s"
            self.handle.update(self._html(escape(f"{self.label}: {total} of {total} {took}  {losses}")))
