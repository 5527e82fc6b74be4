"""Language models: the protocol, the transports that reach a model, and the layers around them."""

from promptgrad.lm._base import LM
from promptgrad.lm._completion import Completion, Usage
from promptgrad.lm._request import EMPTY_PREFIX, Message, Prefix, Request

__all__ = ["EMPTY_PREFIX", "LM", "Completion", "Message", "Prefix", "Request", "Usage"]
