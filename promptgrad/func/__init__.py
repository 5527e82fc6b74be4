"""Programs as pure functions of their parameters, as in `torch.func`; and forwards as functions of single answers."""

from promptgrad.func._counterfactual import Credit, acounterfactual, acredit, counterfactual, credit
from promptgrad.func._functional_call import afunctional_call, functional_call
from promptgrad.func._grad import Grad, grad, grad_and_value
from promptgrad.func._vmap import Vmap, vmap

__all__ = [
    "Credit",
    "Grad",
    "Vmap",
    "acounterfactual",
    "acredit",
    "afunctional_call",
    "counterfactual",
    "credit",
    "functional_call",
    "grad",
    "grad_and_value",
    "vmap",
]
