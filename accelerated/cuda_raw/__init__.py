"""CUDA C++ kernels of the backend ``cupy_raw``, and the host code that launches them."""
