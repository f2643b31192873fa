"""Names become words, and what is one's own stays as it is."""

import pytest

from lpdirs.base.words import FACTORS, METHODS, factor_words, model_words, set_words
from lpdirs.discovery.methods import METHODS as ALL
from lpdirs.measures.thorax import FACTORS as MEASURED


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("gan-unit32-lenet", "GAN, the paper's method (LeNet), K = 32"),
        ("vae-orthonormal100-resnet18", "VAE, the paper's method, orthonormal (ResNet-18), K = 100"),
        ("own-local-basis8", "own, local basis, K = 8"),
        ("gan", "GAN"),
        ("my-net-v2", "my-net-v2"),
        ("stylegan-ada2", "stylegan-ada2"),
    ],
)
def test_sets_are_said_in_words_and_one_s_own_labels_as_they_are(label, said):
    assert set_words(label) == said and said.startswith(model_words(label))


def test_every_method_and_every_factor_has_its_words():
    assert set(ALL) - {"reconstructor"} <= set(METHODS) and set(MEASURED) == set(FACTORS)
    assert factor_words("thickness 2") == "body thickness 2" and factor_words("wall_area") == "wall area"
