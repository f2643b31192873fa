"""Sliders that move an image along directions (ipywidgets); what they show is a Scene."""

import asyncio
import base64
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from IPython.core.getipython import get_ipython
from IPython.display import HTML, display
from matplotlib import colormaps
from torch import Tensor
from traitlets import Unicode

from lpdirs.base.errors import UserError
from lpdirs.measures.measures import Display, Measures, factor_words
from lpdirs.scores.inversion import Inversion
from lpdirs.show.plots import NOTICE, sparkline
from lpdirs.show.scene import Models, Scene, read_state, title_of, to_png

SHOWN = 8  # sliders before a search
FURTHEST_SD = 2.0  # SDs of a factor at the ends of its slider
DELAY = 0.004  # seconds in which further changes replace this one
REST = 0.4  # seconds after which a steered image that was drawn quickly is steered to its end
LARGE, SMALL, HIGH = "clamp(232px, 24vw, 480px)", "clamp(114px, 11.7vw, 236px)", "clamp(390px, 40vw, 770px)"  # pictures, and sliders beside
WRAP = {"flex_flow": "row wrap"}
TYPES = {"png": "image/png", "gif": "image/gif", "csv": "text/csv", "json": "application/json"}  # of exports
WHAT = (
    "<small style='display:block;line-height:1.2'>A shift is counted in standard deviations of z. Selectivity: the factor's share of all "
    "measured change; chance: what the best of as many random directions reaches. The curve: how the factor goes along it.</small>"
)
GONE = (  # a notebook that is opened again, or whose kernel was restarted, holds no sliders
    "<style>.jp-OutputArea-child:has(.lpdirs-gone):has(+ .jp-OutputArea-child .widget-slider:not(.jupyter-widgets-disconnected)),"
    ".jp-OutputArea-child:has(.lpdirs-gone) + .jp-OutputArea-child:not(:has(.widget-slider)) {display: none}</style>"
    "<p class='lpdirs-gone'>The sliders live as long as the kernel: run this cell again (Shift+Enter) to have them back.</p>"
)


class Picture(widgets.Image):
    """An image with a name for those who do not see it, its tooltip: ipywidgets shows that where a description is there, and empty."""

    description = Unicode("").tag(sync=True)


