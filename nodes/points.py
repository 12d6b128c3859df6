"""Points followed through a clip: LoadPoints, TrackPoints and SaveTracks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .paint import LAYERS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..vdp_core.edit.points import Tracks
    from ..vdp_core.types import Layers


class LoadPoints:
    """Read points of a clip from a file."""

    CATEGORY = "VDP/points"
    DESCRIPTION = (
        "Reads points for TrackPoints from a JSON file, a list of frame, x and y in pixels of the clip; or from tracks "
        "as SaveTracks writes them, of which it takes where each is first seen."
    )
    SEARCH_ALIASES = [
        "import points",
        "read points",
        "tracking points",
        "keypoints",
        "tracker",
        "Nuke",
        "After Effects",
    ]
    FUNCTION = "load"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("points",)
    OUTPUT_TOOLTIPS = ("The points as JSON.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "path": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": 'A file such as [{"frame": 0, "x": 12.5, "y": 80.0}]. (0, 0) is the centre of the '
                        "first pixel, frames count from 0. A relative path is looked up in the input folder first, "
                        "then where the program was started.",
                    },
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, path: str | None = None) -> bool | str:
        return host.input_verdict(path, "file of points")

    @classmethod
    def IS_CHANGED(cls, path: str | None = None, unique_id: str | None = None, **_: object) -> str:
        return host.changed(unique_id, path)

    def load(self, path: str, unique_id: str | None = None) -> tuple[str]:
        from ..vdp_core.edit.track_files import parse_points, read_points

        file = host.input_path(path)
        points = read_points(file)
        host.remember(unique_id, file)
        host.say(f"read: {_counted(len(parse_points(points)))} of {file.name}")
        return (points,)


def _counted(count: int) -> str:
    return f"{count} point{'s' * (count != 1)}"


class TrackPoints(host.Foreseeing):
    """Follow points through a clip, along the mappings of an atlas."""

    CATEGORY = "VDP/points"
    DESCRIPTION = (
        "Follows points of any frames through the whole clip, along the mappings that VDPOptimize found for an atlas, "
        "also where they are hidden; says in which frames they are seen, and draws them on the clip."
    )
    SEARCH_ALIASES = [
        "track points",
        "point tracking",
        "motion tracking",
        "2D tracking",
        "match move",
        "tracker",
        "follow",
        "trajectory",
        "keypoints",
    ]
    FUNCTION = "track"
    RETURN_TYPES = ("STRING", "IMAGE")
    RETURN_NAMES = ("tracks", "frames")
    OUTPUT_TOOLTIPS = (
        "Place and visibility of every point in every frame, as JSON, for SaveTracks.",
        "The clip with the points drawn: a dot with a trail where a point is seen, a ring where it is hidden.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "layers": LAYERS,
                "points": (
                    "STRING",
                    {
                        "default": '[{"frame": 0, "x": 12.5, "y": 80.0}]',
                        "multiline": True,
                        "tooltip": "The points as JSON, typed or from LoadPoints: frame, counted from 0, and x and y "
                        "in pixels of the clip; (0, 0) is the centre of the first pixel.",
                    },
                ),
            },
        }

    @classmethod
    def foresee(
        cls, layers: Layers | None = None, points: str | None = None, **_: object
    ) -> tuple[None, Tensor | None]:
        from ..vdp_core.edit.points import check_points
        from ..vdp_core.edit.track_files import parse_points
        from ..vdp_core.models.atlas import MODEL

        given = [] if points is None else parse_points(points)
        if layers is None:
            return None, None
        MODEL.require(layers, "TrackPoints")
        check_points(given, len(layers))
        return None, host.frames_like(layers.frames, layers.alpha)

    def track(self, layers: Layers, points: str) -> tuple[str, Tensor]:
        from ..vdp_core.edit.points import draw, follow
        from ..vdp_core.edit.track_files import parse_points, tracks_text

        given = parse_points(points)

        def work(device: torch.device, on_step: host.OnStep) -> tuple[Tracks, Tensor]:
            tracks = follow(layers, given, device=device, on_step=on_step)
            return tracks, draw(layers.frames, tracks, device=device, on_step=on_step)

        memory = host.native_memory(layers.frames)
        done = host.compute("Tracking points", len(layers), work, memory=memory, previews=False)
        tracks, drawn = done.result
        seen = 100.0 * float(tracks.visible.float().mean())
        outside = sum(not bool(tracks.visible[number, point.frame]) for number, point in enumerate(given))
        note = f"{_counted(outside)} outside the frame: followed all the same, never seen" if outside else ""
        text = f"{_counted(len(given))} in {host.described(layers.frames)}, seen in {seen:.0f} %"
        host.say(done.with_warning(f"tracked: {text}", note))
        (frames,) = host.hand_on(drawn)
        return tracks_text(tracks), host.with_alpha(frames, layers.alpha)


class SaveTracks(host.Foreseeing):
    """Write tracks to a file."""

    CATEGORY = "VDP/points"
    DESCRIPTION = (
        "Saves tracks of TrackPoints in one file: JSON, a Tracker node to paste into Nuke, or keyframes to paste into "
        "After Effects."
    )
    SEARCH_ALIASES = ["export tracks", "write tracks", "tracker", "Nuke", "After Effects", "keyframes", "JSON"]
    FUNCTION = "save"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "tracks": ("STRING", {"forceInput": True, "tooltip": "From TrackPoints.", "lazy": True}),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "vdp_tracks",
                        "tooltip": "Name in the output folder; sub-folders with /. A number is added.",
                    },
                ),
                "format": (
                    ["json", "nuke", "after effects"],
                    {
                        "default": "json",
                        "tooltip": "json: place and visibility of every frame. nuke: .nk text of a Tracker node. "
                        "after effects: .txt of keyframes, position and opacity of one layer for each point. Frames "
                        "count from 0.",
                    },
                ),
                "fps": (
                    "FLOAT",
                    {
                        "default": 24.0,
                        "min": 0.01,
                        "max": 1000.0,
                        "step": 0.01,
                        "round": False,
                        "tooltip": "Frames a second of the clip, from LoadFrames; only After Effects asks for it.",
                    },
                ),
            },
            "hidden": {"prompt": "PROMPT"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: str | None = None) -> bool | str:
        return host.prefix_verdict(filename_prefix)

    @classmethod
    def foresee(cls, **_: object) -> tuple[()]:
        return ()

    def save(
        self,
        tracks: str,
        filename_prefix: str = "vdp_tracks",
        format: str = "json",
        fps: float = 24.0,
        prompt: object = None,
    ) -> dict[str, Any]:
        from ..vdp_core.edit.track_files import parse_tracks, save_tracks

        found = parse_tracks(tracks)
        path = host.output_path(host.fill_prefix(filename_prefix, prompt=prompt, size=found.size[::-1]))
        saved = save_tracks(tracks, path, format=format, fps=fps).relative_to(host.output_folder()).as_posix()
        count, frames = found.visible.shape
        host.say(f"saved: {saved}, {_counted(count)} in {frames} frame{'s' * (frames != 1)}")
        return {"ui": {"vdp_outputs": [saved]}, "result": ()}
