from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from comfyui_vdp.vdp_core.denoise.coarse import estimate_blocking, visible_blocks, without_blocks


def blocky(level: float, side: int = 8, count: int = 2) -> torch.Tensor:
    """A slope with blocks that differ from it by a deviation of ``level``, each by itself."""
    values = torch.randn(count, 3, 96 // side, 160 // side, generator=torch.Generator().manual_seed(0))
    blocks = F.interpolate(values, scale_factor=side, mode="nearest").movedim(1, -1)
    return torch.linspace(0.1, 0.3, 160)[:, None] + level * blocks


@pytest.mark.parametrize("level", [0.5, 1.0, 1.5])
def test_blocks_are_seen(level):
    assert 0.5 * level < 255 * estimate_blocking(blocky(level / 255)) < 4.0


def test_a_picture_without_blocks_has_none():
    grain = 0.01 * torch.randn(4, 96, 160, 3, generator=torch.Generator().manual_seed(0))
    assert estimate_blocking(blocky(0.0) + grain[:2]) == 0.0
    assert estimate_blocking(torch.zeros(2, 5, 5, 3)) == 0.0


def test_blocks_go_and_edges_stay():
    clean = blocky(0.0)
    clean[:, :, 80:] += 0.3
    seen = blocky(1.0 / 255) - blocky(0.0) + clean
    smooth = without_blocks(seen, 1.0 / 255)
    assert (smooth - clean).square().mean() < 0.4 * (seen - clean).square().mean()
    assert_close(smooth[:, :, 82] - smooth[:, :, 77], clean[:, :, 82] - clean[:, :, 77], atol=0.02, rtol=0)
    assert without_blocks(seen, 0.0) is seen


def test_steps_that_are_all_alike_are_no_blocks():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    ramp = ((x + y) / 255.0)[None, ..., None].expand(2, -1, -1, 3)
    assert estimate_blocking(ramp) == 0.0


def test_blocks_that_texture_hides_are_not_seen():
    blocks = blocky(8.0 / 255)
    texture = 0.3 * torch.rand(2, 96, 160, 1, generator=torch.Generator().manual_seed(1))
    seen = visible_blocks(blocks)
    assert seen > 0.5
    assert visible_blocks(blocks + texture) < 0.5 * seen
    assert visible_blocks(blocky(0.0)) == visible_blocks(torch.zeros(1, 5, 5, 3)) == 0.0
