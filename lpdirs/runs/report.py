"""The executed notebooks of a run as HTML, with an index."""

import json
from functools import partial
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from lpdirs.base.errors import UserError, optional
from lpdirs.base.files import write_atomic
from lpdirs.base.words import factor_words, set_words
from lpdirs.runs.records import read_log, read_notebook
from lpdirs.runs.stage import SINGLE

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>lpdirs: {run}</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
  table {{ border-collapse: collapse; width: 100%; }} td, th {{ text-align: left; padding: .35rem .8rem .35rem 0; vertical-align: top;
  border-bottom: 1px solid #8884; }} td:nth-child(2) {{ white-space: nowrap; }}
  img {{ max-width: 100%; background: white; }} pre {{ overflow-x: auto; }}
</style></head><body>
<h1>Run “{run}”</h1>
<p>{summary}</p>
{explore}
{best}
<h2>The notebooks</h2>
<table><thead><tr><th>notebook</th><th>time</th><th>result</th></tr></thead><tbody>{rows}</tbody></table>
{pictures}
<p>Generated slices are synthetic and not for diagnosis. Settings, versions and timings are in <a href="../run.json">run.json</a>.</p>
</body></html>
"""


def write_report(folder: Path) -> Path:
    """Write outputs/<run>/report/ from the run's executed notebooks; returns index.html. Pages that are newer than their notebook stay."""
    report = folder / "report"
    report.mkdir(exist_ok=True)
    log, rows = read_log(folder), []
    names = [name for name in SINGLE if name in log]
    for name in names:
        path = folder / "notebooks" / f"{name}.ipynb"
        content = read_notebook(path)
        if not content:
            raise UserError(f"{folder.name}/notebooks/{name}.ipynb cannot be read: run it again, and the report is written")
        page = report / f"{name}.html"
        if not page.exists() or page.stat().st_mtime_ns <= path.stat().st_mtime_ns:
            write_atomic(page, partial(_write, _page_of(path)))
        entry = log.get(name, {})
        results = "<br>".join(escape(f"{_said(k)}: {_text(v)}") for k, v in entry.get("results", {}).items())
        title = "".join(content["cells"][0]["source"]).splitlines()[0].lstrip("# ")
        time = f"{entry['seconds']:.0f} s" if entry else ""
        rows.append(f'<tr><td><a href="{name}.html">{escape(title)}</a></td><td>{time}</td><td>{results}</td></tr>')
    pictures = "".join(
        f"<h2>{escape(set_words(path.stem.removeprefix('best_')))}</h2>"
        f'<img src="../analysis/{escape(quote(path.name))}" alt="{escape(path.stem)}">'
        for path in sorted((folder / "analysis").glob("best_*.png"))
    )
    last = log.get("06_quantitative_analysis", {})
    provenance = last.get("provenance", {})
    summary = escape(
        f"profile {last.get('profile')}, seed {last.get('seed')}, git {str(provenance.get('git'))[:10]}"
        f"{' with uncommitted changes' if provenance.get('git_dirty') else ''}, torch {provenance.get('packages', {}).get('torch')}, "
        f"{provenance.get('machine')}"
    )
    explore = '<p><a href="../analysis/explore.html">Move slices along directions</a>: one file, to share.</p>'
    explore = explore if (folder / "analysis" / "explore.html").exists() else ""
    best = _best(folder / "analysis" / "against_chance.csv")
    index = PAGE.format(explore=explore, best=best, run=escape(folder.name), summary=summary, rows="".join(rows), pictures=pictures)
    write_atomic(report / "index.html", partial(_write, index))
    return report / "index.html"


def _page_of(path: Path) -> str:
    """An executed notebook as HTML; live widgets need a kernel, and the static picture beside them stays."""
    exporter = optional("nbconvert", "notebooks").HTMLExporter(template_name="lab")
    import nbformat

    notebook = nbformat.read(path, 4)
    notebook.metadata.pop("widgets", None)
    return exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})[0]


def _best(path: Path) -> str:
    """Each factor's best direction beside chance, as a table; nothing where notebook 06 has not written it."""
    if not path.exists():
        return ""
    table = pd.read_csv(path)
    beside = lambda name: [
        "not measured" if np.isnan(a) else f"{a:.2f} ({b:.2f})" for a, b in zip(table[name].abs(), table[f"{name}_chance"], strict=True)
    ]
    shown = pd.DataFrame({
        "directions": table["set"].map(set_words),
        "factor": table["factor"].map(factor_words),
        "|r| (by chance)": beside("r"),
        "selectivity (by chance)": beside("selectivity"),
        "beyond chance": ["yes" if p <= 0.05 else "no" for p in table["selectivity_corrected"]],
    })  # fmt: skip
    said = "Chance is the median of the best of as many random directions. Beyond chance is said of selectivity, corrected, at 5 percent."
    return f"<h2>The best direction for each factor</h2><p>{said}</p>{shown.to_html(index=False, border=0)}"


def _said(key: str) -> str:
    """A result's name in words: "gan-unit32-lenet_rotation" is "GAN, the paper's method (LeNet), K = 32: rotation"."""
    of, _, factor = key.partition("_")
    return f"{set_words(of)}: {factor_words(factor)}" if "-" in of and factor else key.replace("_", " ")


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"') if not isinstance(value, str) else value
