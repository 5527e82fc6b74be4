"""Text that remembers, parameters, the tape, and the backward pass."""

from promptgrad.autograd._critic import RIGHT, Critic, NodeFailure, Target, WeightTrace
from promptgrad.autograd._edges import Edge, Output, edges
from promptgrad.autograd._engine import BackwardReport, Skipped
from promptgrad.autograd._gradient import Critique, Gradient, Trace
from promptgrad.autograd._graph import Graph, graph
from promptgrad.autograd._loss import Loss
from promptgrad.autograd._loss_row import LossRow
from promptgrad.autograd._mode import enable_grad, inference_mode, is_grad_enabled, no_grad
from promptgrad.autograd._node import AccumulateGrad, GradFn, Join, Node, Read
from promptgrad.autograd._parameter import Parameter, candidate
from promptgrad.autograd._tape import ReadLog, Tape, current_tape, record_reads
from promptgrad.autograd._text import Text, attach

__all__ = [
    "RIGHT",
    "AccumulateGrad",
    "BackwardReport",
    "Critic",
    "Critique",
    "Edge",
    "GradFn",
    "Gradient",
    "Graph",
    "Join",
    "Loss",
    "LossRow",
    "Node",
    "NodeFailure",
    "Output",
    "Parameter",
    "Read",
    "ReadLog",
    "Skipped",
    "Tape",
    "Target",
    "Text",
    "Trace",
    "WeightTrace",
    "attach",
    "candidate",
    "current_tape",
    "edges",
    "enable_grad",
    "graph",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "record_reads",
]
