"""Names as words: factors, models and sets of directions, as figures and sentences say them."""

import re

FACTORS = {
    "rotation": "rotation",
    "breast": "breast size",
    "thickness": "body thickness",
    "y_position": "y-position",
    "z_position": "z-position",
    "x_position": "x-position",
    "width": "body width",
}
MODELS = {"gan": "GAN", "vae": "VAE"}
METHODS = {
    "unit": "the paper's method",
    "orthonormal": "the paper's method, orthonormal",
    "motion": "motion",
    "sparse": "sparse",
    "random": "random",
    "coordinate": "coordinate",
    "pca": "PCA",
    "pca-encoded": "PCA of encoded slices",
    "sefa": "SeFa",
    "sefa-released": "SeFa, as released",
    "jacobian": "Jacobian",
    "ica": "ICA",
    "local-basis": "local basis",
    "hessian": "Hessian penalty",
    "latentclr": "LatentCLR",
    "disco": "DisCo",
    "oracle": "oracle",
    "oracle-alone": "oracle, others held still",
    "curved": "curved paths of known factors",
}
RECONSTRUCTORS = {"lenet": "LeNet", "resnet18": "ResNet-18", "resnet18-224": "ResNet-18 at 224 px"}


def factor_words(name: str) -> str:
    """A factor as words; a number behind it stays ("rotation 2"), and one's own factor loses its underscores."""
    factor, space, number = name.partition(" ")
    return FACTORS.get(factor, factor.replace("_", " ")) + space + number


def set_words(label: str) -> str:
    """A set of directions as words: "gan-unit32-lenet" is "GAN, the paper's method (LeNet), K = 32"; one's own label stays as it is."""
    known = re.fullmatch(r"(.+?)-([a-z-]+?)(\d+)(?:-(lenet|resnet18-224|resnet18))?(?:-from-([a-z-]+))?", label)
    if not known or known[2] not in METHODS:
        return MODELS.get(label, label)
    model, method, k, reconstructor, start = known.groups()
    said = METHODS[method]
    said += f" ({RECONSTRUCTORS[reconstructor]})" if reconstructor else ""
    said += f" from {METHODS.get(start, start)}" if start else ""
    return f"{MODELS.get(model, model)}, {said}, K = {k}"


def configuration_words(name: str) -> str:
    """A configuration of a grid as words: "lenet-unit-32" is "the paper's (LeNet), K = 32", "pca" is "PCA"."""
    known = re.fullmatch(r"(lenet|resnet18-224|resnet18)-(unit|orthonormal)-(\d+)", name)
    if not known:
        by_chance = re.fullmatch(r"random-(\d+)", name)
        return f"random, K = {by_chance[1]}" if by_chance else METHODS.get(name, name.replace("-", " "))
    reconstructor, basis, k = known.groups()
    return f"the paper's ({RECONSTRUCTORS[reconstructor]}{', orthonormal' if basis == 'orthonormal' else ''}), K = {k}"


def model_words(label: str) -> str:
    """The model of a set of directions: "gan-unit32-lenet" is "GAN"."""
    return set_words(label).partition(",")[0]
