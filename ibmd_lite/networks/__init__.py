"""Networks: a perceptron for the plane and a compact U-Net for images.

Both are called as ``network(xt, time)`` or ``network(xt, time, xT)`` with times scaled to about
0..1000, and with ``label=`` or ``task=`` where they were made to see them; any `torch.nn.Module`
that can be called so does as well. Imports torch alone.
"""

from ibmd_lite.networks.embedding import Conditions, time_embedding
from ibmd_lite.networks.mlp import MLP
from ibmd_lite.networks.unet import UNet

__all__ = ["MLP", "Conditions", "UNet", "time_embedding"]
