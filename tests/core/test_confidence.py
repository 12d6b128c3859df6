"""How far motion is believed."""

from __future__ import annotations

import pytest
import torch

from comfyui_vdp.vdp_core.image.sample import sample
from comfyui_vdp.vdp_core.motion.confidence import confidence, ground, log_odds
from comfyui_vdp.vdp_core.motion.trajectories import follow
from comfyui_vdp.vdp_core.motion.warp import pixel_grid

HEIGHT, WIDTH = 64, 96
INNER = (..., slice(12, -12), slice(12, -12))


def textured(*, contrast: float = 0.3, shift: float = 0.0) -> torch.Tensor:
    noise = torch.rand(1, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(noise, size=(HEIGHT, WIDTH), mode="bicubic", align_corners=False)
    places = pixel_grid(HEIGHT, WIDTH).movedim(0, -1)[None] + torch.tensor([shift, 0.0])
    return (0.5 + contrast * (sample(fine, places) - 0.5)).clamp(0.0, 1.0)


def flow(dx: float) -> torch.Tensor:
    return torch.tensor([dx, 0.0]).view(1, 2, 1, 1).expand(-1, -1, HEIGHT, WIDTH)


def trust(
    dx: float, *, back: float | None = None, contrast: float = 0.3, gain: float = 1.0, noise: float = 0.0
) -> float:
    """Of a picture that moves two pixels to the right."""
    before, after = textured(contrast=contrast), gain * textured(contrast=contrast, shift=-2.0)
    grain = noise * torch.randn(2, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    ways = torch.cat((flow(dx), flow(-dx if back is None else back)))
    found = confidence(log_odds(ways, ground(torch.cat((before, after)) + grain)), (HEIGHT, WIDTH))
    return float(found[0][INNER].mean())


def test_a_right_vector_is_believed():
    assert trust(2.0) > 0.95


def test_light_that_changes_is_no_doubt():
    assert trust(2.0, gain=0.5) > 0.85


def test_a_vector_that_shows_something_else_is_doubted():
    assert 1.0 - trust(-2.0) > 10.0 * (1.0 - trust(2.0))


def test_a_vector_that_does_not_lead_home_is_not_believed():
    assert trust(2.0, back=2.0) < 0.5


@pytest.mark.parametrize("dx", [0.0, 2.0])
def test_on_plain_ground_nothing_is_sure(dx):
    assert trust(dx, contrast=0.0) < 0.5


def test_noise_alone_is_no_texture():
    doubt = [1.0 - trust(2.0, contrast=contrast, noise=0.01) for contrast in (0.0, 0.3)]
    assert doubt[0] > 3.0 * doubt[1]


def test_a_path_is_believed_as_its_least_sure_vector_while_it_is_seen():
    vectors, none = torch.zeros(3, 2, 16, 16), torch.zeros(3, 16, 16)
    sure = torch.tensor([0.9, 0.5, 0.8]).view(3, 1, 1).expand(3, 16, 16)
    hidden = none.clone()
    hidden[1, 4, 4] = 1.0
    believed = {(start, span): weight for start, span, _, weight in follow(vectors, hidden, sure, (1, 2, 3))}
    assert believed[0, 1][:, 0, 0].tolist() == pytest.approx([0.9, 0.5, 0.8])
    assert believed[0, 2][:, 0, 0].tolist() == pytest.approx([0.5, 0.5])
    assert believed[0, 3][:, 0, 0].tolist() == pytest.approx([0.5])
    assert believed[0, 2][:, 4, 4].tolist() == [0.0, 0.0]
