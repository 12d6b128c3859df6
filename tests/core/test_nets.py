from __future__ import annotations

import pytest
import torch

from comfyui_vdp.vdp_core.nets.unet import UNet, alpha_net, rgb_net


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(("net", "channels"), [(rgb_net, 3), (alpha_net, 1)])
@pytest.mark.parametrize("size", [(8, 8), (9, 17), (31, 8), (32, 48)])
def test_any_size_from_8x8_on(net, channels, size):
    out = net()(torch.rand(2, 3, *size))
    assert out.shape == (2, channels, *size)
    assert 0.0 < out.min() < out.max() < 1.0


@pytest.mark.parametrize("net", [rgb_net, alpha_net])
def test_gradients_reach_every_parameter(net):
    net = net()
    net(torch.rand(2, 3, 16, 24)).square().mean().backward()
    unreached = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()]
    # a bias in front of batch normalisation is taken out again by it
    assert [name for name in unreached if not name.endswith("0.bias")] == []


def test_widths_are_the_callers_choice():
    net = UNet(5, 2, widths=(4, 6, 8, 10, 10, 8, 6, 4))
    assert net(torch.rand(1, 5, 16, 16)).shape == (1, 2, 16, 16)
    assert sum(value.numel() for value in net.parameters()) < 8000


def test_the_same_seed_gives_the_same_net():
    torch.manual_seed(3)
    first = rgb_net()
    torch.manual_seed(3)
    for a, b in zip(first.parameters(), rgb_net().parameters(), strict=True):
        assert torch.equal(a, b)
