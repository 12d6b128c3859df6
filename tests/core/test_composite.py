from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from comfyui_vdp.vdp_core.edit.composite import clean_plate, composite
from comfyui_vdp.vdp_core.edit.layers import add_background, cut_out, edit, layer_numbers, replace_layer, split_layer
from comfyui_vdp.vdp_core.errors import InputError, LayersFileError, ShapeError
from comfyui_vdp.vdp_core.image.colour import to_display, to_linear
from comfyui_vdp.vdp_core.media import clip as clip_module
from comfyui_vdp.vdp_core.media import video_file
from comfyui_vdp.vdp_core.media.clip import read_clip, write_clip
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.models.masks import MODEL as MASKS
from comfyui_vdp.vdp_core.motion import background as behind
from comfyui_vdp.vdp_core.motion.warp import resize_flow
from comfyui_vdp.vdp_core.store import lazy as frames_module
from comfyui_vdp.vdp_core.store import scratch
from comfyui_vdp.vdp_core.store.lazy import LazyFrames
from comfyui_vdp.vdp_core.store.scratch import Scratch
from comfyui_vdp.vdp_core.types import Edit, Layers

COUNT, HEIGHT, WIDTH = 6, 96, 160
GREEN = torch.tensor([0.1, 0.8, 0.2])


@pytest.fixture(scope="module")
def clip(synthetic):
    return synthetic.layered(COUNT, HEIGHT, WIDTH, crossing=True, seed=2, soft=2.0)


@pytest.fixture(scope="module")
def layers(clip) -> Layers:
    before, after = behind.track_background(clip.masks[:, 0], clip.flow)
    return Layers("segment", {"masks": clip.masks, "before": before, "after": after}, clip.frames, clip.flow)


@pytest.fixture(scope="module")
def plain(layers) -> tuple[torch.Tensor, torch.Tensor]:
    """Untouched layers put together again: frames and mask."""
    return composite(layers)


@pytest.fixture(scope="module")
def seen(clip, layers) -> torch.Tensor:
    """Pixels of objects whose background some frame saw."""
    found = (layers.fields["before"][:, 2] > 0) | (layers.fields["after"][:, 2] > 0)
    return found & (clip.masks[:, 0] < 0.5)


def deep(mask: torch.Tensor) -> torch.Tensor:
    """Where masks ``(T, H, W)`` are 1, some pixels from their borders."""
    return F.max_pool2d((mask < 0.999).float()[:, None], 11, 1, 5)[:, 0] == 0


def error(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor) -> float:
    """PSNR in some pixels."""
    return float(-10 * (a - b)[where].square().mean().log10())


# together again


def test_untouched_layers_give_the_clip_back(clip, layers, plain):
    frames, mask = plain
    assert psnr(frames, clip.frames) > 45
    assert float((mask - (1 - clip.masks[:, 0])).abs().mean()) < 0.003
    assert torch.equal(MASKS.compose(layers, 3, 5, layers.frames[3:5]), frames[3:5])
    assert frames.dtype == mask.dtype == torch.float32
    assert float(frames.min()) >= 0 and float(frames.max()) <= 1


def test_untouched_layers_do_so_in_linear_light(clip, layers):
    assert psnr(composite(layers, linear_light=True)[0], clip.frames) > 40


def test_long_clips_are_computed_when_they_are_looked_at(layers, monkeypatch):
    changed = edit(layers, "1", Edit(visibility=0.5, offset=(3.0, 0.0)))
    haze = {"transmission": layers.fields["masks"][:, :1], "airlight": torch.full((COUNT, 3, 1, 1), 0.8)}
    hazy = Layers("dehaze", haze, layers.frames)
    makers = [partial(composite, changed), *(partial(split_layer, one, 1) for one in (layers, hazy))]
    whole = [make() for make in makers]
    monkeypatch.setattr(frames_module, "fits_in_memory", lambda size: False)
    for make, (colours, masks) in zip(makers, whole, strict=True):
        lazy_colours, lazy_masks = make()
        assert isinstance(lazy_colours, LazyFrames) and isinstance(lazy_masks, LazyFrames)
        assert torch.equal(lazy_colours[3:5], colours[3:5])
        assert torch.equal(lazy_colours + 0, colours)
        assert torch.equal(lazy_masks + 0, masks)


