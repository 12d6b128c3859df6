"""One picture is edited, the whole clip follows: a texture, or one or several frames."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from comfyui_vdp.vdp_core.edit import atlas as atlas_edit
from comfyui_vdp.vdp_core.edit import painted
from comfyui_vdp.vdp_core.edit.atlas import edit_frames, edit_texture
from comfyui_vdp.vdp_core.edit.changes import changed
from comfyui_vdp.vdp_core.edit.composite import composite
from comfyui_vdp.vdp_core.edit.layers import edit, replace_layer, split_layer
from comfyui_vdp.vdp_core.errors import InputError, LayersFileError, ShapeError
from comfyui_vdp.vdp_core.image.mips import Mips
from comfyui_vdp.vdp_core.image.morphology import dilate, erode
from comfyui_vdp.vdp_core.models import MODELS
from comfyui_vdp.vdp_core.models.atlas import mapping_of
from comfyui_vdp.vdp_core.models.file import load_layers, save_layers
from comfyui_vdp.vdp_core.store import lazy
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Edit, Layers

COUNT, HEIGHT, WIDTH = 10, 96, 160
RED = torch.tensor([0.9, 0.1, 0.1])


@pytest.fixture(scope="module")
def clip(synthetic):
    """An object that moves by some 17 pixels over a background that pans."""
    return synthetic.layered(COUNT, HEIGHT, WIDTH, objects=1)


@pytest.fixture(scope="module")
def layers(synthetic, clip) -> Layers:
    """Its true layers."""
    return synthetic.atlas(clip)


def disc(x: float, y: float, radius: float):
    """Paint: a striped disc, antialiased."""

    def paint(across: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        wave = 0.5 + 0.5 * torch.sin(across * 0.8)
        colours = torch.stack((0.9 * wave + 0.1, 0.2 + 0.0 * wave, 0.9 - 0.8 * wave), dim=-1)
        return colours, (radius - torch.hypot(across - x, down - y) + 0.5).clamp(0.0, 1.0)

    return paint


ON_OBJECT, ON_BACKGROUND = (disc(0.0, 0.0, 5.0), 1), (disc(40.0, 70.0, 12.0), 0)


def opacity_in(clip, paint, layer: int) -> Tensor:
    """How much of each pixel is paint, ``(T, H, W)``."""
    return clip.masks[:, layer] * paint(*clip.places[:, layer].unbind(dim=1))[1]


def decibels(frame: Tensor, truth: Tensor) -> float:
    return -10.0 * math.log10(float((frame - truth).square().mean()) + 1e-12)


def far_from(opacity: Tensor, pixels: int = 2) -> Tensor:
    """What is further than some pixels from paint, ``(..., H, W)``."""
    return ~dilate(opacity > 0.0, pixels)


@pytest.mark.parametrize(("paint", "layer"), [ON_OBJECT, ON_BACKGROUND])
@pytest.mark.parametrize("number", [0, COUNT // 2, COUNT - 1])
def test_an_edited_frame_is_carried_to_all_others(clip, layers, paint, layer, number):
    truth, opacity = clip.painted(paint, layer), opacity_in(clip, paint, layer)
    frames, confidence, _ = edit_frames(layers, [number], truth[number : number + 1])
    assert torch.equal(frames[number], truth[number])
    for index in range(COUNT):
        inside = opacity[index] > 0.5
        assert decibels(frames[index][inside], truth[index][inside]) > 32.0
        outside = far_from(opacity[index])
        assert torch.equal(frames[index][outside], clip.frames[index][outside])
    assert confidence.min() > 0.95


@pytest.mark.parametrize(("paint", "layer"), [ON_OBJECT, ON_BACKGROUND])
def test_an_edited_texture_is_in_all_frames(clip, layers, paint, layer):
    texture = layers.assets[f"texture_{layer}"][:3].float().movedim(0, -1)
    # where the texture's pixels lie in the layer's picture, by what two pixels of the first frame say
    mapping = mapping_of(layers, layer, 0, torch.device("cpu"))
    there = clip.places[0, layer][:, :1, :1] + torch.stack(grid(texture)) - mapping[:, :1, :1]
    colours, opacity = paint(*there)
    edited = torch.lerp(texture, colours, opacity[..., None])[None]
    truth, shown = clip.painted(paint, layer), opacity_in(clip, paint, layer)
    for picture, alpha in ((edited, None), (colours[None], opacity[None])):
        frames = edit_texture(layers, layer, picture, alpha)[0]
        for index in range(COUNT):
            inside, outside = shown[index] > 0.5, far_from(shown[index], 3)
            assert decibels(frames[index][inside], truth[index][inside]) > 32.0
            assert torch.equal(frames[index][outside], clip.frames[index][outside])


SPEEDS, OPENED = (1.0, 1.0, 12.0, 12.0), 0.75
IN_MOTION = disc(60.0, 32.0, 9.0)


@pytest.fixture(scope="module")
def in_motion(synthetic) -> Layers:
    """The true layers of a scene that a camera goes along, slowly and then fast, with its shutter open."""
    frames = synthetic.filmed(SPEEDS, OPENED)
    size = frames.shape[1], 140
    y, x = torch.meshgrid(torch.arange(float(size[0])), torch.arange(float(size[1])), indexing="ij")
    texture = torch.cat((synthetic.scene(x, y).movedim(-1, 0), torch.ones(1, *size)))
    down, across = torch.meshgrid(torch.linspace(0, 1, 5), torch.linspace(0, 96 / size[1], 7), indexing="ij")
    far = torch.tensor(SPEEDS) / size[1]
    mapping, blur = torch.stack((across, down)).repeat(4, 1, 1, 1, 1), torch.zeros(4, 1, 2, 4, 7)
    mapping[:, 0, 0] += far.cumsum(dim=0).view(-1, 1, 1)
    blur[:, 0, 0] += OPENED * far.view(-1, 1, 1)
    fields = {"masks": torch.ones(4, 1, 16, 24), "mapping": mapping, "light": torch.zeros(4, 3, 4, 7), "blur": blur}
    return Layers("atlas", fields, frames, None, assets={"texture_0": texture})


@pytest.mark.parametrize("way", ["frame", "texture"])
def test_edits_are_blurred_as_the_frame_is(synthetic, in_motion, way):
    truth = synthetic.filmed(SPEEDS, OPENED, paint=IN_MOTION)
    if way == "frame":
        frames = edit_frames(in_motion, [0], truth[:1])[0]
    else:
        picture = in_motion.assets["texture_0"][:3].movedim(0, -1)
        colours, opacity = IN_MOTION(*grid(picture))
        frames = edit_texture(in_motion, 0, torch.lerp(picture, colours, opacity[..., None])[None])[0]
    for index in (2, 3):
        touched = (truth[index] != in_motion.frames[index]).any(dim=-1)
        assert decibels(frames[index][touched], truth[index][touched]) > 32.0
        outside = far_from(touched.float(), 3)
        assert torch.equal(frames[index][outside], in_motion.frames[index][outside])


def grid(picture: Tensor) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(*(torch.arange(float(side)) for side in picture.shape[:2]), indexing="ij")
    return x, y


def test_layers_that_were_found_will_do(clip):
    found = decompose("atlas", clip.frames, clip.flow, preset="fast", mask=clip.masks[:, 1] > 0.5)
    for paint, layer in (ON_OBJECT, ON_BACKGROUND):
        truth, opacity = clip.painted(paint, layer), opacity_in(clip, paint, layer)
        frames = edit_frames(found, [4], truth[4:5])[0]
        inside = opacity > 0.5
        assert decibels(frames[inside], truth[inside]) > 32.0
        outside = far_from(opacity, 6)
        assert torch.equal(frames[outside], clip.frames[outside])


def test_an_edit_is_hidden_by_what_is_in_front(synthetic):
    clip = synthetic.layered(COUNT, HEIGHT, WIDTH, objects=2, crossing=True)
    layers = synthetic.atlas(clip)
    everywhere = disc(0.0, 0.0, 500.0)
    truth = clip.painted(everywhere, 1)
    frames = edit_frames(layers, [0], truth[:1])[0]
    front, behind = erode(clip.masks[:, 2] > 0.999, 3), erode(clip.masks[:, 1] > 0.9, 1)
    assert front[COUNT // 2].sum() > 300
    assert torch.equal(frames[front], clip.frames[front])
    assert decibels(frames[behind], truth[behind]) > 32.0


def test_paint_up_to_a_border_leaves_no_outline_behind_and_no_rim(clip, layers):
    everywhere = disc(0.0, 0.0, 500.0)
    truth = clip.painted(everywhere, 1)
    frames = edit_frames(layers, [0], truth[:1])[0]
    last = COUNT - 1
    # the object has left some of what it was on
    left = (clip.masks[0, 1] > 0.1) & (clip.masks[last, 1] == 0.0)
    assert left.sum() > 100
    assert (frames[last] - clip.frames[last])[left].abs().mean() < 0.01
    border = (clip.masks[last, 1] > 0.05) & (clip.masks[last, 1] < 0.95)
    assert decibels(frames[last][border], truth[last][border]) > 24.0


def test_paint_across_a_border_has_no_seam(clip, layers):
    """All red, on both layers: it stays all red along the border between them."""
    frame = clip.frames[0].clone()
    frame[20:76, 50:130] = RED
    frames = edit_frames(layers, [0], frame[None])[0]
    border = (clip.masks[1, 1] > 0.05) & (clip.masks[1, 1] < 0.95)
    assert border.sum() > 40
    assert (clip.frames[1][border] - RED).abs().mean() > 0.2
    assert (frames[1][border] - RED).abs().mean() < 0.02


def test_the_light_of_the_frame_is_taken(clip, layers):
    gain = torch.linspace(0.6, 1.0, COUNT)
    logs = gain.log().view(COUNT, 1, 1, 1).expand(COUNT, 3, 4, 7)
    dimmed = replace(layers, frames=clip.frames * gain.view(-1, 1, 1, 1), fields={**layers.fields, "light": logs})
    paint, layer = ON_OBJECT
    truth, opacity = clip.painted(paint, layer) * gain.view(-1, 1, 1, 1), opacity_in(clip, paint, layer)
    frames = edit_frames(dimmed, [0], truth[:1])[0]
    for index in range(COUNT):
        inside = opacity[index] > 0.9
        assert decibels(frames[index][inside], truth[index][inside]) > 32.0


def test_several_edited_frames_go_over_into_each_other(clip, layers):
    inside = opacity_in(clip, *ON_OBJECT) > 0.99
    red, blue = RED, torch.tensor([0.1, 0.1, 0.9])
    first, last = (flat(clip, colour)[index] for colour, index in ((red, 0), (blue, COUNT - 1)))
    frames = edit_frames(layers, [COUNT - 1, 0], torch.stack((last, first)))[0]
    assert torch.equal(frames[0], first)
    assert torch.equal(frames[-1], last)
    share = [float(frames[index][inside[index]][:, 2].mean()) for index in range(COUNT)]
    assert all(later > earlier for earlier, later in pairwise(share))
    assert share[1] < 0.15
    assert share[-2] > 0.85
    after = edit_frames(layers, [0, 3], torch.stack((first, flat(clip, blue)[3])))[0]
    for index in range(4, COUNT):
        assert decibels(after[index][inside[index]], blue) > 30.0


def flat(clip, colour: Tensor) -> Tensor:
    """The clip with a disc of one colour on the object."""
    return clip.painted(lambda x, y: (colour.expand(*x.shape, 3), disc(0.0, 0.0, 5.0)(x, y)[1]), 1)


def test_where_one_edited_frame_hides_a_place_the_other_counts(synthetic):
    clip = synthetic.layered(COUNT, HEIGHT, WIDTH, objects=2, crossing=True)
    layers, middle = synthetic.atlas(clip), COUNT // 2
    truth = clip.painted(disc(0.0, 0.0, 500.0), 1)
    frames = edit_frames(layers, [0, middle], truth[[0, middle]])[0]
    shown = erode(clip.masks[middle - 1 : middle, 1] > 0.9, 1)[0]
    assert decibels(frames[middle - 1][shown], truth[middle - 1][shown]) > 32.0


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.03])
def test_noise_is_no_edit(clip, layers, noise):
    grain = noise * torch.randn(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(edit_frames(layers, [2], (clip.frames[2] + grain).clamp(0, 1)[None])[0], clip.frames)
    frame = (flat(clip, RED)[2] + grain).clamp(0, 1)
    frames, opacity = edit_frames(layers, [2], frame[None])[0], opacity_in(clip, *ON_OBJECT)
    outside = far_from(opacity, 5)
    assert torch.equal(frames[outside], clip.frames[outside])
    inside = opacity[5] > 0.99
    assert (frames[5][inside] - RED).abs().mean() < 2.0 * noise + 0.01


@pytest.mark.parametrize("quality", [60, 90])
def test_compression_is_no_edit(clip, layers, quality):
    def compressed(frame: Tensor) -> Tensor:
        file = io.BytesIO()
        Image.fromarray((frame.numpy() * 255).round().astype("uint8")).save(file, "jpeg", quality=quality)
        return torch.from_numpy(np.array(Image.open(file))).float() / 255

    assert torch.equal(edit_frames(layers, [2], compressed(clip.frames[2])[None])[0], clip.frames)
    frames, opacity = edit_frames(layers, [2], compressed(flat(clip, RED)[2])[None])[0], opacity_in(clip, *ON_OBJECT)
    outside = far_from(opacity, 10)
    assert torch.equal(frames[outside], clip.frames[outside])
    assert (frames[5][opacity[5] > 0.99] - RED).abs().mean() < 0.1


def test_a_faint_stroke_is_an_edit():
    original = 0.5 + 0.1 * torch.sin(torch.arange(64.0) / 5).expand(3, 48, 64)
    stroke = original.clone()
    stroke[:, 20:24, 10:50] += 8 / 255
    found = changed(stroke, [original])
    assert found[21:23, 12:48].min() > 0.99
    assert found[far_from(torch.zeros(48, 64).index_fill(0, torch.arange(20, 24), 1.0), 1)].max() == 0.0
    stroke[:] = original
    stroke[:, 30, 30] += 0.02
    assert not changed(stroke, [original]).any()


def test_a_picture_laid_over_a_frame_is_the_edit_by_its_alpha(clip, layers):
    alpha = torch.zeros(1, HEIGHT, WIDTH)
    alpha[0, 40:52, 74:90] = 0.5
    frames = edit_frames(layers, [0], RED.expand(1, HEIGHT, WIDTH, 3), alpha)[0]
    assert_close(frames[0], torch.lerp(clip.frames[0], RED, alpha[0, ..., None]))
    # also where it looks like the frame, and at another size
    small = edit_frames(layers, [0], RED.expand(1, 48, 80, 3), alpha[:, ::2, ::2])[0]
    assert (small[3] - frames[3]).abs().mean() < 0.003
    assert torch.equal(edit_frames(layers, [0], clip.frames[:1], alpha)[0][:, :30], clip.frames[:, :30])


def test_nothing_painted_changes_nothing(clip, layers):
    frames, confidence, _ = edit_frames(layers, [3], clip.frames[3:4])
    assert torch.equal(frames, clip.frames)
    assert confidence.eq(1.0).all()
    assert torch.equal(edit_texture(layers, 1, RED.expand(1, 8, 8, 3), torch.zeros(1, 8, 8))[0], clip.frames)
    assert torch.equal(
        edit_texture(layers, 0, layers.assets["texture_0"][:3].float().movedim(0, -1)[None])[0], clip.frames
    )


def test_a_texture_is_compared_with_grey_where_it_was_never_seen(clip, layers):
    texture = layers.assets["texture_1"].float()
    seen = texture[3:].clamp(0.0, 1.0)
    shown = (0.5 + seen * (texture[:3] - 0.5)).movedim(0, -1)
    assert seen.eq(0.0).float().mean() > 0.5
    assert torch.equal(edit_texture(layers, 1, shown[None])[0], clip.frames)


def test_what_is_made_smaller_does_not_alias(clip, layers):
    """Black and white pixels, eight for each of the texture, are grey."""
    height, width = layers.assets["texture_0"].shape[1:]
    rows, columns = torch.arange(8 * height), torch.arange(8 * width)
    board = ((rows[:, None] + columns) % 2).float()[None, ..., None].expand(-1, -1, -1, 3)
    frames = edit_texture(layers, 0, board, torch.ones(board.shape[:3]))[0]
    inside = erode(clip.masks[:, 0] == 1.0, 6)
    assert_close(frames[inside], torch.full_like(frames[inside], 0.5), atol=0.02, rtol=0)


def test_copies_half_as_large_are_means_of_four():
    picture = torch.rand(2, 6, 10, generator=torch.Generator().manual_seed(0))
    places = torch.tensor([[[2.5]], [[0.5]]])
    assert_close(
        Mips(picture).at(places, torch.full((1, 1), 2.0**1.25))[:, 0, 0], picture[:, 0:2, 2:4].mean(dim=(1, 2))
    )
    assert_close(Mips(picture).at(torch.tensor([[[3.0]], [[4.0]]]), torch.ones(1, 1))[:, 0, 0], picture[:, 4, 3])


def test_an_edit_fades_where_the_mapping_is_unsure(clip, layers):
    mapping = layers.fields["mapping"].clone()
    mapping[6, 1] = mapping[6, 1].flip(-1)  # mirrored: no point of the first frame looks like that
    folded = mapping[6, 1]
    folded[..., ::2] = folded[..., ::2].flip(-2)
    frames, confidence, _ = edit_frames(
        replace(layers, fields={**layers.fields, "mapping": mapping}), [0], flat(clip, RED)[:1]
    )
    assert torch.equal(frames[6], clip.frames[6])
    assert confidence[6].min() < 0.01
    assert confidence[5].min() > 0.8


def test_edits_chain(clip, layers, tmp_path):
    one = edit_frames(layers, [0], flat(clip, RED)[:1])
    paint, layer = ON_BACKGROUND
    # painted on the clip as it was: what differs there by the first edit was not taken back
    two = edit_frames(one[2], [4], clip.painted(paint, layer)[4:5])
    inside, other = opacity_in(clip, *ON_OBJECT)[8] > 0.99, opacity_in(clip, *ON_BACKGROUND)[8] > 0.99
    assert decibels(two[0][8][inside], RED) > 30.0
    assert decibels(two[0][8][other], clip.painted(paint, layer)[8][other]) > 32.0
    assert torch.equal(one[0], edit_frames(one[2], [4], clip.frames[4:5])[0])
    MODELS["atlas"].check(two[2])
    loaded = load_layers(save_layers(two[2], tmp_path / "edited.safetensors"))
    again = edit_frames(loaded, [4], loaded.frames[4:5])[0]
    assert_close(again, two[0], atol=1e-5, rtol=0)
    with pytest.raises(LayersFileError, match="picture 'painted' is"):
        MODELS["atlas"].check(replace(layers, pictures={"painted": one[0][1:]}))


@pytest.mark.parametrize("way", ["frame", "texture"])
def test_layers_are_seen_with_what_was_painted_on_them(clip, layers, way, tmp_path):
    """Put together with nothing changed, taken out, and whole where an object that hid some of it is taken away."""
    paint = disc(108.0, 50.0, 7.0)  # on the background, behind the object in the first frame
    truth, opacity = clip.painted(paint, 0), paint(*clip.places[:, 0].unbind(dim=1))[1]
    assert opacity_in(clip, paint, 0)[0].sum() < 0.3 * opacity[0].sum()
    if way == "frame":
        edited = edit_frames(layers, [COUNT - 1], truth[COUNT - 1 :])[2]
    else:
        texture = layers.assets["texture_0"][:3].float().movedim(0, -1)
        mapping = mapping_of(layers, 0, 0, torch.device("cpu"))
        colours, there = paint(*(clip.places[0, 0][:, :1, :1] + torch.stack(grid(texture)) - mapping[:, :1, :1]))
        edited = edit_texture(layers, 0, colours[None], there[None])[2]
    edited = load_layers(save_layers(edited, tmp_path / "edited.safetensors"))
    MODELS["atlas"].check(edited)

    together, background = composite(edited)[0], split_layer(edited, 0)[0]
    assert torch.equal(composite(edit(edited, "objects", Edit(visibility=0.0)))[0], background)
    assert torch.equal(split_layer(edited, 1)[0], split_layer(replace(edited, pictures={}), 1)[0])
    whole = torch.lerp(clip.colours[:, 0], paint(*clip.places[:, 0].unbind(dim=1))[0], opacity[..., None])
    for index in range(COUNT):
        inside = opacity[index] > 0.5
        assert decibels(together[index][inside], truth[index][inside]) > 28.0
        assert decibels(background[index][inside], whole[index][inside]) > 28.0
    assert_close(
        together[far_from(opacity)], composite(replace(edited, pictures={}))[0][far_from(opacity)], atol=1e-4, rtol=0
    )


def test_what_was_painted_is_painted_over(layers):
    """Of a layer that was replaced too."""
    grey, blue = torch.full((1, HEIGHT, WIDTH, 3), 0.5), torch.tensor([0.1, 0.1, 0.9])
    replaced = replace_layer(layers, 0, grey)
    alpha = torch.zeros(1, HEIGHT, WIDTH)
    alpha[:, 10:30, 10:30] = 1.0
    first = edit_frames(replaced, [0], RED.expand(1, HEIGHT, WIDTH, 3), alpha)[2]
    alpha = torch.zeros(1, HEIGHT, WIDTH)
    alpha[:, 20:30, 10:30] = 1.0
    second = edit_frames(first, [0], blue.expand(1, HEIGHT, WIDTH, 3), alpha)[2]
    background = split_layer(second, 0)[0][0]
    assert_close(background[12:18, 12:28], RED.expand(6, 16, 3), atol=0.01, rtol=0)
    assert_close(background[22:28, 12:28], blue.expand(6, 16, 3), atol=0.01, rtol=0)
    assert torch.equal(background[40:], grey[0, 40:])


def test_a_clip_without_objects_is_edited(synthetic):
    frames, flow = synthetic.pan(6, 64, 96)
    found = decompose("atlas", frames, flow, preset="fast", steps=10)
    edited = frames[0].clone()
    edited[20:40, 40:70] = RED
    made = edit_frames(found, [0], edited[None])[0]
    for index in (2, 5):
        x, y = round(40 - 1.7 * index), round(20 - 0.6 * index)
        assert (made[index, y + 3 : y + 17, x + 3 : x + 27] - RED).abs().max() < 0.05
        assert torch.equal(made[index, y + 24 :], frames[index, y + 24 :])


def test_each_edited_frame_is_prepared_once(clip, layers, monkeypatch):
    prepared = []

    class Counted(painted.EditedFrame):
        def __init__(self, atlas, index, *edit):
            prepared.append(index)
            super().__init__(atlas, index, *edit)

    monkeypatch.setattr(atlas_edit, "EditedFrame", Counted)
    numbers = list(range(COUNT))[::2]
    assert len(numbers) > painted.KEPT
    edit_frames(layers, numbers, flat(clip, RED)[numbers])
    assert prepared == numbers


def test_frames_of_a_long_clip_are_made_when_they_are_looked_at(clip, layers, monkeypatch):
    wanted = edit_frames(layers, [0, 7], flat(clip, RED)[[0, 7]])
    monkeypatch.setattr(lazy, "fits_in_memory", lambda size: False)
    frames, confidence, edited = edit_frames(layers, [0, 7], flat(clip, RED)[[0, 7]])
    assert isinstance(frames, lazy.LazyFrames)
    assert torch.equal(frames[5], wanted[0][5])
    assert torch.equal(confidence[5], wanted[1][5])
    more = edit_texture(edited, 0, RED.expand(1, 8, 8, 3), torch.zeros(1, 8, 8))[0]
    assert torch.equal(more[5], wanted[0][5])


def test_edits_that_cannot_be_used_are_refused(clip, layers):
    one = clip.frames[:1]
    with pytest.raises(InputError, match="there is no frame 10, the clip has 0 to 9"):
        edit_frames(layers, [COUNT], one)
    with pytest.raises(InputError, match="2 numbers for 1 picture; give the number of each"):
        edit_frames(layers, [0, 1], one)
    with pytest.raises(InputError, match="a number is there twice"):
        edit_frames(layers, [1, 1], clip.frames[:2])
    with pytest.raises(ShapeError, match="mask: masks are 8x8 pixels"):
        edit_frames(layers, [0], one, torch.ones(1, 8, 8))
    with pytest.raises(ShapeError, match="got 2 pictures, a layer has one texture"):
        edit_texture(layers, 0, clip.frames[:2])
    with pytest.raises(InputError, match="there is no layer 2; these layers have 0 the background, 1 object 1"):
        edit_texture(layers, 2, one)
    for paint in (lambda other: edit_frames(other, [0], one), lambda other: edit_texture(other, 0, one)):
        with pytest.raises(InputError, match=r"of the model 'segment', Edit\w+ needs 'atlas'"):
            paint(replace(layers, model="segment"))
