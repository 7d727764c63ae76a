import pytest
import torch


@pytest.fixture
def layer():
    """A weight (24, 40) and inputs (300, 40) whose channels are correlated and differ in size, as in trained models."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 40, generator=generator)
    mixing = torch.eye(40) + 0.3 * torch.randn(40, 40, generator=generator)
    inputs = torch.randn(300, 40, generator=generator) @ mixing
    return weight, inputs * torch.logspace(-1, 1, 40)[torch.randperm(40, generator=generator)]


@pytest.fixture
def objective(layer):
    """objective(q) -> mean squared error of the layer's outputs on its inputs, from the outputs themselves."""
    weight, inputs = layer

    def mean_error(q):
        return (inputs.double() @ (q.double() - weight.double()).T).square().sum(1).mean().item()

    return mean_error
