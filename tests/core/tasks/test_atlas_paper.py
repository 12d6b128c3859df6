"""The preset ``paper`` of the atlas: the published networks, their energy, and the layers that are read off them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from comfyui_vdp.nodes.layers import LoadLayers
from comfyui_vdp.vdp_core.errors import InputError, LayersFileError, ShapeError
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.models import MODELS
from comfyui_vdp.vdp_core.models import atlas as model
from comfyui_vdp.vdp_core.models.checkpoint import is_checkpoint, load_checkpoint
from comfyui_vdp.vdp_core.models.neural_atlas import fields_of
from comfyui_vdp.vdp_core.nets.atlas_nets import PUBLISHED, AtlasNets, PlaceNet, Shape, coordinates
from comfyui_vdp.vdp_core.optim import fit as fit_module
from comfyui_vdp.vdp_core.optim.progress import Progress
from comfyui_vdp.vdp_core.store.journal import NO_JOURNAL, Journal
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.atlas import paper
from comfyui_vdp.vdp_core.tasks.atlas.config import PublishedAtlas
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.tasks.segment.config import PRESETS as MASKS
from comfyui_vdp.vdp_core.types import Flow, Layers, Shot

COUNT, HEIGHT, WIDTH = 4, 32, 48
FEW = PublishedAtlas(samples=64, masks=replace(MASKS["fast"], steps=3))


def fit_to(frames: Tensor, flow: Flow, masks: Tensor, config: PublishedAtlas = FEW) -> paper.PublishedFit:
    return paper.PublishedFit(Shot(frames, flow, range(len(frames))), masks, config, 0, "cpu")


# the networks


def test_the_published_number_of_parameters():
    nets = AtlasNets()
    counts = [sum(values.numel() for values in net.parameters()) for net in (*nets.mappings, nets.atlas, nets.alpha)]
    assert counts == [133_122, 264_706, 416_379, 402_945]


def test_places_are_encoded_octave_by_octave():
    net = PlaceNet(2, 8, Shape(1, frequencies=2))
    torch.nn.init.eye_(net.hidden[0].weight)
    torch.nn.init.zeros_(net.hidden[0].bias)
    angles = [math.pi * 0.3, math.pi * -0.1]
    wanted = [f(octave * angle) for octave in (1, 2) for f in (math.sin, math.cos) for angle in angles]
    assert_close(torch.atanh(net(torch.tensor([[0.3, -0.1]])))[0], torch.tensor(wanted), atol=1e-3, rtol=0)


def test_a_network_is_known_by_its_weights():
    nets = AtlasNets()
    found = [
        Shape.of(net.state_dict(), inputs)
        for net, inputs in ((nets.mappings[0], 3), (nets.mappings[1], 3), (nets.atlas, 2), (nets.alpha, 3))
    ]
    assert found == list(PUBLISHED.values())


def test_coordinates_are_one_scale_along_both_sides():
    points = torch.tensor([[0.0, 0.0, 0.0], [8.0, 4.0, 2.0], [16.0, 8.0, 4.0]])
    wanted = torch.tensor([[-1.0, -1.0, -1.0], [0.0, -0.5, 0.0], [1.0, 0.0, 1.0]])
    assert_close(coordinates(points, (8, 16), 4), wanted)


# the energy, worked by hand


class ByHand:
    """In place of the networks, formulas: frames are 16 pixels wide, so that a pixel is 0.125 of a coordinate."""

    def mapping(self, layer: int, places: Tensor) -> Tensor:
        return 0.8 * places[:, :2] * torch.tensor([[1.0, 1.0], [2.0, 1.0]][layer])

    def opacity(self, places: Tensor) -> Tensor:
        return 0.3 + 0.1 * places[:, 2]

    def colours(self, layer: int, uv: Tensor) -> Tensor:
        if layer == 1:
            return torch.full((len(uv), 3), 0.5)
        return torch.stack((-uv[:, 0], torch.full_like(uv[:, 0], 0.4), torch.full_like(uv[:, 0], 0.6)), dim=1)


def ramp_fit(home: float = -1.0) -> paper.PublishedFit:
    """Four frames of 16x8 pixels with the colours (x / 100, 2 y / 100, 0.3) that move by one pixel to the right."""
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(16.0), indexing="ij")
    frames = torch.stack((0.01 * x, 0.02 * y, torch.full_like(x, 0.3)), dim=-1).expand(4, -1, -1, -1)
    forward, backward = torch.zeros(3, 2, 8, 16), torch.zeros(3, 2, 8, 16)
    forward[:, 0], backward[:, 0] = 1.0, home
    flow = Flow(forward, backward, torch.zeros(3, 8, 16), torch.zeros(3, 8, 16), (8, 16))
    fit = fit_to(frames, flow, torch.ones(4, 8, 16))
    fit.nets = ByHand()
    return fit


PIXEL = torch.full((5,), 128 + 3 * 16 + 4)
"""(4, 3) of frame 1: its coordinates are (-0.5, -0.625, -0.5), so that alpha is 0.25."""


def test_every_term_by_hand():
    terms = ramp_fit().terms(PIXEL, 0)
    # rebuilt: 0.75 (0.4, 0.4, 0.6) + 0.25 (0.5, 0.5, 0.5) = (0.425, 0.425, 0.575); the frame has (0.04, 0.06, 0.3)
    wanted = {"colour": 5000 * (0.385**2 + 0.365**2 + 0.275**2)}
    # a pixel to the right it is 0.075 darker in red, the frame 0.01 lighter; below the frame is 0.02 lighter in green
    wanted["gradient"] = 1000 * (0.085**2 + 0.02**2)
    wanted["sparsity"] = 1000 * 3 * (0.75 * 0.5) ** 2
    # the Jacobians are I and diag(2, 1)
    kept = math.sqrt(2) + math.sqrt(2) / 1.001
    stretched = math.sqrt(17) + math.hypot(1 / 4.001, 1 / 1.001)
    wanted["rigidity"] = kept + stretched
    wanted["far_rigidity"] = 50 * kept + 5 * stretched
    # the mappings move on by one and by two pixels
    wanted["flow"] = 5 * (0.75 * 1 + 0.25 * 2)
    # alpha is 0.2, 0.25 and 0.3 in frames 0, 1 and 2
    wanted["alpha_flow"] = 49 * 0.05
    wanted["bootstrap"] = -2000 * math.log(0.25)
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-4), name


def test_flow_that_does_not_lead_home_counts_nothing():
    terms = ramp_fit(home=0.5).terms(PIXEL, 0)
    assert terms["flow"] == terms["alpha_flow"] == 0.0


def test_the_first_frame_is_compared_with_the_next_alone():
    first, inner = (ramp_fit().terms(PIXEL + 128 * step, 0)["flow"] for step in (-1, 0))
    # alpha is 0.2 in frame 0: half of the mean of both directions
    assert float(first) == pytest.approx(5 * 0.5 * (0.8 * 1 + 0.2 * 2), rel=1e-4)
    assert float(inner) > float(first)


def test_at_the_rim_the_frame_has_no_differences():
    fit = ramp_fit()
    corner = torch.full((5,), 128 + 7 * 16 + 15)
    # alpha is 0.25: the rebuilt picture goes on getting darker by 0.075
    assert float(fit.terms(corner, 0)["gradient"]) == pytest.approx(1000 * 0.075**2, rel=1e-4)


@pytest.mark.parametrize(
    ("index", "kept"), [(5_000, {"far_rigidity", "bootstrap"}), (10_000, {"bootstrap"}), (10_001, set())]
)
def test_terms_that_end(index, kept):
    assert ramp_fit().terms(PIXEL, index).keys() & {"far_rigidity", "bootstrap"} == kept


@pytest.mark.parametrize(("steps", "far", "bootstrapped"), [(40_000, 500, 1000), (400, 5, 400)])
def test_fewer_steps_shorten_the_schedule(steps, far, bootstrapped):
    fit = ramp_fit()
    fit._steps = steps
    assert "far_rigidity" in fit.terms(PIXEL, far)
    assert "far_rigidity" not in fit.terms(PIXEL, far + 1)
    assert "bootstrap" in fit.terms(PIXEL, bootstrapped)
    assert "bootstrap" not in fit.terms(PIXEL, bootstrapped + 1)


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_turning_is_the_most_rigid(angle):
    turned = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    least = paper.rigidity(*turned)
    assert float(least) == pytest.approx(math.sqrt(2) * (1 + 1 / 1.001), rel=1e-5)
    for scale in (0.9, 1.1):
        assert paper.rigidity(*(scale * turned)) > least


def test_bootstrapping_is_cross_entropy():
    alpha, rough = torch.tensor([0.2, 0.2, 0.2]), torch.tensor([1.0, 0.0, 0.5])
    wanted = [-math.log(0.2), -math.log(0.8), -0.5 * math.log(0.16)]
    assert_close(paper.bootstrap(alpha, rough), torch.tensor(wanted))


# what is found


@pytest.fixture(scope="module")
def clip(synthetic):
    return synthetic.layered(COUNT, HEIGHT, WIDTH, objects=1)


@pytest.fixture
def few(monkeypatch):
    """Few points a step, few steps to begin with, every one of which is kept."""
    presets = TASKS["atlas"].presets
    monkeypatch.setitem(presets, "paper", replace(presets["paper"], config=FEW))
    monkeypatch.setattr(paper, "LEAST", 5)
    monkeypatch.setattr(fit_module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(fit_module, "SAVE_SHARE", float("inf"))


def published(clip, steps: int = 12, **settings: object) -> Layers:
    mask = clip.masks[:, 1] > 0.5
    return decompose("atlas", clip.frames, clip.flow, preset="paper", steps=steps, **{"mask": mask, **settings})


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def taken(monkeypatch) -> list[int]:
    """Steps of the fit, as they are taken; work is cut off in the seventh."""
    steps: list[int] = []
    terms = paper.PublishedFit.terms

    def counted(self, pixels: Tensor, index: int) -> dict[str, Tensor]:
        steps.append(index)
        if len(steps) == 7:
            raise Killed
        return terms(self, pixels, index)

    monkeypatch.setattr(paper.PublishedFit, "terms", counted)
    return steps


def test_a_few_steps_give_whole_layers_and_go_on_where_they_were_cut_off(clip, few, tmp_path, taken):
    shown = []

    def on_step(done: int, total: int, preview: Callable[[], Tensor] | None) -> None:
        if preview is not None and len(shown) < 1:
            shown.append(preview())

    with pytest.raises(Killed):
        published(clip, journal=Journal(tmp_path), on_step=on_step)
    again = published(clip, journal=Journal(tmp_path))
    assert taken == [*range(7), *range(6, 12)]
    whole = published(clip)
    MODELS["atlas"].check(whole)
    assert (whole.info["preset"], whole.info["steps"]) == ("paper", "12")
    assert whole.fields["masks"].shape == (COUNT, 2, HEIGHT, WIDTH)
    assert whole.fields["light"].eq(0.0).all()
    assert shown[0].shape == (HEIGHT, WIDTH, 3)
    for name, values in {**whole.fields, **whole.assets}.items():
        assert torch.equal(values, {**again.fields, **again.assets}[name]), name


def test_the_seed_decides(clip):
    def networks(seed: int) -> Tensor:
        fit = paper.PublishedFit(
            Shot(clip.frames, clip.flow, range(COUNT)), clip.masks[:, 1], replace(FEW, steps=2), seed, "cpu"
        )
        fit.optimise(NO_JOURNAL, Progress(None))
        return torch.cat([values.flatten() for values in fit.nets.parameters()]).detach()

    before = torch.random.get_rng_state()
    first, again, other = (networks(seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_more_layers_than_the_networks_have_are_refused(clip):
    with pytest.raises(InputError, match="layers: the preset 'paper' has 2, the background and an object, got 3"):
        published(clip, layers=3, mask=None)


@pytest.fixture(scope="module")
def begun(clip) -> AtlasNets:
    """Networks whose mappings have begun, and whose atlas is no finer than so few pixels can show."""
    fit = fit_to(clip.frames, clip.flow, clip.masks[:, 1], replace(FEW, steps=200_000))
    fit.nets.atlas = PlaceNet(2, 3, Shape(8, 64, frequencies=5))
    fit.begin(NO_JOURNAL, Progress(None))
    return fit.nets


@pytest.fixture(scope="module")
def read_off(clip, begun) -> Layers:
    fields, assets = fields_of(begun, (HEIGHT, WIDTH), COUNT, (HEIGHT, WIDTH))
    layers = Layers("atlas", fields, clip.frames, assets=assets)
    MODELS["atlas"].check(layers)
    return layers


def places_of(index: int) -> Tensor:
    """Coordinates of every pixel of a frame, along rows."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    points = torch.stack((x, y, torch.full_like(x, index)), dim=-1).float()
    return coordinates(points.flatten(0, 1), (HEIGHT, WIDTH), COUNT)


