"""The primitives of ``accelerated.scalar.bits`` for Numba's CPU target: single instructions, which LLVM vectorises."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_DOUBLE, _BITS = ir.DoubleType(), ir.IntType(64)


def _bitcast(result: Any, argument: Any, to: Any) -> Any:
    @intrinsic
    def primitive(typing_context: Any, x: Any) -> Any:
        return result(argument), lambda context, builder, sig, arguments: builder.bitcast(arguments[0], to)

    return primitive


@intrinsic
def _multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_DOUBLE, [_DOUBLE] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.f64"), arguments)

    return types.float64(types.float64, types.float64, types.float64), emit


#: By name, for ``accelerated.scalar.compiled``.
PRIMITIVES = {
    "to_bits": _bitcast(types.int64, types.float64, _BITS),
    "from_bits": _bitcast(types.float64, types.int64, _DOUBLE),
    "multiply_add": _multiply_add,
}
