"""A page in which the generators themselves draw: weights, runtime and what was measured in one HTML file that asks no server for anything.

The generator is exported to ONNX and run by ONNX Runtime Web. Weights are kept as whole numbers of as few BITS as
will do, a scale for each of a tensor's rows, in two planes of bytes; how near they draw to the generator's own images is measured first.
"""

import base64
import contextlib
import gzip
import io
import json
import logging
import warnings
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lpdirs.base.errors import UserError, optional
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Display, factor_words
from lpdirs.models.generators import Generator, copied
from lpdirs.scores.steering import Steering, steered_ends
from lpdirs.show.plots import NOTICE
from lpdirs.show.scene import Models, title_of

BITS = range(10, 15)  # of a weight in a large tensor; in others, which hold few of them, two more
SMALL, LARGE = 1024, 0.1  # numbers that a tensor has at least to be kept so, and the share of all from which it is large
NEAR, TRIED = 0.001, 48  # of the range of an image, by which no pixel of so many images from the page may differ
Z, STARTS = 200, 8  # random z of a page, and the first of them, from which paths were steered
AMOUNTS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)  # SDs by which a factor is changed on a path


class NotLive(UserError):
    """A generator that cannot draw in a browser, and why."""


def live_page(
    models: Models, display: Display, steering: Mapping[str, Steering], starts: Mapping[str, Tensor], furthest: float, note: str
) -> str:
    """The page as text. `steering` maps labels to what `fit_steering` gave of their generators: these get sliders by factor; `starts` to z
    (N, d) of slices that exist, which come before random ones.

    NotLive where ONNX cannot hold a generator, or what it draws from there is something else.
    """
    generators: dict[int, dict] = {}
    known = {id(models[label][0]): one for label, one in steering.items() if label in models}
    first = {id(models[label][0]): one for label, one in starts.items() if label in models}
    sets = []
    for label, (generator, directions) in models.items():
        name = directions.info.generator or label
        if directions.bends:
            raise NotLive(f"{label} has directions that bend, which a live page has not")
        if id(generator) not in generators:
            generators[id(generator)] = {"key": f"g{len(generators)}", "name": name} | _of_generator(
                generator, known.get(id(generator)), first.get(id(generator))
            )
        sets.append(_of_set(label, generators[id(generator)]["key"], generator, directions))
    blobs = {f"{one['key']}-{part}": one.pop(part) for one in generators.values() for part in ("graph", "weights")}
    blobs |= {"runtime": _shipped("ort.gz"), "wasm": _shipped("ort-wasm.gz")}
    data = {
        "generators": list(generators.values()), "sets": sets, "furthest": furthest, "note": note, "notice": NOTICE, "unit": display.unit,
        "noun": display.noun, "window": display.window, "greys": display.greys, "limit": display.difference, "amounts": AMOUNTS,
    }  # fmt: skip
    template = resources.files("lpdirs.show").joinpath("live.html").read_text(encoding="utf-8")
    text = "\n".join(f'<script type="text/plain" id="{key}">{base64.b64encode(blob).decode()}</script>' for key, blob in blobs.items())
    return template.replace("__DATA__", json.dumps(data).replace("<", "\\u003c")).replace("__BLOBS__", text)


def _shipped(name: str) -> bytes:
    return resources.files("lpdirs.show").joinpath("onnxruntime-web", name).read_bytes()


def _of_generator(generator: Generator, steering: Steering | None, starts: Tensor | None) -> dict[str, Any]:
    """What the page needs of a generator: its graph and weights, random z, and where it was steered the paths."""
    z, real = generator.draw(Z, 1), 0 if starts is None else len(starts)
    z = z if starts is None else torch.cat([torch.as_tensor(starts).float(), z])
    about = {"d": generator.latent_dim, "z": _floats(z), "real": real, "normal": generator.prior.name == "normal"} | export(generator)
    return about | ({"paths": _paths(generator, steering, z[: real + STARTS])} if steering is not None else {})


def _of_set(label: str, key: str, generator: Generator, directions: Directions) -> dict[str, Any]:
    best = {found.direction: (factor, found) for factor, found in reversed(directions.info.best.items())}
    rows: list[dict[str, Any]] = []
    for k in directions.in_order():
        row = {"k": k, "title": directions.title(k), "words": directions.words(k)}
        if k in best:
            factor, found = best[k]
            row |= {"factor": factor_words(factor), "slope": found.slope, "selectivity": found.selectivity, "chance": found.chance}
            row |= {"unit": generator.measures.units.get(factor, ""), "beyond": found.beyond_chance}
        rows.append(row)
    return {"label": label, "title": title_of(label, directions), "generator": key, "rows": rows, "matrix": _floats(directions.matrix)}


