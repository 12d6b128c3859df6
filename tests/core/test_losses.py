from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from comfyui_vdp.vdp_core.errors import ShapeError, WeightsError
from comfyui_vdp.vdp_core.optim.losses import (
    charbonnier,
    flow_similarity,
    layer_term,
    log_sum,
    mask_binarisation,
    perceptual,
    reconstruction,
    smoothness,
    structure,
    vgg_features,
    warp_term,
)


def pictures(seed: int = 0, size: tuple[int, int] = (16, 24)) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_charbonnier_by_hand_and_in_the_limits():
    # 1 * (sqrt((3/4)^2 + 1) - 1) = 1.25 - 1, times the scale
    assert_close(charbonnier(torch.tensor([0.0, 3.0, -3.0]), 4.0), torch.tensor([0.0, 1.0, 1.0]))
    small, large = torch.tensor(1e-3), torch.tensor(1e3)
    assert float(charbonnier(small, 0.1)) == pytest.approx(float(small) ** 2 / (2 * 0.1), rel=1e-2)
    assert float(charbonnier(large, 0.1)) == pytest.approx(1e3 - 0.1, rel=1e-4)


def test_log_sum_by_hand_and_one_large_value_costs_less_than_many_small_ones():
    values = torch.tensor([0.0, 0.2, 0.2 * (math.e**2 - 1.0)])
    assert_close(log_sum(values, 0.2), torch.tensor([0.0, 0.2 * math.log(2.0), 0.4]))
    assert float(log_sum(torch.full((10,), 0.1), 0.2).sum()) > 2.0 * float(log_sum(torch.tensor(1.0), 0.2))
    assert float(log_sum(torch.tensor(1e-4), 0.2)) == pytest.approx(1e-4, rel=1e-3)


def test_charbonnier_has_a_gradient_at_zero():
    x = torch.zeros(3, requires_grad=True)
    charbonnier(x, 0.1).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


def test_reconstruction_is_a_map():
    a, b = pictures(), pictures(1)
    assert reconstruction(a, a).eq(0).all()
    assert_close(reconstruction(a, b), (a - b).abs())


@pytest.mark.parametrize("size", [(16, 24), (1, 1), (2, 3), (7, 5)])
def test_structure_is_zero_for_a_perfect_answer_at_any_size(size):
    a = pictures(size=size)
    assert_close(structure(a, a), torch.zeros(2), atol=1e-5, rtol=0)


def test_structure_by_hand():
    # even pictures have no gradients; SSIM is (2 a b + 1e-4) / (a^2 + b^2 + 1e-4)
    found = structure(torch.full((1, 3, 8, 8), 0.2), torch.full((1, 3, 8, 8), 0.4))
    assert float(found) == pytest.approx(1 - (0.16 + 1e-4) / (0.2 + 1e-4), abs=1e-4)


def test_structure_grows_with_the_damage_and_judges_each_picture():
    a = pictures()
    grain = torch.randn(a.shape, generator=torch.Generator().manual_seed(5))
    some, more = structure(a + 0.05 * grain, a), structure(a + 0.2 * grain, a)
    assert (some > 0.02).all()
    assert (some < more).all()
    half = a.clone()
    half[0] += 0.2 * grain[0]
    found = structure(half, a)
    assert found[1] < 1e-5
    assert_close(found[0], more[0])


# VGG16, with random weights


