"""The Gaussian couplings that several test files hold the code against."""

import torch

from ibmd_lite.gaussian import GaussianCoupling


def line() -> GaussianCoupling:
    """One dimension: the example whose failures without noise are known to three digits."""
    return GaussianCoupling(0.6, 0.3, 0.8, 0.0, 1.69)


def plane() -> GaussianCoupling:
    """Two dimensions, nothing diagonal."""

    def rows(*values):
        return torch.tensor(values, dtype=torch.float64)

    return GaussianCoupling(
        A=rows([0.6, -0.3], [0.2, 0.5]),
        m=rows(0.3, -0.2),
        tau=rows([0.8, 0.0], [0.3, 0.5]),
        mu=rows(0.1, 0.4),
        S=rows([1.2, 0.3], [0.3, 0.8]),
    )