def _paths(generator: Generator, steering: Steering, z: Tensor) -> dict[str, Any]:
    """z (starts, factors, amounts, d) on steered paths, and all factors measured there (starts, factors, amounts, factors)."""
    names = steering.can_move
    at = np.array([steering.factors.index(name) for name in names])
    found, read = [], []
    for name in names:
        ends, values = steered_ends(generator, z, name, AMOUNTS, steering=steering, probes=1)  # of many starts, sooner
        found.append(ends.transpose(0, 1))
        read.append(values.swapaxes(0, 1)[..., at])
    units = {name: generator.measures.units.get(name, "") for name in names}
    factors = [
        {"name": factor_words(name), "unit": units[name], "sd": float(steering.spread[steering.factors.index(name)])} for name in names
    ]
    measured = np.stack(read, 1).round(2)
    known = measured.astype(object)
    known[~np.isfinite(measured)] = None  # which JSON holds
    return {"factors": factors, "z": _floats(torch.stack(found, 1)), "read": known.tolist()}


def export(generator: Generator) -> dict[str, Any]:
    """A generator as an ONNX `graph` without its large `weights`, which `tensors` these are, and how `near` it draws, in the display's
    unit.

    NotLive where it cannot be exported, or the graph draws other images.
    """
    onnx = optional("onnx", "live")
    optional("onnxscript", "live")
    generator = generator.to("cpu")
    if generator.noise != "none":
        raise NotLive(f"{generator.info.name} draws noise of its own, which ONNX does not hold fixed")
    z = generator.draw(TRIED, 2)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            module = copied(generator.quick.module).to(memory_format=torch.contiguous_format)
            program: Any = torch.onnx.export(_Plain(module), (z[:1],), dynamo=True, input_names=["z"], output_names=["images"])
            model = program.model_proto
    except Exception as error:  # a user's own module may do anything that ONNX does not know
        raise NotLive(f"{generator.info.name} cannot be exported to ONNX ({' '.join(str(error).split())[:160]})") from error
    finally:
        logging.disable(logging.NOTSET)
    low, high = generator.display.window
    for bits in BITS:
        packed = onnx.ModelProto()
        packed.CopyFrom(model)
        weights, tensors = _take_out(onnx, packed, bits)
        drawn = _drawn(onnx, packed, weights, tensors, z)
        off = np.abs(drawn - generator.images(z).numpy()) * (high - low) / 2
        near = {"mean": float(off.mean()), "largest": float(off.max())}
        if near["largest"] <= NEAR * (high - low):
            zipped = gzip.compress(weights, 9, mtime=0)
            return {"graph": packed.SerializeToString(), "weights": zipped, "tensors": tensors, "near": near}
    raise NotLive(f"{generator.info.name} draws other images as ONNX: {near['mean']:.3g} {generator.display.unit} away on average")


class _Plain(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> Tensor:
        return self.module(z).float()


def _take_out(onnx: Any, model: Any, bits: int) -> tuple[bytes, list[dict]]:
    """Move the large weights of a model out of it: two planes of bytes of all, and for each name, number, rows and scales."""
    high, low, tensors = [], [], []
    large = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT and np.prod(one.dims) >= SMALL]
    total = sum(np.prod(one.dims) for one in large)
    for one in large:
        values = onnx.numpy_helper.to_array(one)
        own = bits if values.size > LARGE * total else bits + 2
        rows = values.reshape(values.shape[0], -1)
        scale = np.maximum(np.abs(rows).max(1, keepdims=True) / (2 ** (own - 1) - 1), 1e-30).astype(np.float32)
        whole = np.rint(rows / scale).astype(np.int16)
        high.append((whole >> (own - 8)).astype(np.int8).tobytes())
        low.append((whole & (2 ** (own - 8) - 1)).astype(np.uint8).tobytes())
        tensors.append({"name": one.name, "n": values.size, "bits": own, "scales": _floats(torch.from_numpy(scale[:, 0]))})
        one.ClearField("raw_data")
        one.ClearField("float_data")
        one.data_location = onnx.TensorProto.EXTERNAL
        start = 4 * sum(tensor["n"] for tensor in tensors[:-1])
        for key, value in (("location", "weights"), ("offset", str(start)), ("length", str(4 * values.size))):
            one.external_data.add(key=key, value=value)
    return b"".join(high + low), tensors


def _drawn(onnx: Any, model: Any, weights: bytes, tensors: list[dict], z: Tensor) -> np.ndarray:
    """What the page draws from z (N, d): with the weights in their places again, as they are read from the planes."""
    planes = np.frombuffer(weights, np.uint8).reshape(2, -1)
    complete = onnx.ModelProto()
    complete.CopyFrom(model)
    known, at = {one.name: one for one in complete.graph.initializer}, 0
    for tensor in tensors:
        scales = np.frombuffer(base64.b64decode(tensor["scales"]), np.float32)
        high, low = (plane[at : at + tensor["n"]].reshape(len(scales), -1) for plane in planes)
        values = ((high.view(np.int8).astype(np.int32) << (tensor["bits"] - 8)) | low) * scales[:, None]
        one, at = known[tensor["name"]], at + tensor["n"]
        one.ClearField("external_data")
        one.data_location = onnx.TensorProto.DEFAULT
        one.raw_data = values.astype(np.float32).tobytes()
    session = optional("onnxruntime", "live").InferenceSession(complete.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"z": one[None].numpy()})[0] for one in z])


def _floats(x: Tensor) -> str:
    return base64.b64encode(x.contiguous().float().numpy().tobytes()).decode()
