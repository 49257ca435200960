"""What the nodes of a torch.export graph may call: operations of aten that compute, and arithmetic on sizes."""

from __future__ import annotations

import re
from typing import Any

import torch

from locex_torch_builder.exported.refusal import refuse

_OPERATION = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_ARITHMETIC = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|getitem|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|torch\.sym_(int|float|max|min|not|ite)|math\.(ceil|floor|trunc)"
)
_PRIVATE = {
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "_assert_scalar",
    "_assert_tensor_metadata",
    "_cdist_forward",
    "_embedding_bag",
    "_log_softmax",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_softmax",
    "_to_copy",
    "_unsafe_index",
    "_unsafe_view",
    "_weight_norm",
}
"""Operations of aten that begin with an underscore are internal, and not all of them check what they get."""
_UNSAFE = {"from_file", "set_", "resize_", "resize_as_", "to_mkldnn"}


def check_target(target: Any) -> None:
    """Raise `InvalidModel` for a node's target that is something else."""
    target = str(target)
    if _ARITHMETIC.fullmatch(target):
        return
    found = _OPERATION.fullmatch(target)
    if found is None:
        refuse(f"it calls {target[:80]!r}; only operations of aten are taken")
    name, overload = found.groups()
    private = name.startswith("_") and name not in _PRIVATE and not name.startswith("__")
    operation = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if private or name in _UNSAFE or not isinstance(operation, torch._ops.OpOverload):  # noqa: SLF001 -- its only name
        refuse(f"it calls {target[:80]!r}, which is not among the operations of a model")
