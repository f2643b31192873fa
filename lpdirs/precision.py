"""How numbers are computed: number format and compilation, behind two settings that all trainings have."""

import torch
from torch import nn

from lpdirs.errors import UserError

PRECISIONS = ("fp32", "bf16")
COMPILE = ("off", "default", "reduce-overhead")


def check_precision(precision: str) -> None:
    """UserError unless `precision` is one of PRECISIONS."""
    if precision not in PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def autocast(device: str | torch.device, precision: str) -> torch.autocast:
    """bf16 where it is safe, by torch's own rules, or nothing for fp32."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


def compiled(module: nn.Module, mode: str) -> nn.Module:
    """torch.compile in `mode`: "off", "default", or "reduce-overhead" (CUDA graphs on a GPU); the weights stay the module's."""
    if mode not in COMPILE:
        raise UserError(f"compile must be one of {', '.join(COMPILE)}, not {mode!r}")
    return module if mode == "off" else torch.compile(module, mode=None if mode == "default" else mode)
