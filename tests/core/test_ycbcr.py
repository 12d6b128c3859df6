from __future__ import annotations

import numpy as np
import pytest

from comfyui_vdp.vdp_core.media import ycbcr


def test_known_code_values():
    # BT.709-6 table 4 and BT.601: limited-range 8-bit white, black and pure red
    encode = ycbcr.encode_matrix(1, bits=8, full=False)
    assert encode @ [1, 1, 1, 1] == pytest.approx([235, 128, 128], abs=1e-3)
    assert encode @ [0, 0, 0, 1] == pytest.approx([16, 128, 128], abs=1e-3)
    assert np.rint(encode @ [1, 0, 0, 1]) == pytest.approx([63, 102, 240])
    assert np.rint(ycbcr.encode_matrix(6, bits=8, full=False) @ [1, 0, 0, 1]) == pytest.approx([81, 90, 240])
    # ten bits, full range
    assert ycbcr.encode_matrix(9, bits=10, full=True) @ [1, 1, 1, 1] == pytest.approx([1023, 512, 512], abs=1e-2)


@pytest.mark.parametrize("matrix", sorted(ycbcr.MATRICES))
@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("full", [False, True])
def test_decode_undoes_encode(matrix, bits, full):
    rgb = np.random.default_rng(0).random((4, 50))
    rgb[3] = 1
    codes = ycbcr.encode_matrix(matrix, bits=bits, full=full).astype(np.float64) @ rgb
    back = ycbcr.decode_matrix(matrix, bits=bits, full=full).astype(np.float64) @ np.vstack([codes, np.ones(50)])
    assert np.abs(back - rgb[:3]).max() < 1e-4


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1), (2, 1)])
@pytest.mark.parametrize("subsampled", [False, True])
def test_flat_colour_survives_the_planes(size, subsampled):
    rgb = np.broadcast_to(np.array([0.9, 0.2, 0.1], np.float32), (size[1], size[0], 3)).copy()
    planes = ycbcr.rgb_to_planes(
        rgb, encode=ycbcr.encode_matrix(1, bits=10, full=False), bits=10, subsampled=subsampled
    )
    out = np.empty_like(rgb)
    ycbcr.planes_to_rgb(*planes, decode=ycbcr.decode_matrix(1, bits=10, full=False), left=True, out=out)
    assert np.abs(out - rgb).max() < 2e-3
    if subsampled:
        assert planes[1].shape == ((size[1] + 1) // 2, (size[0] + 1) // 2)


def test_chroma_stays_in_place():
    # A colour ramp across the picture comes back where it was; read with the other siting it moves by half a pixel.
    ramp = np.linspace(0.3, 0.7, 32, dtype=np.float32)
    rgb = np.stack(
        [np.broadcast_to(ramp, (16, 32)), np.full((16, 32), 0.5, np.float32), 1 - np.broadcast_to(ramp, (16, 32))], -1
    )
    rgb = np.ascontiguousarray(rgb)
    planes = ycbcr.rgb_to_planes(rgb, encode=ycbcr.encode_matrix(1, bits=16, full=True), bits=16, subsampled=True)
    decode = ycbcr.decode_matrix(1, bits=16, full=True)
    left, centre = np.empty_like(rgb), np.empty_like(rgb)
    ycbcr.planes_to_rgb(*planes, decode=decode, left=True, out=left)
    ycbcr.planes_to_rgb(*planes, decode=decode, left=False, out=centre)
    inside = slice(4, -4)
    assert np.abs(left - rgb)[:, inside].max() < 1e-3
    assert np.abs(centre - rgb)[:, inside].max() > 4e-3
    # and shrunk to half, each pixel is the mean of its four
    small = np.empty((8, 16, 3), np.float32)
    ycbcr.planes_to_rgb(*planes, decode=decode, left=True, out=small)
    means = rgb.reshape(8, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(small - means)[:, 2:-2].max() < 1e-3


def test_shrinking_keeps_what_lies_between_integers():
    picture = np.array([[10, 11], [11, 11]], np.uint8)
    assert ycbcr.average_over_areas(picture, 1, 1).item() == pytest.approx(10.75)
