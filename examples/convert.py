"""Files of earlier versions, and of the original code, as lpdirs reads them now.

python examples/convert.py outputs/mine                     # a run of lpdirs before 0.2, in place
python examples/convert.py generator.pt generator.safetensors   # the DCGAN or VAE of Schoen et al. (2022)
python examples/convert.py deformator.pt directions.safetensors # a deformator of theirs, or of Voynov and Babenko (2020)
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor, nn

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.discovery.closed_form import unit
from lpdirs.discovery.directions import Best, DirectionsInfo
from lpdirs.models.files import save_model
from lpdirs.models.networks import Decoder, GeneratorNetwork
from lpdirs.runs.records import digest_of, files_of, write_log
from lpdirs.runs.search import seal
from lpdirs.runs.stage import parts_of
from lpdirs.scores.response import best_directions

# names in the original's residual blocks, and ours
PARTS = {"conv1": "conv1", "BN1": "norm1", "conv2": "conv2", "BN2": "norm2", "conv3": "shortcut"}
BLOCKS = ("conv1", "conv12", "conv2", "conv3", "conv4", "conv5", "conv6")
LABEL = re.compile(r"(?P<basis>unit|orthonormal)\d+-(?P<reconstructor>lenet|resnet18-224|resnet18)(?:-from-(?P<start>.+))?")


def read_checkpoint(path: Path) -> dict:
    """What torch.save wrote, with plain values, tensors and numpy's scalars and nothing that could run; UserError otherwise."""
    scalar = np._core.multiarray.scalar
    allowed = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no checkpoint makes the reader raise anything
        raise UserError(f"{path.name} cannot be opened as a checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path.name} holds a {type(content).__name__}, not a state dict: save module.state_dict() instead")
    return content


def weights_in(content: dict, *keys: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint, under the first of `keys` that is there or itself, without DataParallel's prefix."""
    state = next((content[key] for key in keys if key in content), content)
    return {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}


def original_generator(path: Path) -> nn.Module:
    """The original's DCGAN, or the decoder of its VAE: of its training scripts' files and of bare state dicts."""
    state = weights_in(read_checkpoint(path), "modelG_state_dict", "state_dict")
    state = {re.sub(r"^(main|decoder|G)\.", lambda m: "main." if m[1] == "main" else "", name): v for name, v in state.items()}
    try:
        model = _dcgan(state) if "main.0.weight" in state else _decoder(state)
    except (KeyError, IndexError, RuntimeError) as error:
        raise UserError(
            f"{path.name} holds neither the original DCGAN's generator nor its VAE's decoder: "
            "build your module, load its weights, and wrap it with as_generator"
        ) from error
    return model.eval().requires_grad_(False)


def _dcgan(state: dict[str, Tensor]) -> GeneratorNetwork:
    state = {name.replace("main.", "layers."): value for name, value in state.items()}
    convolutions = [name for name, value in state.items() if value.ndim == 4]
    model = GeneratorNetwork(4 << (len(convolutions) - 1), state["layers.0.weight"].shape[0], state[convolutions[-1]].shape[0])
    model.load_state_dict(state)
    return model


def _decoder(state: dict[str, Tensor]) -> Decoder:
    blocks = [block for block in BLOCKS if f"{block}.conv3.weight" in state]
    renamed = {}
    for name, value in state.items():
        block, _, rest = name.partition(".")
        if block in blocks and rest.partition(".")[0] in PARTS:
            part, _, leaf = rest.partition(".")
            renamed[f"stages.{blocks.index(block)}.{PARTS[part]}.{leaf}"] = value
        elif block == "conv7":
            renamed[f"out.{rest}"] = value
    last, first = renamed["out.weight"], renamed["stages.0.conv1.weight"]
    model = Decoder(1 << len(blocks), first.shape[1], 2 * last.shape[1])
    model.load_state_dict(renamed)
    return model


def original_directions(path: Path) -> lp.Directions:
    """Directions of a deformator's state dict, or of a checkpoint that holds one under "deformator".

    Linear and projective deformators hold one direction a column of linear.weight; their length is dropped, and so is a bias, since
    with it a direction depends on the shift. Orthogonal ones hold the logarithm of the matrix. The nonlinear kind has no directions.
    """
    state = weights_in(read_checkpoint(path), "deformator")
    notes: dict[str, object] = {"file": path.name}
    if "log_mat_half" in state:
        half = state["log_mat_half"].double()
        matrix = torch.linalg.matrix_exp(half - half.T).T
    elif "linear.weight" in state:
        matrix = state["linear.weight"].double().T
        notes["had_bias"] = "linear.bias" in state
    elif "fc1.weight" in state:
        raise UserError(f"{path.name} is a nonlinear deformator: it has no directions, only paths that bend with the shift")
    else:
        raise UserError(f"{path.name} holds no deformator: expected linear.weight or log_mat_half, found {', '.join(list(state)[:3])}")
    return lp.Directions(unit(matrix).float().contiguous(), DirectionsInfo(method="original code", notes=notes))


def earlier_directions(path: Path, placed: pd.DataFrame | None = None) -> lp.Directions:
    """Directions of formats 1 to 3; `placed` says where the best for each factor stands among random sets, and so which names stay."""
    with safe_open(path, "pt") as file:
        tensors, old = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["metadata"])
    known = {name: old[name] for name in DirectionsInfo.model_fields if old.get(name) is not None}
    said = path.parent.name.partition("-")[2] if known.get("method") == "reconstructor" else known.get("method", "")
    if label := LABEL.fullmatch(said):
        known |= {"method": "reconstructor"} | {name: value or "" for name, value in label.groupdict().items()}
    elif number := re.fullmatch(r"([a-z-]+?)\d+", known.get("method", "")):
        known["method"] = number[1]
    if known.get("method") != "reconstructor":
        known.pop("start", None)
    measured = path.with_name("responses.csv")
    if placed is not None and measured.exists():
        known["best"] = {}
        number = lambda value: float(value) if np.isfinite(value) else None
        for factor, row in best_directions(pd.read_csv(measured)).dropna(subset=["direction"]).iterrows():
            if factor in placed.index:
                at = placed.loc[factor]
                found = {"slope": row["slope"], "r": at["r"], "selectivity": at["selectivity"], "chance": at["selectivity_chance"]}
                found |= {"p": at["selectivity_corrected"]}
                known["best"][factor] = Best(direction=int(row["direction"]), **{name: number(value) for name, value in found.items()})
        certain = {factor for factor, best in known["best"].items() if best.beyond_chance}
        lost = {k: name for k, name in known.get("names", {}).items() if name.partition(" ")[0] not in certain}
        known["names"] = {k: name for k, name in known.get("names", {}).items() if k not in lost}
        share = lambda said: re.sub(
            r"^(.+?), .*selectivity (\d\.\d\d).*$", lambda m: f"mixed: mostly {m[1]}, {float(m[2]):.0%} of what it does", said
        )
        known["words"] = {k: share(said) if k in lost else said for k, said in known.get("words", {}).items()}
    bends = {int(key.removeprefix("bend.")): value for key, value in tensors.items() if key.startswith("bend.")}
    return lp.Directions(tensors["directions"], DirectionsInfo(**known), bends)


