"""Figures: images in fixed grey, film strips with the unshifted image in the centre, differences centred at 0."""

import io
import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageSequence
from pydantic import InstanceOf
from torch import Tensor

from lpdirs.base.checked import Count, Numbers, Positive, Seed, checked
from lpdirs.base.errors import UserError
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Display, ct, factor_words
from lpdirs.models.generators import Generator
from lpdirs.scores.steering import Steered

SIDE = 0.95  # inches of an image in a strip
TILE = 144  # px of an image in an animation
LOSSES = {"loss_d": "discriminator", "loss_g": "generator", "squared_error": "squared error", "kl": "KL, nats"}  # in words
CT = ct((-1000.0, 1000.0))  # grey values of CT do not depend on the data set's window


def set_style() -> None:
    """One look for all figures."""
    sns.set_theme(context="notebook", style="white", palette="colorblind", font_scale=0.85)
    plt.rcParams |= {
        "figure.dpi": 128,
        "font.family": "sans-serif",
        "savefig.bbox": "tight",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def show_slice(ax: plt.Axes, values: np.ndarray, title: str = "", display: Display = CT) -> None:
    """One image (S, S) in the display's unit, without axes."""
    low, high = display.grey
    ax.imshow(values if values.ndim == 2 else display.to_grey(values), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    ax.set_title(title, fontsize=9)
    ax.axis("off")


def mm_bar(ax: plt.Axes, pixel_mm: float | None, length: float = 100) -> None:
    """A white bar of `length` mm in the lower left of an image with pixels of `pixel_mm`; nothing where that is not known."""
    if pixel_mm:
        bottom = max(ax.get_ylim())
        ax.plot([3, 3 + length / pixel_mm], [0.94 * bottom] * 2, color="w", lw=2, solid_capstyle="butt")
        ax.text(3, 0.9 * bottom, f"{length:g} mm", color="w", fontsize=7, va="bottom")


def mosaic(values: np.ndarray, columns: int, display: Display = CT) -> np.ndarray:
    """Images (N, S, S) as one picture, `columns` wide, filled up with black."""
    n, shape = len(values), values.shape[1:]
    rows = -(-n // columns)
    filled = np.full((rows * columns, *shape), display.grey[0], np.float32)
    filled[:n] = values
    return filled.reshape(rows, columns, *shape).swapaxes(1, 2).reshape(rows * shape[0], columns * shape[1], *shape[2:])


def contact_sheet(values: np.ndarray, columns: int = 12, title: str = "", display: Display = CT) -> Figure:
    """Images (N, S, S) in the display's unit side by side, with a bar of it."""
    picture = mosaic(values, columns, display)
    low, high = display.grey
    width = 11
    fig, ax = plt.subplots(figsize=(width, width * picture.shape[0] / picture.shape[1] + 0.5), layout="constrained")
    seen = picture if picture.ndim == 2 else display.to_grey(picture)
    image = ax.imshow(seen, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")
    if picture.ndim == 2:  # colour needs no bar of grey
        fig.colorbar(image, ax=ax, label=display.unit, shrink=0.9, pad=0.01, aspect=30)
    return fig


def strip(
    generator: Generator, directions: Directions, z: Tensor, k: int, shifts: Sequence[float] | np.ndarray, display: Display | None = None
) -> np.ndarray:
    """Values (n shifts, S, S), of colour (n shifts, S, S, 3), along direction k from one z (d,)."""
    moved = torch.cat([directions.shift(z[None], k, shift) for shift in shifts])
    return (display or generator.display).pictures(generator.images(moved))


@checked
def strips(
    generator: InstanceOf[Generator],
    directions: InstanceOf[Directions] | InstanceOf[Steered],
    shifts: Numbers = (-4.5, -3, -1.5, 0, 1.5, 3, 4.5),
    k: int | Sequence[int] | None = None,
    display: InstanceOf[Display] | None = None,
    seed: Seed = 0,
    title: str = "",
    z: Any = None,
) -> Figure:
    """A row for each direction in `k` (default: the first 16, best ones first), all from one image: that of `z` (d,), else a typical one.

    Of steered paths (`lp.steer`) a row an image, from its start to its end. Shifts are in units of z. UserError for a k that is not there.
    """
    if isinstance(directions, Steered):
        rows, labels = _of_paths(generator, directions, display or generator.display, columns := 7)
        return film_strips(rows, ["start", *[""] * (columns - 2), "end"], labels, title, display or generator.display)
    directions.check(generator)
    shown = directions.in_order()[:16] if k is None else [k] if isinstance(k, int) else list(k)
    if not shown or not all(i in range(len(directions)) for i in shown) or not shifts:
        raise UserError(f"strips need shifts, and k between 0 and {len(directions) - 1}, not {shifts!r} and {k!r}")
    how, start = display or generator.display, generator.typical(seed) if z is None else torch.as_tensor(z).float().reshape(-1)
    rows = np.stack([strip(generator, directions, start, i, shifts, how) for i in shown])
    return film_strips(rows, shift_heads(shifts), [directions.title(i) for i in shown], title, how)


def _of_paths(generator: Generator, steered: Steered, display: Display, columns: int) -> tuple[np.ndarray, list[str]]:
    """Values (N, columns, S, S) on steered paths from start to end, in steps of as many rounds each, and what each reached, in words."""
    at = np.linspace(np.zeros(len(steered.rounds)), steered.rounds, columns).round().astype(int)  # (columns, N)
    z = torch.stack([steered.z[torch.from_numpy(rounds), torch.arange(len(rounds))] for rounds in at], 1)  # (N, columns, d)
    table, labels = steered.table(), []
    for _, row in table.iterrows():
        factors = [name.removesuffix(", asked") for name in table if name.endswith(", asked")]
        said = [f"{factor_words(f)} {row[f'{f}, reached']:+.3g} of {row[f'{f}, asked']:+.3g}" for f in factors]
        labels.append("\n".join([*said, f"others {row['others, SDs']:.2f} SD"]))
    return np.stack([display.pictures(generator.images(path)) for path in z]), labels


@checked
def gif(
    generator: InstanceOf[Generator],
    directions: InstanceOf[Directions] | InstanceOf[Steered],
    path: str | Path,
    k: int = 0,
    furthest: Positive = 4.5,
    frames: Count = 15,
    seed: Seed = 0,
    z: Any = None,
) -> Path:
    """Direction k there and back, from -furthest to furthest in units of z, as a GIF marked as synthetic; returns `path`.

    Of steered paths (`lp.steer`) each image from its start to its end and back.
    """
    if isinstance(directions, Steered):
        film, labels = _of_paths(generator, directions, generator.display, frames)
        way = [f"{share:.0%} of the way" for share in np.linspace(0, 1, frames)]
        return animation(film, Path(path), way, [label.partition("\n")[0] for label in labels], display=generator.display)
    directions.check(generator)
    start = generator.typical(seed) if z is None else torch.as_tensor(z).float().reshape(-1)
    shifts = np.linspace(-furthest, furthest, frames)
    film = strip(generator, directions, start, k, shifts)[None]
    return animation(film, Path(path), shifts, [directions.title(k)], display=generator.display)


def shift_heads(shifts: Sequence[float] | np.ndarray) -> list[str]:
    """Shifts as column heads: shift -2, 0, +2."""
    heads = [f"{shift:+.3g}" if shift else "0" for shift in shifts]
    return [f"shift {heads[0]}", *heads[1:]] if heads else []


def film_strips(pictures: np.ndarray, heads: list[str], labels: list[str], title: str = "", display: Display = CT) -> Figure:
    """Images (rows, columns, S, S) in the display's unit, with `heads` above the columns, `labels` before the rows and a bar of grey."""
    rows, columns = pictures.shape[:2]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    height, margin, bar = rows * SIDE + 0.6, 0.1 + 0.075 * longest, 0.8  # inches
    width = margin + columns * SIDE + bar
    fig, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for i in range(rows):
        for j in range(columns):
            show_slice(axes[i, j], pictures[i, j], heads[j] if i == 0 else "", display)
        axes[i, 0].text(-0.06, 0.5, labels[i], transform=axes[i, 0].transAxes, ha="right", va="center", fontsize=9)
    fig.subplots_adjust(wspace=0.03, hspace=0.03, left=margin / width, right=1 - bar / width, bottom=0.005, top=1 - 0.55 / height)
    tall = min(rows, 4) * SIDE
    beside = fig.add_axes((1 - 0.93 * bar / width, 1 - (0.55 + tall) / height, 0.1 / width, tall / height))
    ticks = [-1000, -500, 0, 500] if display.unit == "HU" else None
    if pictures.ndim == 4:
        fig.colorbar(axes[0, 0].images[0], cax=beside, ticks=ticks).set_label(display.unit, fontsize=9)
        beside.tick_params(labelsize=8)
    else:  # colour needs no bar of grey
        beside.remove()
    fig.suptitle(title, fontsize=11, y=1 - 0.04 / height, va="top")
    return fig


def difference_maps(
    pictures: np.ndarray,
    shifts: Sequence[float] | np.ndarray,
    labels: list[str],
    limit: float = 1000,
    title: str = "",
    display: Display = CT,
) -> Figure:
    """Values at the last shift minus those at the first, for images (K, n shifts, S, S); red is larger at the last shift."""
    columns = 8
    rows = -(-len(pictures) // columns)
    grey = lambda values: values if values.ndim == 2 else values.mean(-1)
    fig, axes = plt.subplots(rows, columns, figsize=(11, rows * 1.45 + 0.6), squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, row, label in zip(axes.flat, pictures, labels, strict=False):
        image = ax.imshow(grey(row[-1]) - grey(row[0]), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set_title(textwrap.fill(label, 20), fontsize=8)
    label = f"{display.unit} at {shifts[-1]:+.3g} minus {display.unit} at {shifts[0]:+.3g}"
    fig.colorbar(image, ax=axes, extend="both", label=label, shrink=0.8, aspect=30)
    fig.suptitle(title, fontsize=11)
    return fig


def loss_curves(history: list[dict[str, float]], panels: list[tuple[str, ...]], smooth: int = 25) -> Figure:
    """One panel for each group of losses over the steps: the running mean over `smooth` steps, every step behind it."""
    fig, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 2.8), squeeze=False, layout="constrained")
    for ax, names in zip(axes[0], panels, strict=True):
        for i, name in enumerate(names):
            values = np.array([h[name] for h in history])
            ax.plot(np.arange(1, len(values) + 1), values, alpha=0.2, color=f"C{i}", lw=0.8)
            n = min(smooth, len(values))
            mean = np.convolve(values, np.ones(n) / n, "valid")
            ax.plot(np.arange(n, len(values) + 1), mean, color=f"C{i}", label=LOSSES.get(name, name))
        ax.set(xlabel="step", ylabel="loss" if len(names) > 1 else LOSSES.get(names[0], names[0]))
        if len(names) > 1:
            ax.legend(frameon=False)
    return fig


def animation(
    frames: np.ndarray,
    path: Path,
    shifts: Sequence[float] | Sequence[str] | np.ndarray,
    labels: Sequence[str] = (),
    columns: int = 4,
    seconds: float = 2.0,
    display: Display = CT,
) -> Path:
    """A GIF of images (K, n shifts, S, S) side by side, running there and back, with a label above each and the shift, or a text, below.

    Every frame is marked as synthetic; returns `path`.
    """
    one_way = [_labelled(frame, shift, labels, columns, display) for frame, shift in zip(frames.swapaxes(0, 1), shifts, strict=True)]
    film = one_way + one_way[-2:0:-1]
    duration = round(1000 * seconds / len(one_way))
    film[0].save(path, "GIF", save_all=True, append_images=film[1:], duration=duration, loop=0, comment=NOTICE.encode(), optimize=False)
    return path


def _labelled(frame: np.ndarray, shift: float | str, labels: Sequence[str], columns: int, display: Display) -> Image.Image:
    """One frame of an animation: images (K, S, S), each TILE px wide with its label above, on white, and the shift below."""
    columns, line = min(columns, len(frame)), 18
    rows, font, small = -(-len(frame) // columns), ImageFont.load_default(13), ImageFont.load_default(11)
    sheet = Image.new("L", (columns * (TILE + 4), rows * (TILE + line) + line), 255)
    pen = ImageDraw.Draw(sheet)
    for i, values in enumerate(frame):
        left, top = i % columns * (TILE + 4), i // columns * (TILE + line)
        picture = Image.fromarray(display.to_grey(values)).convert("L").resize((TILE, TILE), Image.Resampling.BICUBIC)
        sheet.paste(picture, (left, top + line))
        pen.text((left + 2, top + 3), labels[i] if labels else "", fill=0, font=small)
    pen.text(
        (2, sheet.height - line + 1), f"{shift if isinstance(shift, str) else f'shift {shift:+.1f}'} · {MARK.lower()}", fill=0, font=font
    )
    return sheet


def as_png(gif: Path) -> bytes:
    """An animation as a PNG that moves: notebooks and browsers show both, but a notebook that is made a page loses its GIFs."""
    with Image.open(gif) as film:
        frames = [frame.convert("L") for frame in ImageSequence.Iterator(film)]
        milliseconds = film.info["duration"]
    out = io.BytesIO()
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return out.getvalue()


def light(png: bytes) -> bytes:
    """The same picture in at most 128 colours, which is a third of the bytes; one that moves, or is small already, as it is."""
    with Image.open(io.BytesIO(png)) as picture:
        if getattr(picture, "n_frames", 1) > 1 or picture.mode == "P":
            return png
        out = io.BytesIO()
        picture.convert("RGB").quantize(128).save(out, "PNG", optimize=True)
    return min(png, out.getvalue(), key=len)


NOTICE = "synthetic, drawn by a generative model; not for diagnosis"
MARK = "SYNTHETIC"


def mark(picture: Image.Image, size: int = 14) -> Image.Image:
    """The picture with MARK at its lower left, white with a black edge, of `size` px."""
    picture = picture.copy()
    pen = ImageDraw.Draw(picture)
    pen.text((8, picture.height - size - 8), MARK, fill=255, font=ImageFont.load_default(size), stroke_width=1, stroke_fill=0)
    return picture


def save_figure(fig: Figure, path: Path, dpi: int = 110, notice: str = NOTICE) -> Path:
    """A figure as PNG, with `notice` below it and in its metadata; returns `path`."""
    text = fig.text(0.995, 0.0, notice, ha="right", va="top", fontsize=7, color="0.4")
    fig.savefig(path, dpi=dpi, bbox_inches="tight", metadata={"Description": notice})
    text.remove()
    return path


def sparkline(values: list[float] | None, title: str) -> str:
    """Values along a direction as a small SVG curve; empty where there are none."""
    if not values or len(values) < 2 or not np.isfinite(values).all():
        return ""
    y = 9 - 8 * np.array(values) / max(2.0, float(np.abs(values).max()))
    points = " ".join(f"{4 + 52 * i / (len(y) - 1):.1f},{v:.1f}" for i, v in enumerate(y))
    return (
        f"<svg width='60' height='18' role='img' aria-label='{escape(title)}'><title>{escape(title)}</title>"
        f"<line x1='4' x2='56' y1='9' y2='9' stroke='#999' stroke-width='1'/>"
        f"<polyline points='{points}' fill='none' stroke='#2a8fd0' stroke-width='1.5'/></svg>"
    )
