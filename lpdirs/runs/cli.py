"""python -m lpdirs."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lpdirs.base.errors import UserError
from lpdirs.base.interrupts import interrupt, on_interrupt


def main(words: list[str] | None = None) -> int:
    """Run the command in `words` (default: the shell's); returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lpdirs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the notebooks 01 to 06 and write the report")
    run.add_argument("--profile", default="demo", help="a file of notebooks/profiles (default: demo)")
    run.add_argument("--run", help="name of the run's folder in outputs/ (default: the profile's name; own with --generator)")
    run.add_argument("--data", help="a folder of DICOM (default: the profile's cohort)")
    run.add_argument(
        "--generator",
        nargs="+",
        help="your own, FILE.py:FUNCTION that returns lp.as_generator(...), in place of gan and vae; or beside: gan vae FILE.py:FUNCTION",
    )
    run.add_argument("--measures", help="thorax, inner, tissue, moments, or FILE.py:FUNCTION that returns lp.Measures(...)")
    run.add_argument("--scheduler", help="address of a running Dask cluster that reads the data (default: processes on this machine)")
    run.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    run.add_argument("--outputs", default="outputs", help="where runs are written (default: outputs, in the clone or else here)")
    run.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings in place of the profile's")
    run.add_argument("--again", action="store_true", help="run notebooks again that are done; trained models are kept")
    get = commands.add_parser("fetch", help="download LIDC-IDRI, or part of it, from the NCI Imaging Data Commons")
    get.add_argument("collection", choices=["lidc"])
    get.add_argument("--patients", type=int, help="the first N patients of data_manifests/lidc_idri.csv")
    get.add_argument("--series-file", type=Path, help="a text file with one SeriesInstanceUID a line")
    get.add_argument("--to", type=Path, required=True, help="where patients' folders are written")
    get.add_argument("--endpoint-url", help="a mirror of the bucket, in place of the public one")
    many = commands.add_parser("sweep", help="run all configurations of a grid side by side, and notebook 07, which compares them")
    many.add_argument("grid", type=Path, help="a YAML file such as notebooks/profiles/grid_paper.yaml")
    many.add_argument("--data", help="a folder of DICOM (default: the profile's synthetic cohort)")
    many.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of all configurations, before the file's")
    many.add_argument("--outputs", default="outputs", help="where the sweep's folder is written (default: outputs)")
    many.add_argument("--workers", type=int, help="processes on this machine (default: one a GPU, or one a core)")
    many.add_argument("--scheduler", help="address of a running Dask cluster that sees the same folders")
    commands.add_parser("settings", help="list all settings: name, default, and what each is")
    check = commands.add_parser("verify", help="say whether a run's files are still those that its run.json speaks of")
    check.add_argument("folder", type=Path, help="a run's folder, or a sweep's")
    args = parser.parse_args(words)
    command = {"run": _run, "fetch": _fetch, "sweep": _sweep, "settings": _settings, "verify": _verify}[args.command]
    try:
        with on_interrupt(interrupt):
            return command(args) or 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1
    except (ImportError, MemoryError) as error:
        line = " ".join(str(error).split()) or "no more is to be had"
        print(f"error: a library cannot be loaded, or memory is short ({line[:160]}): see to the installation, or limits", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what was done is kept, and the same command goes on", file=sys.stderr)
        return 130


# each command imports what it needs, so that --help and mistakes are quick


def _run(args: argparse.Namespace) -> None:
    from lpdirs.runs.notebooks import run_notebooks
    from lpdirs.runs.report import write_report
    from lpdirs.runs.stage import check_seed

    seed, run = check_seed(args.seed), args.run or ("own" if args.generator and not args.run else args.profile)
    if args.run == "":
        run = ""  # said to be no name, like any other
    folder = run_notebooks(args.profile, run, _given(args), seed, args.outputs, args.again)
    print(f"report: {write_report(folder)}")


def _fetch(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from lpdirs.data.lidc import choose, fetch, read_manifest

    rows = choose(read_manifest(), args.patients, args.series_file)
    print(
        f"{len(rows)} series of {rows['patient'].nunique()} patients, {rows['bytes'].sum() / 1e9:.2f} GB, licence {rows['licence'].iloc[0]}"
    )
    with tqdm(total=int(rows["bytes"].sum()), unit="B", unit_scale=True, desc="LIDC-IDRI") as bar:
        fetch(rows, args.to, args.endpoint_url, lambda done, total: bar.update(done - bar.n))
    print(f"all {rows['slices'].sum()} slices are in {args.to}: python -m lpdirs run --profile paper --data {args.to}")


def _sweep(args: argparse.Namespace) -> None:
    from lpdirs.runs.grid import Grid
    from lpdirs.runs.notebooks import run_notebook
    from lpdirs.runs.sweep import sweep

    grid = Grid.read(args.grid, {k: v for k, v in _given(args).items() if k != "scheduler"})
    folder = sweep(grid, args.outputs, args.workers, args.scheduler)
    run_notebook("07_compare_runs", grid.profile, folder, {}, grid.seeds[0])
    print(f"compared in: {folder / 'notebooks' / '07_compare_runs.ipynb'}")


def _settings(args: argparse.Namespace) -> None:
    from lpdirs.runs.settings import PLACES, help_of, in_yaml

    for name in PLACES:
        _, what, default = help_of(name)
        print(f"{name + ':':22}{in_yaml(default):24}# {what}")


def _verify(args: argparse.Namespace) -> int:
    from lpdirs.runs.verify import verify

    lines = verify(args.folder)
    print("\n".join(str(line) for line in lines))
    return int(any(line.broken for line in lines))


def _given(args: argparse.Namespace) -> dict[str, Any]:
    from lpdirs.runs.settings import parse_yaml

    given: dict[str, Any] = {}
    for word in args.set:
        name, equals, value = word.partition("=")
        if not equals or not value.strip():
            raise UserError(f"--set takes NAME=VALUE, not {word!r}; {name or 'NAME'}=null is the default")
        given[name] = parse_yaml(value, f"--set {word}: the value cannot be read")
    if args.data is not None:
        if not args.data or not Path(args.data).is_dir():
            raise UserError(f"data folder {args.data or 'given to --data'} does not exist: give the folder that holds your DICOM files")
        given["data_dir"] = str(Path(args.data).resolve())
    if args.scheduler is not None:
        given["scheduler"] = args.scheduler
    for name in ("generators", "measures"):
        value = getattr(args, name.replace("generators", "generator"), None)
        if value is not None:
            given[name] = value
    return given
