"""Scalar functions as device functions that round where they are written to.

A CUDA compiler turns a b + c into one operation with one rounding. Mostly that helps; but error-free transformations
(``accelerated.scalar.compensated``) count on every rounding, and Numba has no switch for it. What it has is libdevice's
product that is never fused, so the products of a function are replaced by calls of that.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from numba import config, cuda
from numba.cuda import libdevice

from accelerated import scalar

_PRODUCT = "_rounded_product"


def device_function(function: Callable[..., Any]) -> Any:
    """One of ``accelerated.scalar``'s functions, with all it calls, for kernels; the simulator needs no compiling."""
    if config.ENABLE_CUDASIM:  # type: ignore[attr-defined]
        return function
    return scalar.compiled(function, lambda one: cuda.jit(device=True)(_separately_rounded(one)))


class _Products(ast.NodeTransformer):
    """a * b -> _rounded_product(a, b)."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return _product(node.left, node.right) if isinstance(node.op, ast.Mult) else node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Mult) or not isinstance(node.target, ast.Name):
            return node
        left = ast.Name(node.target.id, ast.Load())
        return ast.Assign([node.target], _product(left, node.value))


def _product(left: ast.expr, right: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(_PRODUCT, ast.Load()), [left, right], [])


def _separately_rounded(function: Any) -> Any:
    """The same function with products that are rounded before they are added to anything."""
    tree = ast.fix_missing_locations(_Products().visit(ast.parse(inspect.getsource(function))))
    names = {**function.__globals__, _PRODUCT: _rounded_product, "min": _least, "max": _most}
    # The future import of this file is inherited: annotations stay strings.
    exec(compile(tree, inspect.getfile(function), "exec"), names)
    return names[function.__name__]


# Of the targets called numba.cuda, the one inside Numba 0.68 cannot compile the builtins min and max.
@cuda.jit(device=True)
def _least(a, b):
    return b if b < a else a


@cuda.jit(device=True)
def _most(a, b):
    return b if b > a else a


@cuda.jit(device=True)
def _rounded_product(a, b):
    return libdevice.dmul_rn(float(a), float(b))
