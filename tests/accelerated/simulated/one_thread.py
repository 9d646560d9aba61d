"""Kernels compiled for the CPU, one thread per block: what Numba's types make of them, without a device.

The simulator runs a kernel as Python, where 1 << 3 of a byte or the sum of two words are what NumPy says. Numba
decides by types, and where it decides otherwise only compiled code shows it. Here a kernel's source is rewritten for
one thread: barriers fall away, shared memory is a buffer, the block is a variable. The simulator lends the rest.
"""

import ast
import functools
import inspect
import textwrap
from types import FunctionType

import numba
import numpy as np
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from numba.cuda.simulator.kernel import FakeCUDAKernel

from accelerated import scalar

n_calls = 0  # so that a test can see that it was this that ran

_REPLACED = {
    "cuda.threadIdx.x": "0",
    "cuda.blockDim.x": "1",
    "cuda.blockIdx.x": "_block",
    "cuda.grid(1)": "_block",
    "cuda.gridsize(1)": "_n_blocks",
    "cuda.syncthreads()": "None",
}


class _OneThread(ast.NodeTransformer):
    def visit(self, node):
        node = self.generic_visit(node)
        text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Call) else ""
        if text in _REPLACED:
            return ast.parse(_REPLACED[text], mode="eval").body
        if text.startswith("cuda.shared.array("):
            return ast.parse(f"_shared.view(_{ast.unparse(node.args[1])})", mode="eval").body
        if text.startswith("cuda.local.array("):
            return ast.Call(ast.parse("_zeros", mode="eval").body, node.args, [])
        if text.startswith("cuda.atomic.add("):
            return ast.Call(ast.parse("_add", mode="eval").body, node.args, [])
        return node


@numba.njit
def _add(array, i, value):
    array[i] += value


@functools.cache
def _compiled(function, is_kernel):
    """A kernel or device function for the CPU, with all the device functions it calls."""
    names = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = _OneThread().visit(tree).body[0]
    definition.decorator_list = []
    if is_kernel:
        definition.args.args += [ast.arg(name) for name in ("_block", "_n_blocks", "_shared")]
    for name in {node.id for node in ast.walk(definition) if isinstance(node, ast.Name)}:
        called = names.get(name)
        if isinstance(called, FakeCUDAKernel):
            names[name] = _compiled(called.py_func, False)
        elif isinstance(called, FunctionType) and called.__module__.startswith("accelerated.scalar"):
            names[name] = scalar.compiled(called, numba.njit(error_model="numpy"))
    names |= {"_add": _add, "_zeros": np.zeros, "_float64": np.float64, "_int32": np.int32, "_uint8": np.uint8}
    exec(compile(ast.fix_missing_locations(ast.Module([definition], [])), function.__name__, "exec"), names)
    return numba.njit(error_model="numpy")(names[function.__name__])


def call(kernel, *arguments):
    """In the place of ``FakeCUDAKernel.__call__``: device functions never come here."""
    (n_blocks, *_), n_bytes = kernel.grid_dim, kernel.dynshared_size
    global n_calls
    n_calls += 1
    arrays = [argument._ary if isinstance(argument, FakeCUDAArray) else argument for argument in arguments]
    compiled = _compiled(kernel.py_func, True)
    for block in range(n_blocks):
        compiled(*arrays, block, n_blocks, np.zeros(-(-n_bytes // 8) * 8, np.uint8))
