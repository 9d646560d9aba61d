"""Vectors of machine numbers inside compiled kernels, so that what must be vector code is written as vector code.

    x = load(array, i, 8)                   eight neighbouring entries of a one-dimensional array
    x = fma(x, splat(scale, 8), bias)       arithmetic, element by element: + - * ^ & | >> << <
    store(array, i, x)

LLVM turns a vector of any length into whatever registers the processor has, and every element goes through the same
operations in the same order wherever it sits: results do not depend on how work is cut into vectors. Lengths must be
compile-time constants. Nothing checks bounds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import models, register_model

#: An intrinsic is called with the arguments of the kernel, not with those of its definition.
intrinsic: Any = extending.intrinsic


class Vector(types.Type):
    """So many numbers (``lanes``) of one machine type."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        element = ir.IntType(1) if vector.dtype == types.boolean else manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def _operator(function: Callable[..., Any], emit: Callable[..., Any], result: Any = None) -> None:
    """Make an operator of Python work on two vectors of one kind; ``result`` is the element type, None: the same."""

    @infer_global(function)
    class Typing(AbstractTemplate):
        def generic(self, arguments: Any, keywords: Any) -> Any:
            if len(arguments) == 2 and isinstance(arguments[0], Vector) and arguments[0] == arguments[1]:
                kind = arguments[0]
                return signature(kind if result is None else Vector(result, kind.lanes), kind, kind)
            return None

    @lower_builtin(function, Vector, Vector)
    def lower(context: Any, builder: Any, signature_: Any, arguments: Any) -> Any:
        return emit(builder, signature_.args[0].dtype, *arguments)


def _arithmetic(name: str) -> Callable[..., Any]:
    def emit(builder: Any, dtype: Any, a: Any, b: Any) -> Any:
        return getattr(builder, f"f{name}" if isinstance(dtype, types.Float) else name)(a, b)

    return emit


def _bitwise(name: str) -> Callable[..., Any]:
    return lambda builder, dtype, a, b: getattr(builder, name)(a, b)


def _less(builder: Any, dtype: Any, a: Any, b: Any) -> Any:
    if isinstance(dtype, types.Float):
        return builder.fcmp_ordered("<", a, b)
    return (builder.icmp_signed if dtype.signed else builder.icmp_unsigned)("<", a, b)


_operator(operator.add, _arithmetic("add"))
_operator(operator.sub, _arithmetic("sub"))
_operator(operator.mul, _arithmetic("mul"))
_operator(operator.truediv, _bitwise("fdiv"))
_operator(operator.xor, _bitwise("xor"))
_operator(operator.and_, _bitwise("and_"))
_operator(operator.or_, _bitwise("or_"))
_operator(operator.lshift, _bitwise("shl"))
_operator(operator.rshift, _bitwise("lshr"))  # of unsigned numbers
_operator(operator.lt, _less, types.boolean)


def _pointer(context: Any, builder: Any, array_type: Any, arguments: Any, element: Any) -> Any:
    """Where the array that is the first argument has the entry that is the second."""
    data = context.make_array(array_type)(context, builder, arguments[0]).data
    return builder.bitcast(builder.gep(data, [arguments[1]]), element.as_pointer())


@intrinsic
def item(typing_context: Any, array: Any, index: Any) -> Any:
    """One entry of a one-dimensional contiguous array: no negative indices."""

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        element = context.get_data_type(array.dtype)
        value = builder.load(_pointer(context, builder, array, arguments, element))
        return context.data_model_manager[array.dtype].from_data(builder, value)

    return array.dtype(array, types.intp), emit


@intrinsic(prefer_literal=True)
def load(typing_context: Any, array: Any, index: Any, lanes: Any) -> Any:
    """``lanes`` entries of a one-dimensional contiguous array from ``index`` on."""
    kind = Vector(array.dtype, lanes.literal_value)

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments, context.get_value_type(kind))
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return kind(array, types.intp, lanes), emit


@intrinsic
def address(typing_context: Any, array: Any, index: Any) -> Any:
    """Address of an entry, a number to reckon with in bytes: an inner loop needs no more than one addition then."""

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments, context.get_data_type(array.dtype))
        return builder.ptrtoint(pointer, context.get_value_type(types.intp))

    return types.intp(array, types.intp), emit


