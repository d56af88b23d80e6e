"""Array types for annotations: jaxtyping's where it is installed (tests check them), and `Any` where it is not."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key
else:
    try:
        from jaxtyping import Array, Bool, Float, Int, Key
    except ModuleNotFoundError:

        class _Unchecked:
            def __class_getitem__(cls, item):
                return Any

        Bool = Float = Int = Key = _Unchecked
        Array = Any

PyTree = Any

__all__ = ["Array", "Bool", "Float", "Int", "Key", "PyTree"]
