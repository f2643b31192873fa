"""The executed notebooks of a run as HTML, with an index."""

import re
from base64 import b64decode, b64encode
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from lpdirs.base.errors import UserError, optional
from lpdirs.base.files import alone, write_atomic
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import factor_words
from lpdirs.runs.models import directions_files
from lpdirs.runs.records import digest_of, files_of, read_log, read_notebook, sealed, write_log
from lpdirs.runs.stage import REPORT, SINGLE
from lpdirs.show.plots import light

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>lpdirs: {run}</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
  table {{ border-collapse: collapse; width: 100%; }} td, th {{ text-align: left; padding: .35rem .8rem .35rem 0; vertical-align: top;
  border-bottom: 1px solid #8884; }} td:last-child {{ white-space: nowrap; }}
  img {{ max-width: 100%; background: white; }} pre {{ overflow-x: auto; }}
  @media (max-width: 40rem) {{ table {{ display: block; overflow-x: auto; }} td, th {{ padding-right: .5rem; }} }}
</style></head><body>
<h1>Run “{run}”</h1>
<p>{summary}</p>
{explore}
<h2>What was found</h2>
{conclusion}
{best}
<h2>The notebooks</h2>
<table><thead><tr><th>notebook</th><th>answer of this run</th><th>time</th></tr></thead><tbody>{rows}</tbody></table>
{pictures}
<p>Generated slices are synthetic and not for diagnosis. Settings, versions and timings are in <a href="../run.json">run.json</a>.</p>
</body></html>
"""


TOP = """<style>
body:not(:has(#code:checked)) .jp-CodeCell .jp-Cell-inputWrapper { display: none; }
@media (max-width: 40rem) { .jp-InputPrompt, .jp-OutputPrompt { display: none; } .jp-Notebook { padding: .4rem; } }
.jp-RenderedHTMLCommon, .jp-OutputArea-output { overflow-x: auto; } .jp-Notebook img { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { html, .jp-Notebook img { filter: invert(1) hue-rotate(180deg); } }
</style>
<p style="font: 15px system-ui, sans-serif; margin: .6rem 1rem"><a href="index.html" style="color: #1f5fa8">back to the report</a>
&nbsp; <label><input type="checkbox" id="code"> show the code</label></p>"""


def write_report(folder: Path) -> Path:
    """Write outputs/<run>/report/ from the run's executed notebooks; returns index.html. Pages of the notebooks as they are stay."""
    report = folder / "report"
    report.mkdir(exist_ok=True)
    log, rows, pages = read_log(folder), [], dict[str, str]()
    before, whole = (log.get(REPORT, {}).get(part, {}) for part in ("results", "files"))
    for name in [name for name in SINGLE if name in log]:
        path, page = folder / "notebooks" / f"{name}.ipynb", report / f"{name}.html"
        content = read_notebook(path)
        if not content:
            raise UserError(f"{folder.name}/notebooks/{name}.ipynb cannot be read: run it again, and the report is written")
        pages[name] = digest_of(path)
        if before.get(name) != pages[name] or not page.exists() or digest_of(page) != whole.get(f"report/{page.name}"):
            write_atomic(page, _page_of(path))
        title = "".join(content["cells"][0]["source"]).splitlines()[0].lstrip("# ")
        said, took = escape(log[name].get("answer", "")), f"{log[name]['seconds']:.0f} s"
        rows.append(f'<tr><td><a href="{name}.html">{escape(title)}</a></td><td>{said}</td><td>{took}</td></tr>')
    sets = {path.parent.name: Directions.load(path) for path in directions_files(folder)}
    pictures = "".join(
        f"<h2>{escape(directions.id.title)}</h2>"
        f'<img src="../analysis/{escape(quote(f"best_{label}.png"))}" alt="The best directions: {escape(directions.id.title)}">'
        for label, directions in sets.items()
        if (folder / "analysis" / f"best_{label}.png").exists()
    )
    last = log.get("06_quantitative_analysis", {})
    provenance = last.get("provenance", {})
    summary = escape(
        f"profile {last.get('profile')}, seed {last.get('seed')}, git {str(provenance.get('git'))[:10]}"
        f"{' with uncommitted changes' if provenance.get('git_dirty') else ''}, torch {provenance.get('packages', {}).get('torch')}, "
        f"{provenance.get('machine')}"
    )
    explore = '<p><b><a href="../analysis/explore.html">Move slices along directions yourself</a></b>: one file, to share.</p>'
    explore = explore if (folder / "analysis" / "explore.html").exists() else ""
    index = PAGE.format(
        explore=explore,
        conclusion=conclusion(sets),
        best=_best(sets),
        run=escape(folder.name),
        summary=summary,
        rows="".join(rows),
        pictures=pictures,
    )
    write_atomic(report / "index.html", index)
    with alone(folder):
        log = read_log(folder)
        entry = {"files": files_of(folder, REPORT, ("report",), log), "results": pages}
        if sealed(entry) != log.get(REPORT):
            write_log(folder, log | {REPORT: entry})
    return report / "index.html"


def _page_of(path: Path) -> str:
    """An executed notebook as HTML that asks nobody for anything, its code folded; live widgets need a kernel, and the static picture
    beside them stays."""
    exporter = optional("nbconvert", "notebooks").HTMLExporter(template_name="lab")
    for script in ("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url", "widget_renderer_url"):
        setattr(exporter, script, "")
    import nbformat

    notebook = nbformat.read(path, 4)
    notebook.metadata.pop("widgets", None)
    for data in (output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})):
        data["image/png"] = b64encode(light(b64decode(data["image/png"]))).decode()
    page = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})[0]
    page = re.sub(r'(?s)<script[^>]*(?: src=|type="module").*?</script>', "", page)  # none of them is needed, and some are fetched
    return _with_alts(re.sub(r"(<body[^>]*>)", lambda body: body[1] + TOP, page, count=1))


def _with_alts(page: str) -> str:
    """Pictures of a page with the heading above them in place of nbconvert's words for none."""
    parts, heading = re.split(r"(?s)(<h[1-3][^>]*>.*?</h[1-3]>)", page), "the notebook"
    for i, part in enumerate(parts):
        if i % 2:
            heading = re.sub(r"<[^>]+>|¶", "", part).strip()
        parts[i] = part.replace('alt="No description has been provided for this image"', f'alt="Figure of: {heading}"')
    return "".join(parts)


def conclusion(sets: dict[str, Directions]) -> str:
    """A sentence a set, computed: how many factors have a direction beyond chance, which, and how pure the best are on average."""
    said = []
    for directions in sets.values():
        best = {name: found for name, found in directions.info.best.items() if found.selectivity is not None and found.chance is not None}
        if best:
            beyond = [factor_words(name) for name, found in best.items() if found.beyond_chance]
            pure, chance = (
                sum(values) / len(best)
                for values in zip(*((abs(b.selectivity or 0.0), b.chance or 0.0) for b in best.values()), strict=True)
            )
            which = f"{len(beyond) or 'none'} of the {len(best)} factors that could be measured"
            which += f" ({', '.join(beyond)})" if beyond else ""
            said.append(
                f"<li>{escape(directions.id.title)}: there is a direction purer than chance for {escape(which)}; on average {pure:.2f} of "
                f"what the best direction does is its factor, and {chance:.2f} by chance.</li>"
            )
    return f"<ul>{''.join(said)}</ul>" if said else "<p>Nothing was measured.</p>"


def _best(sets: dict[str, Directions]) -> str:
    """Each factor's best direction beside chance, as a table, as it is stored with each set; nothing where nothing was measured."""
    number = lambda value: "not measured" if value is None else f"{abs(value):.2f}"
    of = lambda directions: [
        {
            "factor": factor_words(factor),
            "direction": best.direction,
            "|r|": number(best.r),
            "selectivity (by chance)": f"{number(best.selectivity)} ({number(best.chance)})",
            "beyond chance": "yes" if best.beyond_chance else "no",
        }
        for factor, best in directions.info.best.items()
    ]
    tables = "".join(
        f"<h3>{escape(directions.id.title)}</h3>{pd.DataFrame(of(directions)).to_html(index=False, border=0)}"
        for directions in sets.values()
        if directions.info.best
    )
    if not tables:
        return ""
    said = "Chance is the median of the best of as many random directions. Beyond chance is said of selectivity, corrected, at 5 percent."
    return f"<h2>The best direction for each factor</h2><p>{said}</p>{tables}"