def test_the_background_of_a_long_clip_is_filled_without_decoding_it_again(tmp_path, monkeypatch):
    """An object that is wide and slow: its background is seen up to thirty frames away, before and after."""
    count, height, width = 130, 48, 96
    picture = torch.rand(1, 3, height, width + count, generator=torch.Generator().manual_seed(1))
    picture = F.avg_pool2d(picture, 5, 1, 2)[0].movedim(0, -1)
    pan = torch.stack([picture[:, index : index + width] for index in range(count)])
    path = write_clip(tmp_path / "pan", pan, fps=25)
    monkeypatch.setattr(clip_module, "fits_in_memory", lambda size: False)
    frames = read_clip(path).frames
    assert isinstance(frames, LazyFrames)
    masks, nowhere = torch.zeros(count, 2, 24, 48), torch.zeros(count, 3, 24, 48)
    masks[:, 1, 8:16, 9:39] = 1.0
    masks[:, 0] = 1.0 - masks[:, 1]
    before, after = nowhere.clone(), nowhere.clone()
    away = torch.arange(1.0, 31.0)
    before[40:90, 2, 8:16, 9:39], after[40:90, 2, 8:16, 9:39] = away, away.flip(0)
    layers = edit(Layers("segment", {"masks": masks, "before": before, "after": after}, frames), "1", Edit(0.0))
    decoded, read, given = video_file._decoded, Scratch.frame, Counter[str]()

    def decoding(*settings):
        for frame in decoded(*settings):
            given["decoded"] += 1
            yield frame

    def reading(self, index):
        given["read"] += 1
        return read(self, index)

    monkeypatch.setattr(video_file, "_decoded", decoding)
    monkeypatch.setattr(Scratch, "frame", reading)
    for index in range(45, 55):
        assert clean_plate(layers, index, index + 1).shape == (1, height, width, 3)
    assert given["decoded"] == 0
    assert given["read"] <= 10 * (1 + 2 * 30)
    # with room for no more than a few dozen frames past the beginning
    monkeypatch.setattr(scratch, "scratch_free", lambda: scratch.SHARE * 80 * height * width * 6)
    layers = replace(layers, frames=read_clip(path).frames)
    given.clear()
    for index in range(40, 90):
        clean_plate(layers, index, index + 1)
    assert 0 < given["decoded"] < 3 * 50


@pytest.mark.parametrize("still", [True, False])
def test_pictures_that_are_changed_on_their_way_in_are_not_laid_out(clip, layers, monkeypatch, still):
    """A background of another size, and colours over black: what long clips give is the same, made when looked at."""
    mask = clip.masks[: 1 if still else None, 1]

    def changed(frames: torch.Tensor) -> list[torch.Tensor]:
        background = add_background(layers, frames[:, :-8]).pictures["colour_0"]
        return [background, cut_out(frames, mask, premultiplied=True).pictures["colour_1"]]

    wanted = changed(clip.frames)
    monkeypatch.setattr(frames_module, "fits_in_memory", lambda size: False)
    monkeypatch.setattr(frames_module, "AT_ONCE", 0)
    monkeypatch.setattr(frames_module, "large_empty", None)  # what lays a clip out
    long = LazyFrames.over(lambda first: (frame[None] for frame in clip.frames[first:]), tuple(clip.frames.shape))
    for found, whole in zip(changed(long), wanted, strict=True):
        assert isinstance(found, LazyFrames)
        assert torch.equal(torch.stack(list(found)), whole)


def test_paths_that_lead_nowhere_are_no_paths(layers):
    nowhere = {name: torch.zeros_like(layers.fields[name]) for name in ("before", "after")}
    without = replace(layers, fields={"masks": layers.fields["masks"]})
    assert torch.equal(
        clean_plate(replace(layers, fields={**layers.fields, **nowhere}), 2, 4), clean_plate(without, 2, 4)
    )


