"""nbval with tolerances: in cells tagged nbval-tolerance the words must be the same, and the numbers near.

The pages (text/html) of such cells are not compared: they hold the same as text/plain, or how long something took.
"""

import re

import pytest

NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")
RELATIVE, ABSOLUTE = 0.15, 0.1


def near(one: str, other: str) -> bool:
    """Whether two texts have the same words, and numbers that differ by at most 15 percent and 0.1."""
    words = [re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip() for text in (one, other)]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (one, other)]
    return words[0] == words[1] and all(abs(a - b) <= RELATIVE * max(abs(a), abs(b)) + ABSOLUTE for a, b in zip(*numbers, strict=True))


def texts(outputs: list) -> list[str]:
    """What a reader can read of outputs, pictures and pages apart."""
    streams = ["".join(o["text"]) for o in outputs if o.get("name") == "stdout"]
    return ["\n".join(streams), *("".join(o["data"].get("text/plain", "")) for o in outputs if "data" in o)]


def pytest_collectstart(collector) -> None:
    plugin = pytest.importorskip("nbval.plugin")
    exact = plugin.IPyNbCell.compare_outputs
    if getattr(exact, "tolerant", False):
        return

    def compare(self, test, ref, skip_compare=None):
        if "nbval-tolerance" not in self.cell.metadata.get("tags", []):
            return exact(self, test, ref, skip_compare)
        now, then = texts(test), texts(ref)
        wrong = [(a, b) for a, b in zip(now, then, strict=False) if not near(a, b)]
        if len(now) != len(then) or wrong:
            was = f"{len(then)} outputs, now {len(now)}" if len(now) != len(then) else f"{wrong[0][1]}\nnow\n{wrong[0][0]}"
            self.comparison_traceback = [f"further from the reference than 15 percent and 0.1; it was\n{was}"]
            return False
        return True

    compare.tolerant = True
    plugin.IPyNbCell.compare_outputs = compare
