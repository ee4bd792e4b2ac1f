"""What a fit says of each row when it is made without it.

Without row i the minimum of a sum of losses l_j(x_j . theta) lies at theta + l'_i (H - l''_i x_i x_i')^-1 x_i to one
Newton step, H = sum l''_j x_j x_j'. By Sherman and Morrison's formula its prediction for row i is

    z_i + q_i l'_i / (1 - q_i l''_i),   q_i = x_i' H^-1 x_i.

For squares one step is exact: this is Allen's PRESS (The relationship between variable selection and data augmentation,
Technometrics 1974). For logits it is Pregibon's approximation (Logistic regression diagnostics, Annals of Statistics
1981).
"""

import numpy as np

from stages.theory.least_squares import Array

FREE = 1e-9  # of 1 - q l'': a row that alone fixes a parameter, which nothing is known of without it


def predictions_without(slopes: Array, predicted: Array, by_prediction: Array, curvature: Array) -> Array | None:
    """The prediction of each row by the fit without it, (rows,); None where a row alone fixes a parameter.

    Args:
        slopes: (rows, parameters), x, at a minimum.
        predicted: (rows,), z there.
        by_prediction: (rows,), l' there.
        curvature: (rows,), l'' there.
    """
    Q, _ = np.linalg.qr(slopes / np.linalg.norm(slopes, axis=0))  # an orthonormal basis loses no digits in H
    H = (Q.T * curvature) @ Q
    q = np.einsum("ni,in->n", Q, np.linalg.solve(H, Q.T))
    left = 1 - q * curvature
    return None if left.min() < FREE else predicted + q * by_prediction / left
