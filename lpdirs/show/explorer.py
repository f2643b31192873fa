"""Sliders that move an image along directions (ipywidgets); what they show is a Scene."""

import asyncio
from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from IPython.core.getipython import get_ipython
from matplotlib import colormaps
from torch import Tensor

from lpdirs.base.errors import UserError
from lpdirs.measures.display import Display
from lpdirs.measures.measures import Measures, factor_words
from lpdirs.show.marking import NOTICE
from lpdirs.show.scene import Models, Scene, title_of, to_png

SHOWN = 8  # sliders before a search
FURTHEST_SD = 2.0  # SDs of a factor at the ends of its slider
DELAY = 0.004  # seconds in which further changes replace this one
SIDE = {"width": "clamp(240px, 24vw, 400px)", "height": "clamp(240px, 24vw, 400px)", "flex": "0 0 auto"}
WRAP = {"flex_flow": "row wrap"}


class Explorer(widgets.VBox):
    """Choose a model, draw an image, and move it with sliders; several directions add up.

    `models` maps a label to (generator, directions). With `measures` the factors are read before and after; `display` says how
    values are shown (default: the generator's). `furthest` is the sliders' end. Exports go to `folder`.
    """

    def __init__(
        self,
        models: Models,
        measures: Measures | None = None,
        display: Display | None = None,
        furthest: float = 6.0,
        seed: int = 0,
        folder: Path | str = ".",
    ):
        if not isinstance(furthest, int | float | np.number) or not furthest > 0:
            raise UserError(f"furthest must be a number above 0, not {furthest!r}")
        self.scene, self.furthest, self.folder = Scene(models, measures, display, seed=seed), furthest, Path(folder)
        self.sliders: dict[int, widgets.FloatSlider] = {}
        self.rows: dict[int, widgets.HBox] = {}
        self.factors: dict[str, widgets.FloatSlider] = {}
        self._past: list[dict] = []
        self._pending: asyncio.TimerHandle | None = None
        self._held = False
        _take_the_place_of_the_last(self)
        self._build(models, seed)
        self._choose()

    def _build(self, models: dict, seed: int) -> None:
        button, noun = (lambda text, action, width="6.5em": _button(text, action, width)), self.scene.display.noun
        self.model = widgets.Dropdown(
            options=[(title_of(label, pair[1]), label) for label, pair in models.items()], description="model", layout={"width": "28em"}
        )
        self.seed = widgets.BoundedIntText(seed, 0, 2**31 - 1, description=noun, layout={"width": "11em"})
        self.preset = widgets.Dropdown(options=list(self.scene.display.greys), description="window", layout={"width": "14em"})
        self.search = widgets.Text(placeholder="search all directions", layout={"width": "17em"})
        self.new = button(f"New {noun}", lambda: setattr(self.seed, "value", (self.seed.value + 1) % 2**31))
        self.reset, self.undo = button("Reset", lambda: self.set_shifts({})), button("Undo", self._undo)
        display = self.scene.display
        captions = {"before": "before", "after": "after", "change": f"difference, ±{display.difference:g} {display.unit}".rstrip()}
        self.images = {name: widgets.Image(format="png", layout=SIDE) for name in captions}
        self.image = self.images["after"]
        views = [widgets.VBox([image, widgets.Label(captions[name])]) for name, image in self.images.items()]
        self.status, self.readout, self.message, self.nothing = widgets.Label(), widgets.HTML(), widgets.Label(), widgets.Label()
        self.panel = widgets.VBox(layout={"max_height": "330px", "overflow": "auto", "width": "34em", "display": "block"})
        self.learn = button("Steer one factor", self.steer, "11em")
        self.steering = widgets.VBox(layout={"width": "34em"})
        self.played = widgets.Dropdown(options=[], description="direction", layout={"width": "18em"})
        self.play = widgets.Play(min=0, max=60, interval=80, description="play")
        self.play.observe(self._played, "value")
        save = [button(kind, lambda kind=kind: self.export(kind), "4.5em") for kind in ("png", "gif", "json")]
        self.model.observe(self._choose, "value")
        self.seed.observe(self._moved, "value")
        self.preset.observe(self._moved, "value")
        self.search.observe(lambda _: self._fill(), "value")
        top = widgets.HBox([self.model, self.seed, self.preset, self.new, self.reset, self.undo], layout=WRAP)
        middle = widgets.HBox([widgets.VBox([self.search, self.panel, self.learn, self.steering]), self.readout], layout=WRAP)
        bottom = widgets.HBox([self.played, self.play, widgets.Label("save as"), *save, self.message], layout=WRAP)
        super().__init__([top, widgets.HBox(views, layout=WRAP), self.status, middle, bottom])

    def _choose(self, _: object = None) -> None:
        scene = self.scene
        scene.label, scene.shifts, self._past = self.model.value, {}, []
        self.order = scene.directions.in_order()
        self.titles = {k: scene.directions.title(k) for k in self.order}
        self.words = {k: scene.directions.words(k) for k in self.order}
        for row in self.rows.values():
            _close(row)
        for slider in self.factors.values():
            _close(slider)
        self.sliders, self.rows, self.factors, self.steering.children, scene.changes = {}, {}, {}, (), {}
        self.played.options = [(self.titles[k], k) for k in self.order]
        self.played.value = self.order[0]
        self._fill()
        self._draw()

    def _slider(self, k: int) -> widgets.FloatSlider:
        if k not in self.sliders:
            slider = widgets.FloatSlider(
                self.scene.shifts.get(k, 0.0), min=-self.furthest, max=self.furthest, step=0.1, description=self.titles[k],
                tooltip=self.words[k], continuous_update=True, readout_format="+.1f",
                style={"description_width": "10em"}, layout={"width": "26em"},
            )  # fmt: skip
            slider.observe(self._moved, "value")
            curve = self.scene.directions.info.curves.get(k)
            self.sliders[k], self.rows[k] = slider, widgets.HBox([slider, widgets.HTML(sparkline(curve, self.words[k]))])
        return self.sliders[k]

    def steer(self) -> None:
        """Sliders that change one factor, in its unit, while the others hold; it is learned first how factors go with z."""
        self.message.value = "learning how the factors go with z: a minute at most"
        try:
            known = self.scene.steering
        except UserError as error:
            self.message.value = str(error)
            return
        for name, spread in zip(known.factors, known.spread, strict=True):
            if name in known.can_move and name not in self.factors:
                words = f"{factor_words(name)}, {self.scene.measuring.units[name]}".rstrip(", ")
                most = float(f"{FURTHEST_SD * spread:.2g}")
                self.factors[name] = widgets.FloatSlider(
                    0.0, min=-most, max=most, step=most / 30, description=words, readout_format="+.3g",
                    continuous_update=False, style={"description_width": "14em"}, layout={"width": "30em"},
                )  # fmt: skip
                self.factors[name].observe(self._moved, "value")
        self.steering.children = tuple(self.factors.values())
        self.message.value = ""

    def _fill(self) -> None:
        """Sliders of what the search finds, by name, number or words; without one, the first SHOWN and those that are not at 0."""
        wanted = self.search.value.strip().lower()
        if wanted:
            shown = [k for k in self.order if wanted in f"{self.titles[k]} {self.words[k]}".lower()]
        else:
            shown = [k for n, k in enumerate(self.order) if n < SHOWN or self.scene.shifts.get(k)]
        for k in shown:
            self._slider(k)
        self.nothing.value = "" if shown else f"no direction says {wanted!r}"
        self.panel.children = [self.rows[k] for k in shown] or [self.nothing]

    def set_shifts(self, shifts: dict[int, float]) -> None:
        """Put the given directions to these shifts and all others to 0, with one redraw; UserError for one that is not there."""
        if not all(k in range(len(self.scene.directions)) for k in shifts):
            raise UserError(f"there are directions 0 to {len(self.scene.directions) - 1}, not {sorted(shifts)}")
        self._remember()
        self._held = True
        for k in {*self.sliders, *shifts}:
            self._slider(k).value = shifts.get(k, 0.0)
        for slider in self.factors.values():
            slider.value = 0.0
        self._held = False
        self._fill()
        self._moved()

    def image_values(self) -> np.ndarray:
        """The moved image, (S, S) in the display's unit."""
        self._take()
        return self.scene.values(self.scene.both())[1]

    def _take(self) -> None:
        self.scene.seed, self.scene.preset = self.seed.value, self.preset.value
        self.scene.shifts = {k: slider.value for k, slider in self.sliders.items() if slider.value}
        self.scene.changes = {name: slider.value for name, slider in self.factors.items() if abs(slider.value) > slider.step / 2}

    def _remember(self) -> None:
        state = self.scene.state()
        if not self._past or self._past[-1] != state:
            self._past = [*self._past[-99:], state]

    def _undo(self) -> None:
        if self._past:
            self.show(self._past.pop())

    def show(self, state: dict) -> None:
        """Go to a state, such as one read from a file that was saved here."""
        self.scene.restore(state)
        past, self._held = self._past, True
        self.model.value = state["model"]
        self._held, self._past = True, past
        self.seed.value, self.preset.value = self.scene.seed, self.scene.preset
        shifts = {int(k): shift for k, shift in state["shifts"].items()}
        for k in {*self.sliders, *shifts}:
            self._slider(k).value = shifts.get(k, 0.0)
        if changes := state.get("changes", {}):
            self.steer()
        for name, slider in self.factors.items():
            slider.value = changes.get(name, 0.0)
        self._held = False
        self._fill()
        self._draw()

    def _moved(self, change: object = None) -> None:
        """Draw soon: in a running kernel, changes that come within DELAY replace this one."""
        if self._held:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._draw()
            return
        if self._pending is None:
            self._pending = loop.call_later(DELAY, self._draw)

    def _draw(self) -> None:
        if self._held:
            return
        self._pending = None
        before_state = self.scene.state()
        self._take()
        if before_state["model"] == self.scene.label and before_state != self.scene.state():
            self._past = [*self._past[-99:], before_state]
        both = self.scene.both()
        before, after = self.scene.values(both)
        self.images["before"].value = to_png(self.scene.grey(before))
        self.images["after"].value = to_png(self.scene.grey(after))
        change = after - before if after.ndim == 2 else (after - before).mean(-1)
        colours = colormaps["RdBu_r"](change / (2 * self.scene.display.difference) + 0.5, bytes=True)
        self.images["change"].value = to_png(colours[..., :3])
        moved = [f"{self.titles[k]} {shift:+.1f}" for k, shift in sorted(self.scene.shifts.items())]
        self.status.value = "shift: " + (", ".join(moved) or "none") + self._ended() + " (synthetic, not for diagnosis)"
        self.readout.value = self._table(both)

    def _ended(self) -> str:
        """What was steered, and why its path ended; "" where nothing was."""
        scene = self.scene
        if not scene.changes:
            return ""
        asked = ", ".join(
            f"{factor_words(name)} {change:+.3g} {scene.measuring.units[name]}".rstrip() for name, change in scene.changes.items()
        )
        return f"; steered: {asked} ({scene.steered().why[0]})"

    def _table(self, both: Tensor) -> str:
        units = self.scene.measuring.units
        rows = "".join(
            f"<tr><td>{escape(factor_words(name))}</td><td style='text-align:right'>{_number(a)}</td>"
            f"<td style='text-align:right'>{_number(b)}</td><td>{escape(units[name])}</td></tr>"
            for name, (a, b) in self.scene.read(both).items()
        )
        head = "<tr><th style='text-align:left'>measured</th><th>before</th><th>after</th><th></th></tr>" if rows else ""
        further = f"{self.scene.typical():.1%} of random {self.scene.display.noun}s lie further from the average z than this one."
        return f"<table>{head}{rows}</table><p>{further}</p>"

    def _played(self, change: dict) -> None:
        if self.played.value is not None:
            self._slider(self.played.value).value = round(self.furthest * float(np.sin(2 * np.pi * change["new"] / 60)), 2)

    def export(self, kind: str) -> Path | None:
        """Save png, gif (of the direction under "direction"), or the state as json, in `folder`; says where."""
        if kind not in ("png", "gif", "json"):
            raise UserError(f"kind must be png, gif or json, not {kind!r}")
        self._take()
        name = f"{self.scene.label}-{self.scene.display.noun}{self.scene.seed}"
        path = self.folder / (f"{name}.{kind}" if kind in ("png", "json") else f"{name}-direction{self.played.value}.{kind}")
        try:
            if kind == "png":
                self.scene.save_png(path)
            elif kind == "json":
                self.scene.save_state(path)
            else:
                self.scene.save_gif(path, self.played.value, self.furthest)
        except (OSError, UserError) as error:
            self.message.value = f"not saved: {error}"
            return None
        self.message.value = f"saved {path.name}; {NOTICE}"
        return path

    def close(self) -> None:
        """Take it off the page, with all that it is made of."""
        if hasattr(self, "nothing"):  # else what was given was refused, and nothing is open
            if self._pending is not None:
                self._pending.cancel()
            for part in (*self.rows.values(), *self.factors.values(), self.nothing, *self.children, self.layout):
                _close(part)
        super().close()

    def __repr__(self) -> str:
        return "Explorer: the sliders are live in JupyterLab, with a running kernel"