def convert_run(folder: Path) -> None:
    """All direction sets of a run of an earlier version, its tables of chance, and the digests in its run.json."""
    tables = [*folder.glob("analysis/against_chance.csv"), *folder.glob("against_chance.csv")]
    placed = pd.read_csv(tables[0]) if tables else None
    for path in sorted((folder / "directions").glob("*/directions.safetensors")):
        label, table = path.parent.name, None
        if placed is not None:
            own = placed["set"] == label
            if "model" in placed:
                own |= placed["model"].eq(label.partition("-")[0]) & placed["set"].isin([label.partition("-")[2], _short(label)])
            table = placed[own].set_index("factor") if own.any() else None
        try:
            lp.Directions.load(path)
        except UserError:
            directions = earlier_directions(path, table)
            info = directions.info
            directions = directions if info.generator else directions.with_info(generator=label.partition("-")[0])
            directions.save(path)
        if table is not None and not path.with_name("chance.csv").exists():
            table.drop(columns=["set"]).to_csv(path.with_name("chance.csv"))
    for path in (folder / "directions" / "chance").glob("*.csv"):
        seal(path)
    if (folder / "run.json").exists():
        log = json.loads((folder / "run.json").read_text())
        for name, entry in log.items():
            here = files_of(folder, name, parts_of(name), {}) if name == "04_discover_directions" else {}
            names = [*entry.get("files", {}), *(path for path in here if "/chance/" not in path)]
            entry["files"] = {path: digest_of(folder / path) for path in names if (folder / path).exists()}
        write_log(folder, log)


def _short(label: str) -> str:
    """gan-unit32-resnet18 as its table calls it: unit-resnet."""
    return re.sub(r"\d+", "", label.partition("-")[2])


def main(source: Path, target: Path | None = None) -> None:
    """Convert a run in place, or a file of the original code into `target`."""
    if source.is_dir():
        convert_run(source)
    elif target is None:
        raise SystemExit(__doc__)
    else:
        try:
            original_directions(source).save(target)
        except UserError:
            model = original_generator(source)
            kind = "dcgan" if isinstance(model, GeneratorNetwork) else "decoder"
            width = model.layers[-2].weight.shape[0] if kind == "dcgan" else 2 * model.out.weight.shape[1]
            save_model(model, target, kind, {"model": "original"}, size=model.size, latent_dim=model.latent_dim, width=width)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