def test_mappings_begin_where_pixels_are(begun):
    with torch.no_grad():
        for layer in (0, 1):
            places = places_of(2)
            # as far apart as two pixels are; without a beginning it is 0.6
            assert (begun.mapping(layer, places) - 0.8 * places[:, :2]).norm(dim=1).mean() < 0.08


@torch.no_grad()
def test_layers_show_what_the_networks_do(begun, read_off):
    for index in range(COUNT):
        places = places_of(index)
        masks = read_off.fields["masks"][index]
        assert_close(masks[1].flatten(), begun.opacity(places))
        # with masks as they are, before edges of the frame sharpen them
        textures = [model.texture_at(read_off, layer, index, torch.device("cpu"))[:3] for layer in (0, 1)]
        composed = masks[0] * textures[0] + masks[1] * textures[1]
        assert psnr(composed.movedim(0, -1)[None], begun(places).view(1, HEIGHT, WIDTH, 3)) > 45.0


@torch.no_grad()
def test_mappings_lead_through_the_texture_as_the_networks_do(begun, read_off):
    """Two pixels are as far apart in a texture as the network has them in its half of the atlas."""
    for layer in (0, 1):
        mapping = model.mapping_of(read_off, layer, 1, torch.device("cpu")).flatten(1).T
        uv = begun.mapping(layer, places_of(1))
        size = torch.tensor(read_off.assets[f"texture_{layer}"].shape[:0:-1]).float()
        known = torch.cat((uv, torch.ones_like(uv[:, :1])), dim=1)
        off = mapping - known @ torch.linalg.lstsq(known, mapping).solution
        assert off.norm(dim=1).max() < 0.1
        assert mapping.amin() > 0.0
        assert (mapping < size).all()


