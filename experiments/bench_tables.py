"""The tables of speed in the pages, from outputs/reference/bench; written by `python -m experiments.readme_tables`."""

import json

from tests.conftest import ROOT

BENCH = ROOT / "outputs" / "reference" / "bench"
WORDS = {
    "pca": "PCA",
    "sefa": "SeFa",
    "jacobian": "Jacobian",
    "local-basis": "local basis",
    "ica": "ICA",
    "hessian": "Hessian penalty",
    "latentclr": "LatentCLR",
    "disco": "DisCo",
    "ten steps of search, unit": "ten steps of the paper's search",
    "ten steps of search, orthonormal": "the same, orthonormal",
    "ten steps of search": "ten steps of the paper's search",
}


def read(name: str) -> dict:
    return json.loads((BENCH / f"{name}.json").read_text())


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def compared() -> list[str]:
    """A line each comparison: ours, the other side, and the ratio."""
    data, training, steps = read("data"), read("training"), read("steps")
    store, batches = data["dicom_to_store"], data["batches"]
    lines = [
        "| what | lpdirs | written plainly | ratio | in bf16, ratio |",
        "|---|---|---|---|---|",
        f"| DICOM of 512 px to a store of 128 px | {store['slices_per_s']:.0f} slices/s | {store['straightforward_slices_per_s']} slices/s "
        f"| {store['ratio']:.1f} | |",
        f"| training batches | {batches['slices_per_s']:,} slices/s | {batches['npz_slices_per_s']:,} slices/s "
        f"| {batches['ratio']:.0f} | |",
    ]
    for kind, words in (("lenet", "LeNet"), ("resnet18", "ResNet-18")):
        one = training["discovery_step"][kind]
        what = f"a discovery step at paper size (128 px, K = 100, batch 8), {words}"
        lines.append(
            f"| {what} | {_seconds(one['seconds'])} | {_seconds(one['naive_seconds'])} | {one['ratio']:.1f} | {one['ratio_chosen']:.1f} |"
        )
        lines.append(f"| the same, with freed memory given back | {_seconds(one['seconds_where_memory_is_given_back'])} | | | |")
    race = training["time_to_accuracy"]
    ended, reached = race["naive_ended_at"], f"{'over ' if race['ratio_is_a_lower_bound'] else ''}{race['ratio']:.1f}"
    lines.append(
        f"| accuracy 0.8 on the phantom's VAE, K = 32 | {race['seconds']:.0f} s | {ended[1]:.2f} after {ended[0]:.0f} s | {reached} | |"
    )
    for profile in ("demo", "chest", "paper"):
        for model in ("gan", "vae"):
            one = steps[profile][model]
            what = f"a {model.upper()} step, {profile} ({one['what']})"
            ours, plain = _seconds(one["seconds"]), _seconds(one["plain_seconds"])
            lines.append(f"| {what} | {ours} | {plain} | {one['ratio']:.2f} | {one['ratio_chosen']:.2f} |")
            if "pythae_seconds" in one:
                lines.append(f"| the same by pythae's trainer | | {_seconds(one['pythae_seconds'])} | {one['ratio_to_pythae']:.2f} | |")
    return lines


def shares() -> list[str]:
    """A line each step of training: what shares of its time the kinds of operations take."""
    lines = ["| a step of | convolutions | BatchNorm | upsampling | Adam |", "|---|---|---|---|---|"]
    for profile, models in read("steps").items():
        for model, one in models.items() if profile != "machine" else ():
            said = " | ".join(f"{one['shares'][kind]:.0%}" for kind in ("convolution", "BatchNorm", "upsampling", "Adam"))
            lines.append(f"| {model.upper()}, {profile} ({one['what']}) | {said} |")
    return lines


def waits() -> list[str]:
    """A line each thing that one waits for."""
    door, explorer, measuring = read("door"), read("explorer"), read("measuring")["anatomy"]
    lines = ["| what one waits for | time |", "|---|---|"]
    lines += [f"| {what} | {_wait(value)} |"
              for what, value in door.items() if what not in ("what", "machine")]  # fmt: skip
    lines += [f"| a slider, {what} | {one['median_ms']:.0f} ms |" for what, one in explorer.items() if what != "machine"]
    lines += [f"| a thousand slices of 64 px measured, {what} | {1000 / n:.2f} s |" for what, n in measuring.items() if what != "what"]
    return lines


def _wait(value: float) -> str:
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 60 else f"{value / 60:.1f} min"


def growth() -> list[str]:
    """A line each measurement: seconds and peak memory at every size, and the exponent at the end."""
    lines = ["| what grows | what is measured | sizes | seconds | peak MiB | exponent |", "|---|---|---|---|---|---|"]
    for name, measured in read("growth").items():
        for what, found in measured.items() if name != "machine" else ():
            rows = found["rows"]
            sizes, seconds = ", ".join(f"{row['size']:,}" for row in rows), ", ".join(f"{row['seconds']:.3g}" for row in rows)
            memory = f"{rows[0]['peak_MiB']:,} to {rows[-1]['peak_MiB']:,}"
            lines.append(f"| {name} | {WORDS.get(what, what)} | {sizes} | {seconds} | {memory} | {found['exponent']:.1f} |")
    return lines


def workers() -> list[str]:
    """A line each number of workers: minutes and efficiency of 12 configurations with 10 seeds."""
    found = read("cluster")["computed for notebooks as they took here"]
    lines = ["| workers | minutes | efficiency |", "|---|---|---|"]
    for name, minutes in found["minutes"].items():
        lines.append(f"| {name.split()[0]} | {minutes:.0f} | {found['efficiency'][name]:.2f} |")
    return lines


def sharing() -> list[str]:
    """A line each way: seconds to an accuracy of 0.8 with three seeds."""
    lines = ["| pairs of one z | seconds to accuracy 0.8, three seeds |", "|---|---|"]
    for name, one in read("training")["sharing_a_plain_image"].items():
        if name != "what":
            ended = ", ".join("not reached" if s is None else f"{s:.0f}" for s in one["seconds"])
            lines.append(f"| {name.split()[0]} | {ended} |")
    return lines
