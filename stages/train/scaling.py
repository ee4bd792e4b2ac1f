"""Standardises features for a fit and maps what was fitted back to the CSV's units."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.common.tables import LARGEST
from stages.train.workers import ALONE, Workers


@dataclass(frozen=True)
class Scaling:
    """x' = (x - mean) / sd, feature by feature; mean 0 and sd 1 leave the features as they are.

    Attributes:
        mean: (features,), in the CSV's units.
        sd: (features,), population standard deviation, in the CSV's units.
    """

    mean: Tensor
    sd: Tensor

    @classmethod
    def none(cls, features: Tensor) -> Self:
        """Leaves features (rows x features) in the CSV's units."""
        count = features.shape[1]
        return cls(features.new_zeros(count), features.new_ones(count))

    @classmethod
    def standard(cls, features: Tensor, workers: Workers) -> Self:
        """Scales each column of features (rows x features) to mean 0 and standard deviation 1 over all workers' rows.

        Raises:
            UserError: where a column is constant, or so large or small that its spread can't be computed.
        """
        mean = workers.mean(features)
        sd = workers.mean((features - mean) ** 2).sqrt()
        low, high = -workers.largest(-features), workers.largest(features)
        for column, (spread, least, most) in enumerate(zip(sd, low, high, strict=True), start=1):
            if least == most or not 1 / LARGEST <= spread <= LARGEST:
                raise UserError(
                    f"standardize: feature {column} of the CSV can't be scaled: expected values that differ, a finite"
                    f" standard deviation, found {least:g} to {most:g}; remove the column, or set"
                    " standardize: false"
                )
        return cls(mean, sd)

    @classmethod
    def of(cls, features: Tensor, *, standardize: bool, workers: Workers = ALONE) -> Self:
        """The scaling that the setting `standardize` asks for."""
        return cls.standard(features, workers) if standardize else cls.none(features)

    def apply(self, features: Tensor) -> Tensor:
        """The scaled features, (rows x features)."""
        return (features - self.mean) / self.sd

    def in_csv_units(self, w: Tensor, b: Tensor) -> Tensor:
        """w_j = w'_j / sd_j, then b = b' - sum_j w'_j mean_j / sd_j, beside each other, (states, features + 1).

        Args:
            w: w', (states, features), float64.
            b: b', (states, 1), float64.
        """
        weights = w / self.sd
        return torch.cat([weights, b - (weights * self.mean).sum(dim=1, keepdim=True)], dim=1)
