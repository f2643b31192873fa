"""Figures: slices in a fixed HU window, film strips with the unshifted slice in the centre, differences centred at 0."""

import io
from pathlib import Path

import imageio.v3 as iio
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageSequence
from torch import nn

from lpdirs.analysis.marking import NOTICE, mark_frames
from lpdirs.data.store import to_hu
from lpdirs.discovery.directions import Directions
from lpdirs.generative.generators import generate

SIDE = 0.95  # inches of a slice in a strip
CT_WINDOW = (-1000, 600)  # HU of black and white in every figure, whatever it shows


def set_style() -> None:
    """One look for all figures."""
    sns.set_theme(context="notebook", style="white", palette="colorblind", font_scale=0.85)
    plt.rcParams |= {"figure.dpi": 80, "savefig.bbox": "tight", "axes.spines.top": False, "axes.spines.right": False}


def show_slice(ax: plt.Axes, hu: np.ndarray, title: str = "") -> None:
    """One slice (S, S) in HU, without axes."""
    ax.imshow(hu, cmap="gray", vmin=CT_WINDOW[0], vmax=CT_WINDOW[1], interpolation="nearest")
    ax.set_title(title, fontsize=9)
    ax.axis("off")


def mosaic(hu: np.ndarray, columns: int) -> np.ndarray:
    """Slices (N, S, S) as one picture, `columns` wide, filled up with air."""
    n, size = len(hu), hu.shape[-1]
    rows = -(-n // columns)
    filled = np.full((rows * columns, size, size), CT_WINDOW[0], np.float32)
    filled[:n] = hu
    return filled.reshape(rows, columns, size, size).swapaxes(1, 2).reshape(rows * size, columns * size)


def contact_sheet(hu: np.ndarray, columns: int = 12, title: str = "") -> Figure:
    """Slices (N, S, S) in HU side by side, with a bar of HU."""
    picture = mosaic(hu, columns)
    width = 11
    fig, ax = plt.subplots(figsize=(width, width * picture.shape[0] / picture.shape[1] + 0.5), layout="constrained")
    image = ax.imshow(picture, cmap="gray", vmin=CT_WINDOW[0], vmax=CT_WINDOW[1], interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")
    fig.colorbar(image, ax=ax, label="HU", shrink=0.9, pad=0.01, aspect=30)
    return fig


def walk(generator: nn.Module, directions: Directions, z, k: int, steps, window) -> np.ndarray:
    """HU (n steps, S, S) along direction k from one z (d,)."""
    moved = torch.cat([directions.shift(z[None], k, eps) for eps in steps])
    return to_hu(generate(generator, moved)[:, 0].numpy(), window)


def step_heads(steps) -> list[str]:
    """Steps as column heads: -2, 0, +2."""
    return [f"{step:+.3g}" if step else "0" for step in steps]


def film_strips(strips: np.ndarray, heads: list[str], labels: list[str], title: str = "") -> Figure:
    """A row for each strip (rows, columns, S, S) in HU, with `heads` above the columns and `labels` before the rows; a bar of HU."""
    rows, columns = strips.shape[:2]
    height, margin, bar = rows * SIDE + 0.6, 0.1 + 0.075 * max(map(len, labels)), 0.8  # inches
    width = margin + columns * SIDE + bar
    fig, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for i in range(rows):
        for j in range(columns):
            show_slice(axes[i, j], strips[i, j], heads[j] if i == 0 else "")
        axes[i, 0].text(-0.06, 0.5, labels[i], transform=axes[i, 0].transAxes, ha="right", va="center", fontsize=9)
    fig.subplots_adjust(wspace=0.03, hspace=0.03, left=margin / width, right=1 - bar / width, bottom=0.005, top=1 - 0.55 / height)
    tall = min(rows, 4) * SIDE
    beside = fig.add_axes([1 - 0.93 * bar / width, 1 - (0.55 + tall) / height, 0.1 / width, tall / height])
    fig.colorbar(axes[0, 0].images[0], cax=beside, ticks=[-1000, -500, 0, 500]).set_label("HU", fontsize=9)
    beside.tick_params(labelsize=8)
    fig.suptitle(title, fontsize=11, y=1 - 0.04 / height, va="top")
    return fig


def difference_maps(strips: np.ndarray, steps, labels: list[str], limit: float = 1000, title: str = "") -> Figure:
    """HU at the last step less HU at the first, for strips (K, n steps, S, S); red is denser at the last step."""
    columns = 8
    rows = -(-len(strips) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(11, rows * 1.45 + 0.6), squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, strip, label in zip(axes.flat, strips, labels, strict=False):
        image = ax.imshow(strip[-1] - strip[0], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set_title(label, fontsize=8)
    fig.colorbar(image, ax=axes, label=f"HU at {steps[-1]:+.3g} less HU at {steps[0]:+.3g}", shrink=0.8, aspect=30)
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
            ax.plot(np.arange(n, len(values) + 1), mean, color=f"C{i}", label=name)
        ax.set(xlabel="step", ylabel="loss" if len(names) > 1 else names[0])
        if len(names) > 1:
            ax.legend(frameon=False)
    return fig


def heat_map(table, value: str, title: str, limit: float = 1.0) -> Figure:
    """Directions by factors, `value` of a response table, diverging and centred at 0."""
    grid = table.pivot(index="factor", columns="direction", values=value).reindex(table["factor"].unique())
    fig, ax = plt.subplots(figsize=(0.32 * grid.shape[1] + 2.4, 0.34 * len(grid) + 1.3), layout="constrained")
    sns.heatmap(grid, ax=ax, cmap="RdBu_r", vmin=-limit, vmax=limit, cbar_kws={"label": value, "aspect": 10})
    ax.set(title=title, xlabel="direction", ylabel="")
    return fig


def to_grey(hu: np.ndarray) -> np.ndarray:
    """HU to 8-bit grey values in the figures' window."""
    low, high = CT_WINDOW
    return (np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def animation(walks: np.ndarray, path: Path, columns: int = 8, seconds: float = 2.0, zoom: int = 1) -> Path:
    """A GIF of walks (K, n frames, S, S) in HU side by side, running there and back, marked as synthetic; returns `path`."""
    frames = np.stack([to_grey(mosaic(frame, columns)) for frame in walks.swapaxes(0, 1)])
    frames = np.concatenate([frames, frames[-2:0:-1]]).repeat(zoom, 1).repeat(zoom, 2)
    iio.imwrite(path, mark_frames(frames), duration=1000 * seconds / walks.shape[1], loop=0, comment=NOTICE.encode())
    return path


def as_png(gif: Path) -> bytes:
    """An animation as a PNG that moves: notebooks and browsers show both, but a notebook that is made a page loses its GIFs."""
    with Image.open(gif) as film:
        frames = [frame.convert("L") for frame in ImageSequence.Iterator(film)]
        milliseconds = film.info["duration"]
    out = io.BytesIO()
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return out.getvalue()