def test_what_is_never_seen_has_no_texture(clip):
    nets = AtlasNets()
    with torch.no_grad():
        nets.alpha.hidden[-1].bias.fill_(-20.0)
    fields, assets = fields_of(nets, (HEIGHT, WIDTH), COUNT, (HEIGHT, WIDTH))
    assert assets["texture_1"].shape == (4, 1, 1)
    MODELS["atlas"].check(Layers("atlas", fields, clip.frames, assets=assets))


# published checkpoints

CONFIG = {
    "resx": WIDTH,
    "resy": HEIGHT,
    "maximum_number_of_frames": 70,
    "uv_mapping_scale": 0.8,
    "data_folder": "data/x",
}


def written(folder: Path, nets: AtlasNets, config: object = CONFIG, **changed: object) -> Path:
    """A checkpoint as the authors' code writes it."""
    optimiser = torch.optim.Adam(nets.parameters())
    whole = {
        "F_atlas_state_dict": nets.atlas.state_dict(),
        "iteration": 399_000,
        "model_F_mapping1_state_dict": nets.mappings[1].state_dict(),
        "model_F_mapping2_state_dict": nets.mappings[0].state_dict(),
        "model_F_alpha_state_dict": nets.alpha.state_dict(),
        "optimizer_all_state_dict": optimiser.state_dict(),
    }
    torch.save({**whole, **changed}, folder / "checkpoint")
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder / "checkpoint"


