"""Programs as pure functions of their parameters, as in `torch.func`."""

from promptgrad.func._functional_call import afunctional_call, functional_call
from promptgrad.func._grad import Grad, grad, grad_and_value
from promptgrad.func._vmap import Vmap, vmap

__all__ = ["Grad", "Vmap", "afunctional_call", "functional_call", "grad", "grad_and_value", "vmap"]
