"""A mend of tf_keras' Nadam, to be mixed into it.

It counts in a Python number whether a step has multiplied its momentum schedule already: right step by step, but in a
traced function the number stands still, so that the product is multiplied once per weight, as often as was traced.
Nor are product and number among the optimizer's variables, which outlive a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class _Nadam:
        """What the mixin uses of tf_keras' Nadam."""

        def build(self, var_list: Any) -> None: ...
        def add_variable(self, shape: Any, dtype: Any = None, initializer: str = "zeros", name: str = "") -> Any: ...

else:
    _Nadam = object


class SteadyNadam(_Nadam):
    """Multiplies once per step, traced or not, as Keras 3's does."""

    def build(self, var_list: Any) -> None:
        """Make the variables, product and count among them."""
        super().build(var_list)
        if not hasattr(self, "_counted"):
            self._u_product = self.add_variable((), initializer="ones", name="u_product")
            self._counted = self.add_variable((), dtype="int64", initializer="ones", name="u_product_counter")
            self._u_product_counter = _Counter(self._counted)


class _Counter:
    """A variable that counts with ``+=`` inside a traced function."""

    def __init__(self, variable: Any) -> None:
        self._variable = variable

    def __eq__(self, other: object) -> Any:
        return self._variable.read_value() == other

    __hash__ = None  # type: ignore[assignment]

    def __iadd__(self, number: int) -> _Counter:  # noqa: PYI034 -- nobody derives from it
        self._variable.assign_add(number)
        return self
