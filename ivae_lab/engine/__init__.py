"""The engine: trains S seeds of one model at once, and leaves a run folder. The only place that knows of S."""

import os
from typing import TYPE_CHECKING

from ivae_lab.terminal.lazy import face

# MKL otherwise picks a kernel by the alignment of a matrix in memory, so that a seed's numbers would depend, in the
# last bit, on how many seeds stand before it in the stack. Read by MKL at its first call, hence here.
os.environ.setdefault("MKL_CBWR", "AUTO")

if TYPE_CHECKING:
    from ivae_lab.engine.options import Compute as Compute
    from ivae_lab.engine.options import Training as Training
else:
    __getattr__, __dir__ = face(__name__)
