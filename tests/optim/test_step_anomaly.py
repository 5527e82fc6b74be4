import pytest

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.autograd import AnomalyWarning


def test_a_step_without_gradients_is_an_anomaly():
    program = nn.Predict("question -> answer")
    optimizer = optim.TGD(program.parameters(), lm=pg.lm.Function(lambda messages: "x"))
    with pg.detect_anomaly(), pytest.warns(AnomalyWarning, match="the step changed nothing.*instruction"):
        optimizer.step()
