"""Keys of green and blue screens: cases worked by hand, what holds of any, and rendered clips whose truth is known."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.edit.key_screen import check_screen, key_screen
from comfyui_vdp.vdp_core.errors import InputError, ShapeError
from comfyui_vdp.vdp_core.image.colour import colour_of
from comfyui_vdp.vdp_core.image.foreground import foreground_colours
from comfyui_vdp.vdp_core.image.keying import find_colour, find_plate, key_picture, share_of_hue
from comfyui_vdp.vdp_core.image.laplacian import solve_band
from comfyui_vdp.vdp_core.image.resize import resize
from comfyui_vdp.vdp_core.metrics import mad
from comfyui_vdp.vdp_core.models.masks import matte_and_colours

GREEN, BLUE = torch.tensor([0.16, 0.62, 0.24]), torch.tensor([0.12, 0.26, 0.66])
COUNT, HEIGHT, WIDTH = 3, 90, 120


def texture(seed: int, height: int, width: int) -> torch.Tensor:
    """Smooth noise ``(height, width)`` around 0."""
    noise = torch.randn(1, 1, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return resize(noise, (height, width), mode="bicubic")[0, 0]


def rendered(
    screen: torch.Tensor, own: tuple[float, float, float] = (0.6, 0.5, 0.45), spill: float = 0.0, noise: float = 0.008
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames, alpha, colours without spill and the screen, of a soft disc before a wrinkled, unevenly lit screen."""
    y, x = torch.meshgrid(torch.arange(HEIGHT).float(), torch.arange(WIDTH).float(), indexing="ij")
    draw = torch.Generator().manual_seed(0)
    frames, alphas, screens = [], [], []
    colours = torch.tensor(own) * (1.0 + 0.15 * texture(1, HEIGHT, WIDTH)[..., None])
    for index in range(COUNT):
        light = 0.75 + 0.3 * x / WIDTH + 0.1 * y / HEIGHT + 0.04 * torch.sin(x / 7.0 + y / 11.0) + 0.02 * index
        behind = light[..., None] * screen
        distance = ((x - 55.0 - 3.0 * index).square() + (y - 46.0).square()).sqrt()
        alpha = ((24.0 - distance) / 4.0 + 0.5).clamp(0.0, 1.0)[..., None]
        lit = colours + spill * torch.exp(-(26.0 - distance).clamp_min(0.0) / 6.0)[..., None] * screen
        frame = alpha * lit + (1.0 - alpha) * behind
        frame = frame + noise * torch.randn(frame.shape, generator=draw)
        frames.append((frame.clamp(0.0, 1.0) * 255.0).round() / 255.0)
        alphas.append(alpha[..., 0])
        screens.append(behind)
    return torch.stack(frames), torch.stack(alphas), colours.expand(COUNT, -1, -1, -1), torch.stack(screens)


def test_of_green_and_grey_mixed_the_share_is_that_of_green():
    green, grey = torch.tensor([0.1, 0.7, 0.1]).view(3, 1, 1), torch.full((3, 1, 1), 0.4)
    colour = green.flatten()
    # of (0.1, 0.7, 0.1) the chroma is (-0.2, 0.4, -0.2), of length 0.6 * sqrt(2 / 3)
    assert_close(share_of_hue(green, colour), torch.full((1, 1), 0.6 * (2.0 / 3.0) ** 0.5))
    assert_close(share_of_hue(grey, colour), torch.zeros(1, 1), atol=1e-6, rtol=0.0)
    mixed = 0.25 * green + 0.75 * grey
    assert_close(share_of_hue(mixed, colour), 0.25 * share_of_hue(green, colour))
    for hue in ([0.7, 0.7, 0.1], [0.1, 0.7, 0.7]):  # 60 degrees to either side: yellow and cyan
        assert_close(share_of_hue(torch.tensor(hue).view(3, 1, 1), colour), torch.zeros(1, 1), atol=1e-6, rtol=0.0)
    assert float(share_of_hue(torch.tensor([0.8, 0.1, 0.1]).view(3, 1, 1), colour)) < 0.0


def test_a_half_covered_edge_is_half_and_has_the_colour_of_the_object():
    own = torch.tensor([0.7, 0.4, 0.4])
    picture = GREEN.view(3, 1, 1).expand(3, 40, 60).clone()
    picture[:, :, 30:] = own.view(3, 1, 1)
    picture[:, :, 29] = 0.5 * (own + GREEN).view(3, 1)
    alpha, colours = key_picture(picture, GREEN)
    assert_close(alpha[:, 29], torch.full((40,), 0.5), atol=0.02, rtol=0.0)
    assert float(alpha[:, :28].max()) == 0.0
    assert float(alpha[:, 31:].min()) == 1.0
    assert_close(colours[:, :, 29:], own.view(3, 1, 1).expand(3, 40, 31), atol=0.03, rtol=0.0)
    assert float(colours[:, :, :28].max()) == 0.0


def test_with_a_known_background_the_foreground_is_exact():
    front, behind = torch.tensor([0.8, 0.3, 0.1]), torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha = torch.linspace(0.2, 1.0, 8).expand(8, 8)
    picture = alpha * front.view(3, 1, 1) + (1.0 - alpha) * behind
    found, back = foreground_colours(picture, alpha, behind)
    assert_close(found, front.view(3, 1, 1).expand(3, 8, 8), atol=2e-3, rtol=0.0)
    assert torch.equal(back, behind)


