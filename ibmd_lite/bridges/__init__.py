"""Bridges: three curves and one variance.

A bridge joins a clean image x0 (time 0) to a corrupted one xT (time T).  Its state at time t is
``xt = a_t xT + b_t x0 + c_t noise`` (eq:bridge); stepping back from t to s, with x0 known, needs one
variance more, that of the Markov posterior q(xs | xt, x0) (eq:posterior).  Every family of the
literature is one small class here; models, samplers and distillation use nothing but this interface.

``bridge`` is the interface, ``linear`` and ``tables`` hold the families.  Imports nothing else of the package.
"""

from ibmd_lite.bridges.bridge import Bridge, Posterior, StepWeights, like
from ibmd_lite.bridges.linear import VE, VP, Brownian, ContinuousI2SB, Flow, LinearBridge
from ibmd_lite.bridges.tables import DBIMI2SB, I2SB, I2SBFlow, ResShift, TableBridge

__all__ = [
    "I2SB",
    "VE",
    "VP",
    "Bridge",
    "Brownian",
    "ContinuousI2SB",
    "DBIMI2SB",
    "Flow",
    "I2SBFlow",
    "LinearBridge",
    "Posterior",
    "ResShift",
    "StepWeights",
    "TableBridge",
    "like",
]