def test_a_published_checkpoint_gives_the_layers_of_its_networks(clip, begun, read_off, tmp_path):
    path = written(tmp_path, begun)
    with torch.inference_mode():  # as ComfyUI runs nodes
        (layers,) = LoadLayers().load(str(path), clip.frames)
    assert layers.model == "atlas"
    for name, values in {**read_off.fields, **read_off.assets}.items():
        assert torch.equal(values, {**layers.fields, **layers.assets}[name]), name


def test_networks_of_another_build_are_read(clip, tmp_path):
    shapes = {**PUBLISHED, "object": Shape(3, 32, frequencies=4), "alpha": Shape(5, 16, frequencies=2)}
    layers = load_checkpoint(written(tmp_path, AtlasNets(shapes)), clip.frames)
    MODELS["atlas"].check(layers)


def test_layers_beside_a_config_are_no_checkpoint(tmp_path):
    assert is_checkpoint(written(tmp_path, AtlasNets()))
    (tmp_path / "take.safetensors").touch()
    assert not is_checkpoint(tmp_path / "take.safetensors")
    (tmp_path / "config.json").unlink()
    assert not is_checkpoint(tmp_path / "checkpoint")


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"F_atlas_state_dict": None}, "holds no table of weights named 'F_atlas_state_dict'; give another checkpoint"),
        ({"F_atlas_state_dict": {"a": torch.zeros(3, 3)}}, "its weights do not fit the networks of Layered Neural"),
        ({"model_F_alpha_state_dict": AtlasNets().atlas.state_dict()}, "its weights do not fit the networks"),
        ({"model_F_alpha_state_dict": {"hidden.0.weight": torch.zeros(10**6, 3)}}, "its weights do not fit"),
        ({"iteration": Code()}, "damaged, or holds more than weights"),
    ],
)
def test_other_checkpoints_are_refused(clip, tmp_path, capsys, changed, said):
    path = written(tmp_path, AtlasNets(), **changed)
    with pytest.raises(LayersFileError, match=said):
        load_checkpoint(path, clip.frames)
    assert capsys.readouterr().out == ""


