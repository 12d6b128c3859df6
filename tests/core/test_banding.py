"""Bands of 8 bits: smoothed on ramps, and nothing else touched."""

import torch

from comfyui_vdp.vdp_core.denoise.banding import HALF_STEP, without_bands


def rounded(frames: torch.Tensor) -> torch.Tensor:
    return (frames * 255.0).round() / 255.0


def test_a_ramp_comes_back_between_the_steps():
    ramp = torch.linspace(0.5, 0.6, 600)[None, None, :, None].expand(1, 40, -1, 3)
    steps = rounded(ramp)
    made = without_bands(steps)
    assert float((made - ramp).square().mean()) < 0.1 * float((steps - ramp).square().mean())


def test_no_value_moves_by_more_than_rounding_moved_it():
    generator = torch.Generator().manual_seed(0)
    clip = rounded(torch.rand(2, 60, 80, 3, generator=generator).cumsum(dim=2) / 80.0)
    assert float((without_bands(clip) - clip).abs().max()) <= HALF_STEP + 1e-6


def test_flat_ground_edges_and_texture_stay_as_they_are():
    frame = torch.full((1, 64, 96, 3), 0.4)
    frame[:, :, 48:] = 0.6
    assert torch.allclose(without_bands(frame), frame, atol=1e-6)
    texture = rounded(0.5 + 0.05 * torch.randn(1, 64, 96, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(without_bands(texture), texture)
