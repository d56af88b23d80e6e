"""Array types for annotations: jaxtyping's where it is installed (tests check them), and `Any` where it is not."""

from typing import TYPE_CHECKING, Any

Array = Any  # JAX's and NumPy's arrays and shapes without values alike

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Key, UInt
else:
    try:
        from jaxtyping import Bool, Float, Int, Key, UInt
    except ModuleNotFoundError:

        class _Unchecked:
            def __class_getitem__(cls, item):
                return Any

        Bool = Float = Int = Key = UInt = _Unchecked

PyTree = Any

__all__ = ["Array", "Bool", "Float", "Int", "Key", "PyTree", "UInt"]
