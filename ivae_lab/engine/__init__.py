"""The engine: trains S seeds of one model at once, and leaves a run folder. The only place that knows of S."""

import os

# MKL otherwise picks a kernel by the alignment of a matrix in memory, so that a seed's numbers would depend, in the
# last bit, on how many seeds stand before it in the stack. Read by MKL at its first call, hence here.
os.environ.setdefault("MKL_CBWR", "AUTO")