class Explorer(widgets.VBox):
    """Choose a model, draw an image, and move it with sliders; several directions add up.

    `models` maps a label to (generator, directions). With `measures` the factors are read before and after; `display` says how
    values are shown (default: the generator's). `furthest` is the sliders' end. Exports go to `folder`. `starts`, what `lp.invert` gave for
    a label, are slices that exist: they are moved as random ones are.
    """

    def __init__(
        self,
        models: Models,
        measures: Measures | None = None,
        display: Display | None = None,
        furthest: float = 6.0,
        seed: int = 0,
        folder: Path | str = ".",
        starts: Mapping[str, Inversion] | None = None,
    ):
        if not isinstance(furthest, int | float | np.number) or not furthest > 0:
            raise UserError(f"furthest must be a number above 0, not {furthest!r}")
        self.scene = Scene(models, measures, display, seed=seed, starts=dict(starts or {}))
        self.furthest, self.folder = furthest, Path(folder)
        self.sliders: dict[int, widgets.FloatSlider] = {}
        self.rows: dict[int, widgets.HBox] = {}
        self.factors: dict[str, widgets.FloatSlider] = {}
        self.images: dict[str, Picture] = {}
        self._past: list[dict] = []
        self._pending: asyncio.TimerHandle | None = None
        self._refining: asyncio.TimerHandle | None = None
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
        self.new = button(f"New {noun}", lambda: setattr(self.seed, "value", max(self.seed.value + 1, 0) % 2**31))
        self.real = button(f"Held-out {noun}", lambda: setattr(self.seed, "value", _next(self.seed.value, self.seed.min)), "9em")
        self.keep = widgets.Checkbox(False, description="with what the model cannot draw", indent=False, layout={"width": "17em"})
        self.keep.observe(self._moved, "value")
        self.reset, self.undo = button("Reset", lambda: self.set_shifts({})), button("Undo", self._undo)
        display = self.scene.display
        captions = {"before": "before", "after": "after", "change": f"difference, ±{display.difference:g} {display.unit}".rstrip()}
        side = {"before": SMALL, "after": LARGE, "change": SMALL}
        for name, px in side.items():
            of = {"width": px, "height": px, "flex": "0 0 auto", "margin": "1px"}
            self.images[name] = Picture(format="png", layout=of).add_class(f"lpdirs-{name}")
        views = {name: widgets.VBox([image, widgets.Label(captions[name])]) for name, image in self.images.items()}
        self.status, self.readout, self.message, self.nothing = widgets.HTML(), widgets.HTML(), widgets.HTML(), widgets.Label()
        self.panel = widgets.VBox(layout={"display": "block"})
        self.learn = button("Steer one factor", self.steer, "11em")
        self.steering = widgets.VBox()
        self.opened = widgets.FileUpload(accept=".json,.png", description="Restore", layout={"width": "8em"})
        self.opened.observe(self._restore, "value")
        self.played = widgets.Dropdown(options=[], description="direction", layout={"width": "18em"})
        self.play = widgets.Play(min=0, max=60, interval=80, description="play")
        self.play.observe(self._played, "value")
        self.play.observe(lambda change: self._remember() if change["new"] else None, "playing")
        save = [button(kind, lambda kind=kind: self.export(kind), "4em") for kind in TYPES]
        self.model.observe(self._choose, "value")
        self.seed.observe(self._moved, "value")
        self.preset.observe(self._moved, "value")
        self.search.observe(lambda _: self._fill(), "value")
        own = [self.real, self.keep] if self.scene.starts else []
        top = widgets.HBox([self.model, self.seed, self.preset, self.new, *own, self.reset, self.undo], layout=WRAP)
        small = widgets.HBox([views["before"], views["change"]])
        pictures = widgets.VBox([views["after"], small], layout={"flex": "0 0 auto"})
        right = {"height": HIGH, "overflow": "auto", "display": "block", "flex": "1 1 20em", "width": "auto"}  # both are seen at once
        sliders = widgets.VBox([self.search, self.learn, widgets.HTML(WHAT), self.steering, self.panel], layout=right)
        bottom = widgets.HBox([self.played, self.play, widgets.Label("save as"), *save, self.opened], layout=WRAP)
        super().__init__([top, widgets.HBox([pictures, sliders]), self.status, bottom, self.message, self.readout])

    def _choose(self, _: object = None) -> None:
        scene = self.scene
        scene.label, scene.shifts, self._past = self.model.value, {}, []
        self.order = scene.directions.in_order()
        self.titles = {k: scene.directions.title(k) for k in self.order}
        self.words = {k: scene.directions.words(k) for k in self.order}
        for row in (*self.rows.values(), *self.steering.children):
            _close(row)
        self.sliders, self.rows, self.factors, self.steering.children, scene.changes = {}, {}, {}, (), {}
        self.seed.min = -scene.held_out(scene.label)
        self.played.options = [(self.titles[k], k) for k in self.order]
        self.played.value = self.order[0]
        self._fill()
        self._draw()

    def _slider(self, k: int) -> widgets.FloatSlider:
        if k not in self.sliders:
            name = self.titles[k].removeprefix("best for ")
            slider = widgets.FloatSlider(
                self.scene.shifts.get(k, 0.0), min=-self.furthest, max=self.furthest, step=0.1, description=name,
                tooltip=self.words[k], continuous_update=True, readout_format="+.1f",
                style={"description_width": "11em"}, layout={"width": "auto"},
            )  # fmt: skip
            slider.observe(self._moved, "value")
            curve = sparkline(self.scene.directions.info.curves.get(k), self.words[k])
            facts = f"<div style='line-height:1.2;margin-bottom:6px'>{curve} <small>{escape(self._facts(k))}</small></div>"
            self.sliders[k], self.rows[k] = slider, widgets.VBox([slider, widgets.HTML(facts)])
        return self.sliders[k]

    def _facts(self, k: int) -> str:
        """What a unit of shift does, how purely, and what chance reaches; its words where it is the best for nothing."""
        units, said = self.scene.measuring.units, []
        for name, found in self.scene.directions.info.best.items():
            if found.direction == k and found.slope is not None and found.selectivity is not None:
                does = f"{found.slope:+.2g} {units.get(name, '')}".strip()
                chance = "" if found.chance is None else f", chance {found.chance:.2f}: {'' if found.beyond_chance else 'not '}beyond it"
                said.append(f"best for {factor_words(name)}: {does} a unit of shift, selectivity {abs(found.selectivity):.2f}{chance}")
        return "; ".join(said) or self.words[k]

    def steer(self) -> None:
        """Sliders that change one factor, in its unit, while the others hold; it is learned first how factors go with z."""
        self.message.value = "learning how the factors go with z: a minute or two"
        try:
            known = self.scene.steering
        except UserError as error:
            self.message.value = escape(str(error))
            return
        for name, spread in zip(known.factors, known.spread, strict=True):
            if name in known.can_move and name not in self.factors:
                most, unit = float(f"{FURTHEST_SD * spread:.2g}"), self.scene.measuring.units[name]
                self.factors[name] = slider = widgets.FloatSlider(
                    0.0, min=-most, max=most, step=most / 30, description=factor_words(name), readout_format="+.3g",
                    continuous_update=False, style={"description_width": "11em"}, layout={"width": "auto"},
                )  # fmt: skip
                slider.observe(self._moved, "value")
                ends = f"<small>from -{most:g} to +{most:g} {escape(unit)}</small>"
                self.steering.children = (*self.steering.children, widgets.VBox([slider, widgets.HTML(ends)]))
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
        self._take()
        self._fill()
        self._moved()

    def image_values(self) -> np.ndarray:
        """The moved image, (S, S) in the display's unit."""
        self._take()
        return self.scene.values(self.scene.both())[1]

    def _take(self) -> None:
        self.scene.seed, self.scene.preset, self.scene.quick = self.seed.value, self.preset.value, False
        self.scene.keep = self.keep.value
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
        self.seed.value, self.preset.value, self.keep.value = self.scene.seed, self.scene.preset, self.scene.keep
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
        if self._refining is not None:
            self._refining.cancel()
        if self._pending is None:
            self._pending = loop.call_later(DELAY, self._draw, loop)

    def _draw(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Show the view; in a running kernel a steered one at once as far as a few rounds go, and to its end when the sliders rest."""
        if self._held:
            return
        self._pending = None
        before_state = self.scene.state()
        self._take()
        if loop is not None and self.scene.changes:
            self.scene.quick, self._refining = True, loop.call_later(REST, self._draw)
        if before_state["model"] == self.scene.label and before_state != self.scene.state() and not self.play.playing:
            self._past = [*self._past[-99:], before_state]
        both = self.scene.both()
        before, after = self.scene.values(both)
        self.images["before"].value = to_png(self.scene.grey(before))
        self.images["after"].value = to_png(self.scene.grey(after))
        change = after - before if after.ndim == 2 else (after - before).mean(-1)
        colours = colormaps["RdBu_r"](change / (2 * self.scene.display.difference) + 0.5, bytes=True)
        self.images["change"].value = to_png(colours[..., :3])
        moved = [f"{self.titles[k]} {shift:+.1f}" for k, shift in sorted(self.scene.shifts.items())]
        status = "shift: " + (", ".join(moved) or "none") + self._ended()
        said = {"before": "as it was drawn", "after": status, "change": f"what has changed; {status}"}
        for name, image in self.images.items():  # the name of a picture for those who do not see it
            image.tooltip = f"{self.scene.called} of {self.model.label}: {said[name]}"
        self.status.value = escape(f"{self.scene.called}, {status} (synthetic, not for diagnosis)")
        self.readout.value = self._table(both)

    def _ended(self) -> str:
        """What was steered, and why its path ended; "" where nothing was."""
        scene = self.scene
        if not scene.changes:
            return ""
        asked = ", ".join(
            f"{factor_words(name)} {change:+.3g} {scene.measuring.units[name]}".rstrip() for name, change in scene.changes.items()
        )
        return f"; steered: {asked} ({'on the way' if scene.quick else scene.steered().why[0]})"

    def _table(self, both: Tensor) -> str:
        units = self.scene.measuring.units
        rows = "".join(
            f"<tr><td>{escape(factor_words(name))}</td><td style='text-align:right;padding:0 1em'>{_number(a)}</td>"
            f"<td style='text-align:right;padding:0 1em'>{_number(b)}</td><td>{escape(units[name])}</td></tr>"
            for name, (a, b) in self.scene.read(both).items()
        )
        head = "<tr><th style='text-align:left'>measured</th><th>before</th><th>after</th><th></th></tr>" if rows else ""
        further = f"{self.scene.typical():.1%} of random {self.scene.display.noun}s lie further from the average z than this one."
        return f"<table style='line-height:1.25'>{head}{rows}</table><p>{further}</p>"

    def _played(self, change: dict) -> None:
        k = self.played.value
        if k is not None:
            slider = self._slider(k)
            if self.rows[k] not in self.panel.children:
                self.panel.children = [self.rows[k], *self.panel.children]
            slider.value = round(self.furthest * float(np.sin(2 * np.pi * change["new"] / 60)), 2)

    def export(self, kind: str) -> Path | None:
        """Save png, gif (of the direction under "direction"), what is measured as csv, or the state as json, in `folder`; says where, with
        a link by which a browser keeps it."""
        if kind not in TYPES:
            raise UserError(f"kind must be {', '.join(TYPES)}, not {kind!r}")
        self._take()
        name = f"{self.scene.label}-{self.scene.called.replace(' ', '')}"
        path = self.folder / (f"{name}-direction{self.played.value}.gif" if kind == "gif" else f"{name}.{kind}")
        try:
            if kind == "gif":
                self.scene.save_gif(path, self.played.value, self.furthest)
            else:
                {"png": self.scene.save_png, "csv": self.scene.save_csv, "json": self.scene.save_state}[kind](path)
            content = base64.b64encode(path.read_bytes()).decode()
        except (OSError, UserError) as error:
            self.message.value = escape(f"not saved: {error}")
            return None
        link = f"<a download='{escape(path.name)}' href='data:{TYPES[kind]};base64,{content}'>download</a>"
        self.message.value = f"saved {escape(path.name)} in {escape(self.folder.name or 'this folder')} ({link}); {NOTICE}"
        return path

    def _restore(self, _: object) -> None:
        """Go to the state in a file that was saved here, json or png, and that a browser hands over."""
        for file in self.opened.value:
            try:
                self.show(read_state(bytes(file["content"]), file["name"]))
                self.message.value = f"restored {escape(file['name'])}"
            except (UserError, ValueError, KeyError, TypeError, OSError) as error:
                self.message.value = escape(f"{file['name']} was not restored: {error}")

    def close(self) -> None:
        """Take it off the page, with all that it is made of."""
        if hasattr(self, "nothing"):  # else what was given was refused, and nothing is open
            for timer in (self._pending, self._refining):
                if timer is not None:
                    timer.cancel()
            for part in (*self.rows.values(), self.nothing, self.real, self.keep, *self.children, self.layout):
                _close(part)
        super().close()

    def _ipython_display_(self) -> None:
        """The widgets, and before them a line that a page shows where they are gone."""
        display(HTML(GONE))
        display(self._repr_mimebundle_(), raw=True)

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


def _next(seed: int, least: int) -> int:
    """The held-out slice after this one, -1, -2, ..., `least`; the first after the last, and after a random one."""
    return seed - 1 if least < seed < 0 else -1


def _number(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _button(text: str, action: Callable[[], object], width: str) -> widgets.Button:
    button = widgets.Button(description=text, layout={"width": width})
    button.on_click(lambda _: action())
    return button
