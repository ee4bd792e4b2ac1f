"""What a fit does before its loop: one deterministic thread, tensors of the data, a reproducible start."""

import math

import torch
from torch import Tensor

from stages.common.files import significant
from stages.common.tables import Table


def use_one_deterministic_thread() -> None:
    """Sums on several threads would depend on how many there are.

    The debug mode "error" sets the flag of torch.use_deterministic_algorithms(True) without importing torch's compiler,
    which takes as long as torch itself.
    """
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")


def as_tensors(table: Table) -> tuple[Tensor, Tensor]:
    """features (rows x features) and target (rows,), both float64."""
    return torch.tensor(table.features), torch.tensor(table.target)


def rounded_start(values: Tensor) -> Tensor:
    """A drawn start, rounded to the 10 significant digits of the files: they hold exactly what was computed with."""
    rounded = [significant(value) for value in values.flatten().tolist()]
    return torch.tensor(rounded, dtype=values.dtype).reshape(values.shape)


def linear_layer(features: int, dtype: torch.dtype, generator: torch.Generator) -> torch.nn.Linear:
    """A layer to one output as torch.nn.Linear starts it, weight and bias uniform on +-1/sqrt(features), but drawn with
    the caller's generator instead of the global one, in float64, and rounded.
    """
    layer: torch.nn.Linear = torch.nn.utils.skip_init(torch.nn.Linear, features, 1, dtype=dtype)
    bound = 1 / math.sqrt(features)
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            uniform = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(rounded_start(bound * (2 * uniform - 1)))
    return layer