def test_alpha_in_pieces_keeps_the_target_where_there_is_no_band():
    picture, target = torch.rand(3, 20, 24), torch.rand(20, 24)
    assert torch.equal(solve_band(picture, target, torch.ones(20, 24), torch.zeros(20, 24)), target)


@pytest.mark.parametrize("screen", [GREEN, BLUE, torch.tensor([0.6, 0.15, 0.5])], ids=["green", "blue", "magenta"])
def test_a_screen_that_is_lit_unevenly_goes_and_the_object_stays(screen):
    frames, alpha, colours, _ = rendered(screen)
    layers = key_screen(frames, screen="160, 48, 144" if screen[0] > 0.5 else "auto")
    matte, own = matte_and_colours(layers)
    assert matte.shape == alpha.shape
    assert mad(matte, alpha) < 0.004
    assert float(matte[alpha == 0.0].mean()) < 1e-3
    assert float(matte[alpha == 1.0].mean()) > 0.999
    mixed = (alpha > 0.2) & (alpha < 0.8)
    assert float((own - colours)[mixed].abs().mean()) < 0.05
    assert float(own[matte == 0.0].max()) == 0.0


def test_the_screens_light_on_the_object_goes():
    frames, alpha, colours, _ = rendered(GREEN, spill=0.25)
    matte, own = matte_and_colours(key_screen(frames))
    assert mad(matte, alpha) < 0.004
    seen = alpha > 0.1
    green = own[..., 1] - own[..., ::2].amax(dim=-1)
    given = frames[..., 1] - frames[..., ::2].amax(dim=-1)
    assert float(given[seen].clamp_min(0.0).mean()) > 0.02
    assert float(green[seen].clamp_min(0.0).mean()) < 0.002
    assert float((own - colours)[alpha == 1.0].abs().mean()) < 0.02


def test_an_object_of_another_green_stays():
    frames, alpha, colours, _ = rendered(GREEN, own=(0.3, 0.42, 0.12))
    matte, own = matte_and_colours(key_screen(frames))
    inside = alpha == 1.0
    assert float(matte[inside].mean()) > 0.98
    assert float((own - colours)[inside].abs().mean()) < 0.06


def test_the_plate_is_the_screen_where_it_is_seen_and_smooth_behind_the_object():
    frames, alpha, _, screens = rendered(GREEN, noise=0.0)
    plate, may_be = find_plate(frames[0].movedim(-1, 0).contiguous(), GREEN)
    difference = (plate.movedim(0, -1) - screens[0]).abs()
    assert float(difference[alpha[0] == 0.0].mean()) < 0.01
    assert float(difference[alpha[0] > 0.0].mean()) < 0.04
    assert float(may_be[alpha[0] == 1.0].max()) == 0.0


def test_brightness_scales_nothing_but_colours():
    frames, _, _, _ = rendered(GREEN, noise=0.0)
    picture = frames[0].movedim(-1, 0)
    bright, dark = key_picture(picture, GREEN)[0], key_picture(0.7 * picture, 0.7 * GREEN)[0]
    assert float((bright - dark).abs().mean()) < 2e-3


def test_each_frame_is_found_by_itself():
    frames, _, _, _ = rendered(GREEN)
    whole, _ = matte_and_colours(key_screen(frames, screen="green"))
    picture = frames[1].movedim(-1, 0).contiguous()
    colour = colour_of(key_screen(frames).info["screen"])
    assert float((key_picture(picture, colour)[0] - whole[1]).abs().mean()) < 1e-3


def test_the_colour_of_a_screen_is_found_beside_other_colours():
    picture = GREEN.view(1, 3, 1, 1).expand(1, 3, 40, 40).clone()
    picture[..., :10, :] = torch.tensor([0.5, 0.55, 0.2]).view(3, 1, 1)
    picture[..., 10:18, :] = 0.4
    colour, area = find_colour(picture, torch.tensor([0.0, 1.0, 0.0]))
    assert_close(colour, GREEN, atol=0.01, rtol=0.0)
    assert area == pytest.approx(22 / 40)


def test_a_clip_of_nothing_but_screen_is_empty():
    frames = GREEN.expand(2, 40, 60, 3) + 0.01 * torch.randn(2, 40, 60, 3, generator=torch.Generator().manual_seed(0))
    matte, colours = matte_and_colours(key_screen(frames.clamp(0.0, 1.0)))
    assert float(matte.mean()) < 1e-3
    assert float(colours.mean()) < 1e-3


def test_a_frame_that_the_object_fills_has_no_screen():
    frames, _, _, _ = rendered(GREEN)
    frames[1] = torch.tensor([0.6, 0.5, 0.45])
    matte, colours = matte_and_colours(key_screen(frames))
    assert float(matte[1].min()) == 1.0
    assert_close(colours[1], frames[1], atol=2e-3, rtol=0.0)


def test_what_cannot_be_keyed_is_refused():
    grey = torch.full((2, 32, 32, 3), 0.5)
    with pytest.raises(InputError, match="no green or blue screen is seen"):
        key_screen(grey)
    with pytest.raises(InputError, match="no blue screen is seen"):
        key_screen(GREEN.expand(2, 32, 32, 3), screen="blue")
    with pytest.raises(InputError, match="is no colour"):
        check_screen("greenish")
    with pytest.raises(InputError, match="too grey"):
        check_screen("#808080")
    with pytest.raises(ShapeError):
        key_screen(torch.zeros(2, 8, 8, 3))
