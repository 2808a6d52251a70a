"""The operators an exported graph may use: torch's own ATen operators on its own tensors, and integer arithmetic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ATEN = re.compile(r"torch\.ops\.aten\.((?!__)\w+|__i?(?:and|or|xor|lshift|rshift)__)\.([A-Za-z]\w*)", re.ASCII)

_PYTHON_OPERATORS = frozenset(
    {f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pos", "pow")}
    | {f"_operator.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_", "getitem")}
    | {f"math.{name}" for name in ("ceil", "floor", "trunc", "sqrt")}
    | {f"torch.sym_{name}" for name in ("int", "float", "max", "min", "not", "sum", "ite", "sqrt")}
)
_HIGHER_ORDER = frozenset(
    f"torch.ops.higher_order.{name}" for name in ["wrap_with_set_grad_enabled", "wrap_with_autocast", "cond"]
)
_REACHING_OUT = re.compile(
    "from_file|save|warn|_print|seed|manual_seed|set_grad_enabled|set_|set_data|resize.*|_resize.*|.*sparse.*"
    "|.*_tensor_unsafe|_unsafe_index_put|_unsafe_masked.*"
)
"""Operators on files, on the state of the process, and on memory without a check of its bounds."""

_TRAINING_FLAGS = {
    **dict.fromkeys(("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), "training"),
    **dict.fromkeys(("dropout", "native_dropout", "feature_dropout", "alpha_dropout"), "train"),
}


def objection(target: str) -> str:
    """Why an operator is not admitted, in words that name it; "" when it is."""
    if match := _ATEN.fullmatch(target):
        return "an operator that reaches outside its tensors" if _REACHING_OUT.fullmatch(match[1]) else ""
    known = target in _PYTHON_OPERATORS or target in _HIGHER_ORDER
    return "" if known else "an operator that is none of torch's own ATen operators"


def trains(node: Mapping[str, Any]) -> bool:
    """Whether a node of a graph computes as in training: batch statistics, dropout."""
    match = _ATEN.fullmatch(node["target"])
    flag = _TRAINING_FLAGS.get(match[1].rstrip("_")) if match else None
    return any(argument["name"] == flag and argument["arg"].get("as_bool") for argument in node["inputs"])
