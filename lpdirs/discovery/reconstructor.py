"""The reconstructor R: from the pair (G(z), G(z + eps * a_k)) to k and eps (Voynov and Babenko 2020, section 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpdirs.base.errors import UserError, optional

LEAST = 32  # px that LeNet's three convolutions need; smaller images are enlarged


class LeNet(nn.Module):
    """LeNet-like R with BatchNorm and mean pooling: 74.6 k parameters at K = 32, 80.4 k at K = 100."""

    def __init__(self, k: int, width: int = 2, channels: int = 1):
        super().__init__()
        c1, c2, c3, hidden = 3 * width, 8 * width, 60 * width, 42 * width
        self.features = nn.Sequential(
            *(nn.Conv2d(2 * channels, c1, 5), nn.BatchNorm2d(c1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(c1, c2, 5), nn.BatchNorm2d(c2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(c2, c3, 5), nn.BatchNorm2d(c3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        head = lambda n: nn.Sequential(nn.Linear(c3, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, n))
        self.which, self.how_far = head(k), head(1)

    def forward(self, x: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, C, S, S) in [-1, 1]; logits of k (B, K) and eps (B,)."""
        pair = torch.cat([x, shifted], 1)
        if pair.shape[-1] < LEAST:
            pair = F.interpolate(pair, (LEAST, LEAST), mode="bilinear", align_corners=False)
        h = self.features(pair)
        return self.which(h), self.how_far(h).squeeze(1)


class ResNet18(nn.Module):
    """torchvision's ResNet-18 on the two slices' channels: as they are, which is what the original code does as released, or enlarged to
    `upsample` px and normalised, as in a revision before."""

    def __init__(self, k: int, upsample: int = 0, channels: int = 1):
        super().__init__()
        resnet18 = optional("torchvision.models", "features").resnet18  # here, since it takes seconds to import and LeNet does without

        self.upsample = upsample
        self.features = resnet18(weights=None)
        self.features.conv1 = nn.Conv2d(2 * channels, 64, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(self.features.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.features.fc = nn.Identity()
        self.which, self.how_far = nn.Linear(512, k), nn.Linear(512, 1)

    def forward(self, x: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, C, S, S) in [-1, 1]; logits of k (B, K) and eps (B,)."""
        pair = torch.cat([x, shifted], 1)
        if self.upsample:
            pair = ((pair + 1) / 2 - 0.456) / 0.224
            pair = F.interpolate(pair, (self.upsample, self.upsample), mode="bicubic", align_corners=False)
        h = self.features(pair)
        return self.which(h), self.how_far(h).squeeze(1)


def make_reconstructor(kind: str, k: int, channels: int = 1) -> nn.Module:
    """R for k directions of images with `channels`.

    `kind` is "lenet", "resnet18" (as the original code was released) or "resnet18-224" (resized to 224 px, as in a revision before).
    """
    if kind == "lenet":
        return LeNet(k, channels=channels)
    if kind in ("resnet18", "resnet18-224"):
        # channels last: a step takes 5 to 10 percent less on CPUs too
        return ResNet18(k, 224 if kind == "resnet18-224" else 0, channels).to(memory_format=torch.channels_last)
    raise UserError(f"reconstructor must be 'lenet', 'resnet18' or 'resnet18-224', not {kind!r}")
