"""Published networks with their own weights, where a person has them.

Clone the repositories that are to be compared into one folder, and name it with ``--peers``: their code and weights are
used from there, and nothing of them is part of this project. Each frame is treated by itself, as they do.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from unittest.mock import patch

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

Frames = Callable[[Tensor], Tensor]
"""From frames ``(T, H, W, 3)`` in 0..1 to frames."""


class Peer(NamedTuple):
    """A published network."""

    name: str
    folder: str
    """Of its repository, below the one that is named."""
    code: str
    """Folder of its code in it."""
    weights: str
    build: Callable[[Path, Path], Callable[[Tensor], Tensor]]
    """``build(code, weights)``: what takes a frame ``(1, 3, H, W)`` to one."""


@contextmanager
def _imported(code: Path, name: str) -> Iterator[ModuleType]:
    """A module of a repository, in whose folder it may look for weights; others may have modules of the same names."""
    before = set(sys.modules)
    sys.path.insert(0, str(code))
    here = Path.cwd()
    os.chdir(code)
    try:
        with patch.object(torch, "load", partial(torch.load, map_location="cpu")):
            yield importlib.import_module(name)
    finally:
        os.chdir(here)
        sys.path.remove(str(code))
        for new in set(sys.modules) - before:
            places = [getattr(sys.modules[new], "__file__", None), *getattr(sys.modules[new], "__path__", ())]
            if any(str(place).startswith(str(code)) for place in places):
                del sys.modules[new]


def _net(code: Path, module: str, name: str, weights: Path, **settings: object) -> torch.nn.Module:
    with _imported(code, module) as found:
        net: torch.nn.Module = getattr(found, name)(**settings)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    net.load_state_dict(state)
    return net.eval()


def _zero_dce(code: Path, weights: Path) -> Callable[[Tensor], Tensor]:
    net = _net(code, "model", "enhance_net_nopool", weights)
    return lambda frame: net(frame)[1]


def _zero_dce_plus(code: Path, weights: Path) -> Callable[[Tensor], Tensor]:
    net = _net(code, "model", "enhance_net_nopool", weights, scale_factor=1)
    return lambda frame: net(frame)[0]


def _sci(code: Path, weights: Path) -> Callable[[Tensor], Tensor]:
    with _imported(code, "model") as found:
        net = found.Finetunemodel(str(weights)).eval()
    return lambda frame: net(frame)[1]


def _ruas(code: Path, weights: Path) -> Callable[[Tensor], Tensor]:
    with _imported(code, "model") as found:
        net = found.Network()
        state = torch.load(weights, map_location="cpu", weights_only=True)
        net.load_state_dict({name: state[name] for name in net.state_dict()})
    return lambda frame: net.eval().enhance_net(frame)[0][-1]


def _pairlie(code: Path, weights: Path) -> Callable[[Tensor], Tensor]:
    net = _net(code, "net.net", "net", weights)

    def lifted(frame: Tensor) -> Tensor:
        light, reflectance, _ = net(frame)
        return light.pow(0.2) * reflectance

    return lifted


def _iat(code: Path, weights: Path) -> Callable[[Tensor], Tensor]:
    net = _net(code, "model.IAT_main", "IAT", weights)
    return lambda frame: net(frame)[2]


def _aod(code: Path, weights: Path) -> Callable[[Tensor], Tensor]:
    return _net(code, "net", "dehaze_net", weights)


def _light_dehaze(code: Path, weights: Path) -> Callable[[Tensor], Tensor]:
    return _net(code, "lightdehazeNet", "LightDehaze_Net", weights)


def _gca(code: Path, weights: Path) -> Callable[[Tensor], Tensor]:
    net = _net(code, "GCANet", "GCANet", weights, in_c=4, out_c=3, only_residual=True)
    with _imported(code, "utils") as found:
        edges = found.edge_compute

    def cleared(frame: Tensor) -> Tensor:
        height, width = frame.shape[2:]
        levels = F.pad(frame, (0, -width % 4, 0, -height % 4), mode="replicate") * 255.0
        both = torch.cat((levels[0], edges(levels[0])))[None] - 128.0
        return ((net(both) + levels) / 255.0)[..., :height, :width]

    return cleared


LIGHT = (
    Peer("IAT", "Illumination-Adaptive-Transformer", "IAT_enhance", "IAT_enhance/best_Epoch_lol_v1.pth", _iat),
    Peer("Zero-DCE", "Zero-DCE", "Zero-DCE_code", "Zero-DCE_code/snapshots/Epoch99.pth", _zero_dce),
    Peer(
        "Zero-DCE++",
        "Zero-DCE_extension",
        "Zero-DCE++",
        "Zero-DCE++/snapshots_Zero_DCE++/Epoch99.pth",
        _zero_dce_plus,
    ),
    Peer("SCI", "SCI", "", "weights/medium.pt", _sci),
    Peer("RUAS", "RUAS", "", "ckpt/lol.pt", _ruas),
    Peer("PairLIE", "PairLIE", "", "weights/PairLIE.pth", _pairlie),
)
HAZE = (
    Peer("AOD-Net", "PyTorch-Image-Dehazing", "", "snapshots/dehazer.pth", _aod),
    Peer("GCANet", "GCANet", "", "models/wacv_gcanet_dehaze.pth", _gca),
    Peer("Light-DehazeNet", "Light-DehazeNet", "", "trained_weights/trained_LDNet.pth", _light_dehaze),
)


def load_peers(peers: tuple[Peer, ...], folder: Path | None) -> Mapping[str, Frames]:
    """Those that are there and run, by name; of the others it is said why not."""
    found: dict[str, Frames] = {}
    if folder is None:
        return found
    for peer in peers:
        code, weights = folder / peer.folder / peer.code, folder / peer.folder / peer.weights
        if not weights.is_file():
            print(f"{peer.name}: left out, there is no {weights}", file=sys.stderr)
            continue
        try:
            found[peer.name] = _frame_by_frame(peer.build(code, weights))
        except (ImportError, AttributeError, KeyError, TypeError, RuntimeError) as error:
            print(f"{peer.name}: left out, it does not load: {error}", file=sys.stderr)
    return found


def _frame_by_frame(treat: Callable[[Tensor], Tensor]) -> Frames:
    @torch.no_grad()
    def treated(frames: Tensor) -> Tensor:
        made = [treat(frame.movedim(-1, 0)[None])[0].movedim(0, -1).clamp(0.0, 1.0) for frame in frames]
        return torch.stack(made)

    return treated


def non_local_means(frames: Tensor, strength: float = 5.0) -> Tensor:
    """Frames without noise, each by itself, by OpenCV's non-local means for colours."""
    made = []
    for frame in frames:
        levels = (frame.numpy() * 255.0).round().astype("uint8")
        made.append(torch.from_numpy(cv2.fastNlMeansDenoisingColored(levels, None, strength, strength)).float() / 255.0)
    return torch.stack(made)
