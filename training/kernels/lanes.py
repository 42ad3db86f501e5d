"""How many floats the CPU kernels handle at a time.

Sixteen where numba compiles for AVX-512, else eight: one AVX register on x86-64, two on ARM. The
order of a sum does not depend on it, so spikes and scores are the same bit by bit. The density
at which products turn from sparse to dense does, and with it the last bits of gradients.
"""

NARROW, WIDE = 8, 16


def lanes_for(features: str) -> int:
    """Lanes for a processor with these features, as LLVM writes them: ``+avx2,-avx512f,...``."""
    return WIDE if "+avx512f" in features.split(",") else NARROW