@intrinsic(prefer_literal=True)
def load_from(typing_context: Any, array: Any, address: Any, lanes: Any) -> Any:
    """``lanes`` entries from an ``address`` within an array on."""
    kind = Vector(array.dtype, lanes.literal_value)

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[1], context.get_value_type(kind).as_pointer())
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return kind(array, types.intp, lanes), emit


@intrinsic
def load_like(typing_context: Any, array: Any, index: Any, vector: Any) -> Any:
    """As many entries as a vector has."""

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments, context.get_value_type(vector))
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp, vector), emit


@intrinsic
def store(typing_context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector into a one-dimensional contiguous array from ``index`` on."""
    if not isinstance(vector, Vector) or array.dtype != vector.dtype:
        return None

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments, context.get_value_type(vector))
        builder.store(arguments[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), emit


@intrinsic(prefer_literal=True)
def splat(typing_context: Any, value: Any, lanes: Any) -> Any:
    """A number in every lane."""
    value = types.unliteral(value)
    kind = Vector(value, lanes.literal_value)

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return _splat(builder, context.get_value_type(kind), arguments[0])

    return kind(value, lanes), emit


@intrinsic(prefer_literal=True)
def zeros(typing_context: Any, array: Any, lanes: Any) -> Any:
    """Zeros of the type of an array's entries."""
    kind = Vector(array.dtype, lanes.literal_value)

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(kind), None)

    return kind(array, lanes), emit


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once."""
    if not isinstance(a, Vector) or not a == b == c:
        return None

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        kind = context.get_value_type(a)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.v{a.lanes}f{a.dtype.bitwidth}"
        )
        return builder.call(function, arguments)

    return a(a, a, a), emit


@intrinsic
def select(typing_context: Any, condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, b elsewhere."""
    if not isinstance(a, Vector) or a != b:
        return None

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return a(condition, a, a), emit


@intrinsic
def convert(typing_context: Any, vector: Any, dtype: Any) -> Any:
    """The numbers as another type: widened, cut off at the top, or rounded to the nearest."""
    kind = Vector(dtype.dtype, vector.lanes)

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return _convert(builder, vector.dtype, kind.dtype, arguments[0], context.get_value_type(kind))

    return kind(vector, dtype), emit


@intrinsic
def reinterpret(typing_context: Any, vector: Any, dtype: Any) -> Any:
    """The same bits as numbers of another type, as many as there is room for."""
    kind = Vector(dtype.dtype, vector.lanes * vector.dtype.bitwidth // dtype.dtype.bitwidth)

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(kind))

    return kind(vector, dtype), emit


def picker(lanes: Iterable[int]) -> Any:
    """A function for kernels that makes a vector of some lanes of one: picker((0, 0, 1)) of (a, b) is (a, a, b)."""
    chosen = list(lanes)

    @intrinsic
    def pick(typing_context: Any, vector: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen)
            return builder.shuffle_vector(arguments[0], ir.Constant(arguments[0].type, ir.Undefined), mask)

        return Vector(vector.dtype, len(chosen))(vector), emit

    return pick


@intrinsic
def bits(typing_context: Any, condition: Any) -> Any:
    """A vector of at most 32 conditions as the bits of a number, the first lane the lowest."""

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(condition.lanes)), ir.IntType(32))

    return types.uint32(condition), emit


def _splat(builder: Any, kind: Any, value: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, cgutils.int32_t(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None))


def _convert(builder: Any, before: Any, after: Any, value: Any, kind: Any) -> Any:
    if before == after:
        return value
    if isinstance(before, types.Float):
        if isinstance(after, types.Float):
            return (builder.fptrunc if after.bitwidth < before.bitwidth else builder.fpext)(value, kind)
        return (builder.fptosi if after.signed else builder.fptoui)(value, kind)
    signed = before != types.boolean and before.signed  # a condition counts as 0 or 1
    if isinstance(after, types.Float):
        return (builder.sitofp if signed else builder.uitofp)(value, kind)
    width = 1 if before == types.boolean else before.bitwidth
    if after.bitwidth < width:
        return builder.trunc(value, kind)
    return (builder.sext if signed else builder.zext)(value, kind)