def test_how_frames_lie_in_memory_does_not_matter(layers, plain):
    strided = replace(layers, frames=layers.frames.transpose(1, 2).contiguous().transpose(1, 2))
    assert torch.equal(composite(strided)[0], plain[0])
    assert torch.equal(split_layer(strided, 1)[0], split_layer(layers, 1)[0])
    assert torch.equal(clean_plate(strided, 0, 2), clean_plate(layers, 0, 2))


def test_the_source_is_not_changed(clip, layers):
    before = clip.frames.clone()
    changed = edit(edit(layers, "objects", Edit(0.5, 1.0, 0.2)), "background", Edit(gain=-1.0))
    composite(changed)
    changed = replace_layer(changed, 1, torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0)))
    picture = changed.pictures["colour_1"].clone()
    composite(changed)
    assert torch.equal(clip.frames, before)
    assert torch.equal(changed.pictures["colour_1"], picture)


def test_untouched_ignores_edits_and_pictures(layers):
    changed = add_background(edit(layers, "objects", Edit(visibility=0.0)), torch.ones(1, 4, 4, 3))
    assert torch.equal(*(MASKS.compose(one, 0, 1, layers.frames[:1]) for one in (changed, layers)))


# the background


def test_a_removed_object_leaves_the_background(clip, layers, seen):
    frames, mask = composite(edit(layers, "objects", Edit(visibility=0.0)))
    assert error(frames, clip.background, seen) > 35
    assert not bool(mask.any())
    assert torch.equal(frames, clean_plate(layers, 0, COUNT).clamp(0, 1))


def test_the_background_keeps_what_is_seen(clip, layers):
    far = F.max_pool2d(1 - clip.masks[:, :1], 13, 1, 6)[:, 0] == 0
    assert torch.equal(clean_plate(layers, 0, COUNT)[far], clip.frames[far])


def test_what_no_frame_saw_is_filled_smoothly(clip):
    alone = Layers("segment", {"masks": clip.masks}, clip.frames)
    filled = clean_plate(alone, 1, 2)[0]
    inside = clip.masks[1, 0] < 0.01
    assert bool(filled.isfinite().all())
    assert float(filled[inside].std(dim=0).mean()) < 0.5 * float(clip.background[1][inside].std(dim=0).mean())


def test_masks_and_paths_may_be_smaller_than_the_frames(synthetic):
    big = synthetic.layered(COUNT, 2 * HEIGHT + 6, 2 * WIDTH - 14, crossing=True, seed=2, soft=2.0)
    small = F.interpolate(big.masks, size=(HEIGHT, WIDTH), mode="area")
    before, after = behind.track_background(small[:, 0], resize_flow(big.flow, (HEIGHT, WIDTH)))
    layers = Layers("segment", {"masks": small, "before": before, "after": after}, big.frames, big.flow)
    found = ((before[:, 2:] > 0) | (after[:, 2:] > 0)).float()
    seen = F.interpolate(found, size=big.frames.shape[1:3])[:, 0] * (1 - big.masks[:, 0]) > 0.5
    assert error(composite(edit(layers, "objects", Edit(visibility=0.0)))[0], big.background, seen) > 30


def test_one_object_alone_is_removed(clip, layers):
    frames, mask = composite(edit(layers, "1", Edit(visibility=0.0)))
    front = clip.masks[:, 2]
    assert error(frames, clip.frames, front > 0.99) > 50
    assert float((mask - front).abs().mean()) < 0.003
    gone = clip.masks[:, 1] > 0.99
    assert float((frames - clip.frames)[gone].abs().mean()) > 0.1


def test_the_object_behind_shows_through_a_dimmed_one(clip, layers):
    solid = composite(edit(layers, "2", Edit(visibility=0.0)))[0]
    dimmed = composite(edit(layers, "2", Edit(visibility=0.25)))[0]
    front = clip.masks[:, 2] > 0.99
    assert_close(dimmed[front], (0.75 * solid + 0.25 * clip.frames)[front], atol=1e-3, rtol=0)


# sliders