def test_weights_without_values_are_refused(clip, tmp_path):
    nets = AtlasNets()
    with torch.no_grad():
        nets.alpha.hidden[3].bias[7] = math.nan
    with pytest.raises(LayersFileError, match="its weights hold NaN or infinite values"):
        load_checkpoint(written(tmp_path, nets), clip.frames)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "config.json: no JSON"),
        ("[]", "'resx' must be a number from 2 to 16384, not None"),
        ({**CONFIG, "resy": "432"}, "'resy' must be a number from 2 to 16384, not '432'"),
        ({**CONFIG, "uv_mapping_scale": 0}, "'uv_mapping_scale' must be a number from 0.01 to 1, not 0"),
    ],
)
def test_other_configs_are_refused(clip, tmp_path, config, said):
    with pytest.raises(LayersFileError, match=said):
        load_checkpoint(written(tmp_path, AtlasNets(), config), clip.frames)


def test_frames_that_cannot_be_the_checkpoints_are_refused(clip, tmp_path):
    path = written(tmp_path, AtlasNets(), {**CONFIG, "maximum_number_of_frames": 3})
    with pytest.raises(ShapeError, match=r"frames: .*checkpoint holds none; link the clip that it was fitted to"):
        load_checkpoint(path, None)
    with pytest.raises(ShapeError, match="was fitted to at most 3, got 4; set count to 3"):
        load_checkpoint(path, clip.frames)