_open: dict[str, Explorer] = {}  # by the notebook's cell that made it


def _take_the_place_of_the_last(explorer: Explorer) -> None:
    """A cell that is run again closes what it had opened: each explorer is some hundred widgets in kernel and page."""
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is not None:
        cell = str(kernel.get_parent().get("metadata", {}).get("cellId"))
        if cell in _open:
            _open[cell].close()
        _open[cell] = explorer


def _close(widget: widgets.Widget) -> None:
    """Close a widget, what is in it, and what says how it looks."""
    for part in (*getattr(widget, "children", ()), getattr(widget, "layout", None), getattr(widget, "style", None)):
        if part is not None:
            _close(part)
    widget.close()


def sparkline(values: list[float] | None, title: str) -> str:
    """Values along a direction as a small SVG curve; empty where there are none."""
    if not values or len(values) < 2 or not np.isfinite(values).all():
        return ""
    y = 9 - 8 * np.array(values) / max(2.0, float(np.abs(values).max()))
    points = " ".join(f"{4 + 52 * i / (len(y) - 1):.1f},{v:.1f}" for i, v in enumerate(y))
    return (
        f"<svg width='60' height='18' role='img' aria-label='{escape(title)}'><title>{escape(title)}</title>"
        f"<line x1='4' x2='56' y1='9' y2='9' stroke='#999' stroke-width='.5'/>"
        f"<polyline points='{points}' fill='none' stroke='#0173b2' stroke-width='1.5'/></svg>"
    )


def _number(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _button(text: str, action: Callable[[], object], width: str) -> widgets.Button:
    button = widgets.Button(description=text, layout={"width": width})
    button.on_click(lambda _: action())
    return button