def test_background_dims_and_greys(clip, layers):
    apart, inside = deep(clip.masks[:, 0]), deep(clip.masks[:, 2])
    black = composite(edit(layers, "background", Edit(visibility=0.0)))[0]
    assert not bool(black[apart].any())
    assert error(black, clip.frames, inside) > 60
    grey = composite(edit(layers, "background", Edit(saturation=0.0)))[0]
    assert float((grey.amax(dim=-1) - grey.amin(dim=-1))[apart].max()) < 1e-5


def test_gain_is_in_stops(clip, layers):
    inside = deep(clip.masks[:, 1]) | deep(clip.masks[:, 2])
    for linear in (False, True):
        darker = composite(edit(layers, "objects", Edit(gain=-1.0)), linear_light=linear)[0]
        wanted = to_display(0.5 * to_linear(clip.frames)) if linear else clip.frames * 0.5 ** (1 / 2.2)
        assert_close(darker[inside], wanted[inside], atol=1e-5, rtol=0)


@pytest.mark.parametrize("offset", [(20.0, 0.0), (-7.0, 5.0)])
def test_objects_move_by_whole_pixels(clip, layers, offset):
    frames, mask = composite(edit(layers, "objects", Edit(offset=offset)))
    dx, dy = int(offset[0]), int(offset[1])
    inside = deep(clip.masks[:, 2])
    moved = torch.roll(clip.frames, (dy, dx), (1, 2))
    there = torch.roll(inside, (dy, dx), (1, 2))
    there[:, : max(dy, 0)], there[:, :, : max(dx, 0)] = False, False
    if dx < 0:
        there[:, :, dx:] = False
    assert_close(frames[there], moved[there], atol=1e-3, rtol=0)
    assert float(mask[there].min()) > 0.99


@pytest.mark.parametrize("axis", [0, 1])
def test_a_quarter_of_a_pixel_is_a_quarter_of_the_way(layers, plain, axis):
    none, quarter = (
        composite(edit(layers, "2", Edit(offset=(by, 0.0) if axis == 0 else (0.0, by))))[1] for by in (-1.0, -0.75)
    )
    assert_close(quarter, 0.75 * none + 0.25 * plain[1], atol=1e-5, rtol=0)


def test_the_background_moves_and_its_borders_are_repeated(layers):
    alone = edit(layers, "objects", Edit(visibility=0.0))
    unmoved = composite(alone)[0]
    up, moved, between = (composite(edit(alone, "background", Edit(offset=(by, -2.0))))[0] for by in (0.0, 3.0, 2.25))
    assert_close(up[:, :-2], unmoved[:, 2:])
    assert_close(up[:, -1], unmoved[:, -1])
    assert_close(moved[:, :, 3:], up[:, :, :-3])
    assert_close(moved[:, :, :3], up[:, :, :1].expand(-1, -1, 3, -1))
    assert_close(between[:, :, 3:], 0.75 * up[:, :, 1:-2] + 0.25 * up[:, :, :-3], atol=1e-5, rtol=0)


def test_half_of_white_over_black_is_half_the_light_in_linear_light(layers):
    white, half = torch.ones(1, HEIGHT, WIDTH, 3), torch.full((1, HEIGHT, WIDTH), 0.5)
    both = edit(replace_layer(replace_layer(layers, 0, 0 * white), 1, white, half), "2", Edit(visibility=0.0))
    apart = F.max_pool2d(layers.fields["masks"][:, 2:], 15, 1, 7)[:, 0] == 0.0
    inside = apart[..., None].expand_as(layers.frames)
    for linear, wanted in ((False, 0.5), (True, float(to_display(torch.tensor(0.5))))):
        frames = composite(both, linear_light=linear)[0]
        assert_close(frames[inside], torch.full_like(frames[inside], wanted), atol=2e-3, rtol=0)


def test_what_moves_out_of_the_picture_is_gone(layers):
    assert not bool(composite(edit(layers, "objects", Edit(offset=(0.0, 500.0))))[1].any())


