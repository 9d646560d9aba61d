"""Kernels of the backend ``numba_cpu``: compiled by Numba, vectorised, run by a pool of threads over slices of rows."""
