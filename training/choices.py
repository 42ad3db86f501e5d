"""Names shared by configuration and kernels, in a module that imports no tensors.

Reading a configuration (the command line does, for every mistake it reports) costs no import
of torch this way.
"""

from typing import Literal

Backend = Literal["auto", "reference", "cpu", "triton"]

# Bits that mean a spike keeps its value.
UNQUANTIZED_BITS = 32
