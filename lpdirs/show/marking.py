"""What is drawn by a model says so, in its pixels and in its file's metadata."""

from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

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