def test_edits_add_up_and_cancel(layers):
    twice = edit(edit(layers, "1", Edit(0.5, 1.0, 2.0, (3.0, 0.0))), "objects", Edit(0.5, -1.0, 0.5, (1.0, 2.0)))
    assert twice.edits == {1: Edit(0.25, 0.0, 1.0, (4.0, 2.0)), 2: Edit(0.5, -1.0, 0.5, (1.0, 2.0))}
    assert edit(edit(layers, "2", Edit(gain=1.0)), "2", Edit(gain=-1.0)).edits == {}
    assert layers.edits == {}


def test_a_person_can_stop_it(layers):
    def stop(done, total, preview):
        assert preview().shape == (HEIGHT, WIDTH, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        composite(layers, on_step=stop)


# other pictures


def test_another_background_has_no_trace_of_the_old_one(clip, layers):
    still = GREEN.expand(1, HEIGHT, WIDTH, 3)
    frames = composite(add_background(layers, still))[0]
    truth = clip.masks[:, 0, ..., None] * GREEN + (clip.masks[:, 1:, ..., None] * clip.colours[:, 1:]).sum(dim=1)
    mixed = (clip.masks[:, 0] > 0.02) & (clip.masks[:, 0] < 0.98)
    naive = clip.masks[:, 0, ..., None] * GREEN + (1 - clip.masks[:, :1].movedim(1, -1)) * clip.frames
    assert error(frames, truth, mixed) > error(naive, truth, mixed) + 2
    assert error(frames, truth, clip.masks[:, 0] > 0.999) > 40


def test_a_background_covers_the_frame_and_its_middle_stays(layers):
    wide = torch.zeros(1, 48, 160, 3)
    wide[:, :, 60:100] = 1.0
    picture = add_background(layers, wide).pictures["colour_0"]
    assert picture.shape == (1, HEIGHT, WIDTH, 3)
    assert_close(picture[0, 40, 50:110].mean(), torch.tensor(1.0), atol=0.01, rtol=0)
    assert float(picture[0, :, :20].max()) < 0.01


def test_a_strip_may_be_a_background(layers):
    strip = torch.zeros(1, 1, 1000, 3)
    strip[:, :, 499:501] = 1.0
    assert_close(add_background(layers, strip).pictures["colour_0"], torch.ones(1, HEIGHT, WIDTH, 3))


def test_a_background_may_move(layers):
    moving = torch.linspace(0, 1, COUNT).view(-1, 1, 1, 1).expand(COUNT, HEIGHT, WIDTH, 3)
    frames = composite(edit(add_background(layers, moving), "objects", Edit(visibility=0.0)))[0]
    assert_close(frames, moving, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [2, COUNT + 1])
def test_a_background_of_another_length_is_refused(layers, count):
    with pytest.raises(ShapeError, match=f"got {count} frames for a clip of 6; give one still"):
        add_background(layers, torch.rand(count, 8, 8, 3))


def test_a_layer_taken_out_and_put_back_changes_nothing(clip, layers):
    for number in (0, 1, 2):
        colour, mask = split_layer(layers, number)
        back = replace_layer(layers, number, colour, None if number == 0 else mask)
        assert psnr(composite(back)[0], clip.frames) > 42


def test_split_layers_hold_plain_colours(clip, layers, seen):
    colour, mask = split_layer(layers, 0)
    assert error(colour, clip.background, seen) > 35
    assert float((mask - clip.masks[:, 0]).abs().mean()) < 0.003
    colour, mask = split_layer(layers, 2)
    assert float((mask - clip.masks[:, 2]).abs().mean()) < 0.003
    mixed = (clip.masks[:, 2] > 0.3) & (clip.masks[:, 2] < 0.9)
    assert error(colour, clip.colours[:, 2], mixed) > error(clip.frames, clip.colours[:, 2], mixed) + 2
    # beyond the border the object goes on, not the background
    outside = (clip.masks[:, 2] == 0) & (F.max_pool2d(clip.masks[:, 2:], 9, 1, 4)[:, 0] > 0)
    assert float(colour[outside].var(dim=0).mean()) < 0.7 * float(clip.frames[outside].var(dim=0).mean())


def test_layers_are_split_as_they_were_replaced(clip, layers):
    colour, mask = split_layer(layers, 2)
    smaller = F.avg_pool2d(mask[:, None], 5, 1, 2)[:, 0] ** 4
    changed = replace_layer(layers, 2, 1.0 - colour, smaller)
    again, given = split_layer(changed, 2)
    assert torch.equal(again, 1.0 - colour)
    assert torch.equal(given, smaller)
    rest = split_layer(layers, 0)[1]
    assert_close(split_layer(changed, 0)[1], (rest + mask - smaller).clamp(0.0, 1.0), atol=1e-5, rtol=0)


def test_another_mask_moves_what_is_shown(clip, layers):
    colour, mask = split_layer(layers, 2)
    frames, shown = composite(replace_layer(layers, 2, colour, torch.zeros_like(mask)))
    assert float((shown * clip.masks[:, 2]).max()) > 0.9  # the object behind it comes out, as far as it was seen
    gone = (clip.masks[:, 2] > 0.99) & (shown < 0.01)
    assert float((frames - clip.frames)[gone].abs().mean()) > 0.05


def test_a_still_takes_the_place_of_a_layer(clip, layers):
    frames = composite(replace_layer(layers, 2, GREEN.expand(1, HEIGHT, WIDTH, 3)))[0]
    inside = deep(clip.masks[:, 2])
    assert_close(frames[inside], GREEN.expand(int(inside.sum()), 3))


def test_pictures_that_do_not_fit_are_refused(layers):
    with pytest.raises(ShapeError, match="got 3 of 160x96 pixels, the layer has 6 of 160x96"):
        replace_layer(layers, 1, torch.rand(3, HEIGHT, WIDTH, 3))
    with pytest.raises(ShapeError, match="got 6 of 80x96 pixels"):
        replace_layer(layers, 1, torch.rand(COUNT, HEIGHT, 80, 3))
    with pytest.raises(InputError, match=r"the background \(layer 0\) takes none"):
        replace_layer(layers, 0, torch.rand(1, 8, 8, 3), torch.ones(1, 8, 8))
    with pytest.raises(InputError, match="there is no layer '3'; these layers have a background"):
        replace_layer(layers, 3, layers.frames)


# frames and a mask


def matted() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An object's colours, a soft mask of it, and the picture of both over a background."""
    colour = torch.tensor([0.7, 0.4, 0.3]).expand(2, 64, 96, 3)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    mask = ((20 - torch.hypot(x - 48, y - 32)) / 4 + 0.5).clamp(0, 1).expand(2, -1, -1)
    return colour, mask, colour * mask[..., None] + torch.tensor([0.1, 0.2, 0.6]) * (1 - mask[..., None])


def over_green(layers: Layers) -> torch.Tensor:
    return composite(add_background(layers, GREEN.expand(1, 64, 96, 3)))[0]


def test_whole_straight_and_premultiplied_pictures_come_out_alike():
    colour, mask, whole = matted()
    truth = colour * mask[..., None] + GREEN * (1 - mask[..., None])
    cut = torch.where(mask[..., None] > 0, colour, 0.0)
    for layers in (
        cut_out(whole, mask),
        cut_out(cut, mask),
        cut_out(cut * mask[..., None], mask, premultiplied=True),
        cut_out(colour, mask),
    ):
        assert float((over_green(layers) - truth).abs().max()) < 0.04
        MASKS.check(layers)
    naive = whole * mask[..., None] + GREEN * (1 - mask[..., None])
    assert float((naive - truth).abs().max()) > 0.1


def test_a_given_mask_is_taken_as_it_is():
    _, mask, whole = matted()
    frames, shown = composite(cut_out(whole, mask))
    assert_close(shown, mask)
    assert psnr(frames, whole) > 40
    assert torch.equal(composite(cut_out(whole, mask[:1]))[1], shown)


def test_without_a_background_premultiplied_pictures_are_over_black():
    colour, mask, _ = matted()
    frames = composite(cut_out(colour * mask[..., None], mask, premultiplied=True))[0]
    assert_close(frames, colour * mask[..., None], atol=1e-3, rtol=0)


def test_masks_that_do_not_fit_are_refused():
    _, mask, whole = matted()
    with pytest.raises(ShapeError, match="got 2 masks for 1 frames"):
        cut_out(whole[:1], mask)
    with pytest.raises(ShapeError, match="masks are 48x64 pixels, the frames are 96x64"):
        cut_out(whole, mask[:, :, :48])


# refusals


def test_a_person_names_layers(layers):
    assert layer_numbers(layers, "objects") == (1, 2)
    assert layer_numbers(layers, "background") == (0,)
    assert layer_numbers(layers, "2") == (2,)
    for name in ("3", "sky", "-1"):
        with pytest.raises(
            InputError, match=f"no layer '{name}'; these layers have a background .0. and objects 1 to 2"
        ):
            edit(layers, name, Edit())


@pytest.mark.parametrize(
    "change",
    [
        Edit(visibility=1.5),
        Edit(visibility=-0.1),
        Edit(saturation=-1.0),
        Edit(saturation=float("inf")),
        Edit(gain=float("nan")),
        Edit(offset=(0.0, float("inf"))),
    ],
)
def test_values_out_of_range_are_refused(layers, change):
    with pytest.raises(InputError, match="needed, got"):
        edit(layers, "objects", change)


def test_layers_of_another_model_are_refused(layers):
    other = replace(layers, model="relight")
    for call in (
        composite,
        lambda found: edit(found, "objects", Edit()),
        lambda found: clean_plate(found, 0, 1),
        lambda found: split_layer(found, 0),
        lambda found: add_background(found, layers.frames),
        lambda found: replace_layer(found, 1, layers.frames),
    ):
        with pytest.raises(InputError, match="of the model 'relight'"):
            call(other)


def test_sound_layers_pass(layers):
    MASKS.check(edit(add_background(layers, layers.frames[:1]), "objects", Edit(gain=1.0)))


@pytest.mark.parametrize(
    ("fields", "others", "words"),
    [
        ({"masks": None}, {}, "hold no 'masks'"),
        ({"masks": torch.ones(COUNT, 1, HEIGHT, WIDTH)}, {}, "of a background and an object"),
        ({"masks": torch.ones(COUNT, 2, HEIGHT, WIDTH)}, {}, "do not add up to 1"),
        ({"before": torch.zeros(COUNT, 3, 8, 8)}, {}, r"no 'before' \(T, 3, h, w\), but one of \(6, 3, 8, 8\)"),
        ({"after": torch.ones(COUNT, 3, HEIGHT, WIDTH)}, {}, "'after' points to frames that are not there"),
        ({"after": torch.full((COUNT, 3, HEIGHT, WIDTH), 0.5)}, {}, "'after' points to frames that are not there"),
        (
            {"after": torch.full((COUNT, 3, HEIGHT, WIDTH), torch.nan)},
            {},
            "'after' points to frames that are not there",
        ),
        ({"before": torch.full((COUNT, 3, HEIGHT, WIDTH), -1.0)}, {}, "'before' points to frames that are not there"),
        ({}, {"pictures": {"colour_1": torch.zeros(1, 8, 8, 3)}}, "picture 'colour_1'"),
        ({}, {"pictures": {"colour_3": torch.zeros(1, HEIGHT, WIDTH, 3)}}, "picture 'colour_3'"),
        ({}, {"pictures": {"mask_0": torch.zeros(1, HEIGHT, WIDTH)}}, "picture 'mask_0'"),
        ({}, {"pictures": {"sky": torch.zeros(1, HEIGHT, WIDTH, 3)}}, "picture 'sky'"),
        ({}, {"edits": {3: Edit()}}, "edit of a layer that is not there"),
    ],
)
def test_damaged_layers_are_refused(layers, fields, others, words):
    found = {name: field for name, field in {**layers.fields, **fields}.items() if field is not None}
    with pytest.raises(LayersFileError, match=words):
        MASKS.check(replace(layers, fields=found, **others))


def test_linear_light_is_srgbs():
    values = torch.tensor([0.0, 0.04, 0.5, 1.0])
    assert_close(to_linear(values), torch.tensor([0.0, 0.04 / 12.92, 0.21404, 1.0]), atol=1e-5, rtol=0)
    assert_close(to_display(to_linear(values)), values, atol=1e-6, rtol=0)
