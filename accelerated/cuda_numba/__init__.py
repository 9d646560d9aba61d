"""Portable kernels in Numba's CUDA dialect: no warp intrinsics, so that the CUDA simulator runs them too."""