@pytest.fixture(scope="module")
def vgg_weights() -> dict[str, torch.Tensor]:
    """A state dict as torchvision's ``vgg16`` has it, as far as it is read."""
    torch.manual_seed(0)
    channels = ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256))
    weights = {}
    for index, inputs, outputs in channels:
        weights[f"features.{index}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        weights[f"features.{index}.bias"] = torch.zeros(outputs)
    return weights | {"classifier.6.bias": torch.zeros(1000)}


def test_vgg_features_are_relu3_3_and_frozen(vgg_weights):
    net = vgg_features(vgg_weights)
    with torch.no_grad():
        found = net(pictures(size=(32, 48)))
    assert found.shape == (2, 256, 8, 12)
    assert found.min() == 0.0
    assert isinstance(net[-1], nn.ReLU)
    assert not net.training
    assert not any(value.requires_grad for value in net.parameters())
    bare = {name.removeprefix("features."): value for name, value in vgg_weights.items()}
    assert torch.equal(vgg_features(bare)[0].weight, vgg_weights["features.0.weight"])


def test_weights_of_another_net_are_refused(vgg_weights):
    other = {**vgg_weights, "features.5.weight": torch.zeros(64, 64, 3, 3)}
    for weights in ({}, {"conv1.weight": torch.zeros(64, 3, 7, 7)}, other):
        with pytest.raises(WeightsError, match=r"do not fit torchvision's vgg16 .*; take torchvision's file"):
            vgg_features(weights)


def test_perceptual_compares_normalised_pictures():
    seen = []

    def features(values: torch.Tensor) -> torch.Tensor:
        seen.append(values)
        return 2 * values

    a, b = pictures(), pictures(1)
    found = perceptual(a, b, features)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    assert_close(found, 2 * (a - b).abs() / deviation)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    assert_close(seen[0], (a - mean) / deviation)
    assert perceptual(a, a, features).eq(0).all()


# along the motion


def test_warp_term_is_zero_along_the_motion_and_leaves_hidden_pixels_out():
    before = pictures()
    now = torch.roll(before, 1, dims=-1)  # content moved one pixel right; the first column came from elsewhere
    backward = torch.zeros(2, 2, 16, 24)
    backward[:, 0] = -1.0
    seen = torch.zeros(2, 16, 24)
    found = warp_term(now, before, backward, seen)
    assert found.shape == now.shape
    assert found[..., 1:].max() < 1e-5
    assert found[..., 0].mean() > 0.1
    hidden = seen.clone()
    hidden[..., 0] = 1.0
    assert warp_term(now, before, backward, hidden).max() < 1e-5
    assert_close(warp_term(now, now + 0.25, torch.zeros_like(backward), 0.5 + seen), torch.full_like(now, 0.125))


def test_warp_term_reaches_both_pictures():
    now, before = pictures().requires_grad_(), pictures(1).requires_grad_()
    warp_term(now, before, torch.zeros(2, 2, 16, 24), torch.zeros(2, 16, 24)).sum().backward()
    assert_close(now.grad, -before.grad)
    assert now.grad.any()


def test_warp_term_refuses_other_sizes():
    with pytest.raises(ShapeError, match="use resize_flow"):
        warp_term(pictures(), pictures(1), torch.zeros(2, 2, 8, 12), torch.zeros(2, 16, 24))


# segmentation


def two_motions() -> tuple[torch.Tensor, torch.Tensor]:
    """Flow pictures ``(1, 3, 8, 12)``, red on the left and blue on the right, and the mask of the left."""
    flow = torch.zeros(1, 3, 8, 12)
    flow[:, 0, :, :6], flow[:, 2, :, 6:] = 1.0, 1.0
    left = torch.zeros(1, 1, 8, 12)
    left[..., :6] = 1.0
    return flow, left


def test_flow_similarity_by_hand():
    flow, left = two_motions()
    upper = torch.zeros_like(left)
    upper[:, :, :4] = 1.0
    assert flow_similarity(flow, left, 1 - left).tolist() == [0.0]  # nothing in common
    assert_close(flow_similarity(flow, upper, 1 - upper), torch.ones(1))  # half and half in both
    # three quarters of the left, which leaves a quarter red: (3, 0) against (1, 4)
    part = left.clone()
    part[:, :, :2] = 0.0
    assert_close(flow_similarity(flow, part, 1 - part), torch.tensor([1 / 17**0.5]))
    assert_close(flow_similarity(flow, 0.5 * left, 1 - left), torch.zeros(1))


def test_flow_similarity_of_features_is_one_cosine_a_picture():
    flow, left = two_motions()
    seen = []

    def features(values: torch.Tensor) -> torch.Tensor:
        seen.append(values)
        return values

    found = flow_similarity(flow.repeat(3, 1, 1, 1), left, 1 - left, features)
    assert found.shape == (3,)
    first, second = (values[0].flatten() for values in seen)
    assert_close(found[0], first @ second / (first.norm() * second.norm()))
    assert_close(seen[0][0, :, 0, -1], -torch.tensor([0.485, 0.456, 0.406]) / torch.tensor([0.229, 0.224, 0.225]))


def test_separating_the_motions_lowers_flow_similarity():
    flow, left = two_motions()
    mask = (0.5 + 0.1 * left).requires_grad_()
    flow_similarity(flow, mask, 1 - mask).sum().backward()
    assert (mask.grad[..., :6] < 0).all()
    assert (mask.grad[..., 6:] > 0).all()


def test_the_layer_term_judges_each_picture_inside_its_mask():
    frames = pictures()
    masks = torch.zeros(2, 2, 16, 24)
    masks[:, 0, :, :10], masks[:, 1, :, 10:] = 1.0, 1.0
    layers = torch.stack((frames.clone(), frames.clone()), dim=1)
    layers[:, 0, :, :, 10:] += 5.0  # outside their masks anything goes
    layers[:, 1, :, :, :10] -= 5.0
    assert layer_term(masks, layers, frames).eq(0).all()
    layers[:, 0, :, :, :10] += 0.25
    found = layer_term(masks, layers, frames)
    assert found.shape == frames.shape
    assert_close(found[..., :10], torch.full((2, 3, 16, 10), 0.25))
    assert found[..., 10:].eq(0).all()
    assert_close(layer_term(0.5 * masks, layers, frames), 0.5 * found)


def test_mask_binarisation_by_hand():
    mask = torch.zeros(3, 2, 4, 4)
    mask[0, 0], mask[1], mask[2] = 1.0, 0.25, 0.5
    assert mask_binarisation(mask).tolist() == [2.0, 4.0, pytest.approx(1000.0)]


# evenness


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_waviness_is_zero_on_ramps_and_counts_bends(dim):
    ramp = torch.arange(6.0).view([6 if axis == dim else 1 for axis in range(3)]).expand(6, 6, 6)
    assert smoothness(ramp, dim).eq(0).all()
    assert smoothness(torch.full((6, 6, 6), 0.7), dim).eq(0).all()
    assert smoothness(ramp.square(), dim).eq(4).all()  # the second difference of x^2 is 2
    for other in {0, 1, 2} - {dim}:
        assert smoothness(ramp.square(), other).eq(0).all()


def test_waviness_of_fewer_than_three_is_zero():
    assert smoothness(torch.rand(2, 5, 5), 0).tolist() == [0.0]
