"""The executed notebooks of a run as HTML, with an index."""

import json
from functools import partial
from html import escape
from pathlib import Path
from urllib.parse import quote

from lpdirs.base.errors import UserError, optional
from lpdirs.base.files import write_atomic
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
<table><thead><tr><th>notebook</th><th>time</th><th>result</th></tr></thead><tbody>{rows}</tbody></table>
{pictures}
<p>Generated slices are synthetic and not for diagnosis. Settings, versions and timings are in <a href="../run.json">run.json</a>.</p>
</body></html>
"""


def write_report(folder: Path) -> Path:
    """Write outputs/<run>/report/ from the run's executed notebooks; returns index.html."""
    exporter = optional("nbconvert", "notebooks").HTMLExporter(template_name="lab")
    import nbformat

    report = folder / "report"
    report.mkdir(exist_ok=True)
    log, rows = read_log(folder), []
    names = [name for name in SINGLE if name in log]
    for name in names:
        path = folder / "notebooks" / f"{name}.ipynb"
        if not read_notebook(path):
            raise UserError(f"{folder.name}/notebooks/{name}.ipynb cannot be read: run it again, and the report is written")
        notebook = nbformat.read(path, 4)
        notebook.metadata.pop("widgets", None)  # live widgets need a kernel; the static picture beside them stays
        html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": name}})
        write_atomic(report / f"{name}.html", partial(_write, html))
        entry = log.get(name, {})
        results = "; ".join(f"{k.replace('_', ' ')}: {_text(v)}" for k, v in entry.get("results", {}).items())
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        time = f"{entry['seconds']:.0f} s" if entry else ""
        rows.append(f'<tr><td><a href="{name}.html">{escape(title)}</a></td><td>{time}</td><td>{escape(results)}</td></tr>')
    pictures = "".join(
        f'<h2>{escape(path.stem.removeprefix("best_"))}</h2><img src="../analysis/{escape(quote(path.name))}" alt="{escape(path.stem)}">'
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
    page = PAGE.format(explore=explore, run=escape(folder.name), summary=summary, rows="".join(rows), pictures=pictures)
    write_atomic(report / "index.html", partial(_write, page))
    return report / "index.html"


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"') if not isinstance(value, str) else value
