"""Video in and out: LoadFrames and SaveFrames."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from . import host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

PREVIEW_SIDE = 512  # pixels; the long side of the mp4 that stands in for what browsers cannot play


class LoadFrames:
    """Read a video, a folder of pictures or a glob."""

    CATEGORY = "VDP/video"
    DESCRIPTION = (
        "Reads a video (mp4, mov, webm, mkv, gif, ...), a folder of pictures in natural order, or a pattern such as "
        "frames/*.png or frame_%04d.png, as frames with their alpha, sound and exact rate."
    )
    SEARCH_ALIASES = [
        "load video",
        "read video",
        "open video",
        "import video",
        "video loader",
        "image sequence",
        "load images from folder",
        "extract frames",
    ]
    FUNCTION = "load"
    RETURN_TYPES = ("IMAGE", "MASK", "AUDIO", "FLOAT", "INT")
    RETURN_NAMES = ("frames", "alpha", "audio", "fps", "frame_count")
    OUTPUT_TOOLTIPS = (
        "The frames taken.",
        "Opacity, 1 = opaque; all ones when the source holds no alpha.",
        "The sound that belongs to the frames taken; nothing when the source is silent.",
        "Rate of the frames taken: the source's, divided by every_nth.",
        "How many frames were taken.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from ..vdp_core.media.formats import TIMINGS

        return {
            "required": {
                "path": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "A video file, a folder of pictures, or a pattern such as *.png. A relative path is "
                        "looked up in the input folder first, then where the program was started.",
                    },
                ),
                "start": (
                    "INT",
                    {"default": 0, "min": 0, "max": 10_000_000, "tooltip": "Frames to leave out at the beginning."},
                ),
                "count": (
                    "INT",
                    {"default": 0, "min": 0, "max": 10_000_000, "tooltip": "Most frames to take; 0 takes all."},
                ),
                "every_nth": (
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": 10_000,
                        "advanced": True,
                        "tooltip": "Take one frame out of this many; the rate is divided by it, so the speed stays.",
                    },
                ),
                "max_side": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 32_768,
                        "tooltip": "Largest width or height in pixels; larger frames are scaled down while reading, "
                        "keeping their shape. 0 leaves them as they are.",
                    },
                ),
            },
            "optional": {
                "timing": (
                    list(TIMINGS),
                    {
                        "default": "constant",
                        "advanced": True,
                        "tooltip": "For videos of variable rate. constant: frames are repeated and left out by their "
                        "times, so that picture and sound stay together. as recorded: every frame once, at the "
                        "average rate.",
                    },
                ),
                "sound_track": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 1000,
                        "advanced": True,
                        "tooltip": "Which sound to take where there are several, from 1; 0 takes the default one.",
                    },
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, path: str | None) -> bool | str:
        """Say before anything runs that a typed path leads nowhere; a linked one is None here and known later."""
        if path is None:
            return True
        try:
            found = host.input_path(path)
        except ValueError as error:
            return str(error)
        if host.is_there(found):
            if found.is_file() or found.is_dir():
                return True
            return f"path: is a device or a pipe, which cannot be read as a clip: {found}"

        from ..vdp_core.media.source import find_matches, is_pattern

        try:
            if next(find_matches(str(found)), None) is not None:
                return True
        except OSError as error:  # what MediaError is
            return f"path: {error}"
        if is_pattern(str(found)):
            return f"path: no file matches this pattern: {found}"
        return f"path: there is no such file or folder: {found}"

    @classmethod
    def IS_CHANGED(cls, path: str | None = None, unique_id: str | None = None, **_: object) -> str:
        from ..vdp_core.media import clip as video

        return host.changed(unique_id, path, video.fingerprint)

    def load(
        self,
        path: str,
        start: int = 0,
        count: int = 0,
        every_nth: int = 1,
        max_side: int = 0,
        timing: str = "constant",
        sound_track: int = 0,
        unique_id: str | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Any] | None, float, int]:
        from ..vdp_core.media import clip as video

        source, started = host.input_path(path), time.perf_counter()
        with host.progress(count or 1, "Reading frames") as on_step:
            clip = video.read_clip(
                source,
                start=start,
                count=count,
                every_nth=every_nth,
                max_side=max_side,
                timing=timing,
                sound_track=sound_track,
                on_step=on_step,
            )
        host.remember(unique_id, source, video.fingerprint)
        sound = "no sound" if clip.audio is None else "with sound"
        rate = f"{float(clip.fps):.6g} fps"
        facts = [host.described(clip.frames), rate, *clip.done, sound, f"{time.perf_counter() - started:.1f} s"]
        host.say(f"read: {', '.join(facts)}", f"{source.name}: {'; '.join(clip.notes)}" if clip.notes else "")
        frames, alpha = host.hand_on(clip.frames, clip.alpha)
        if clip.has_alpha:
            frames = host.with_alpha(frames, alpha)
        return frames, alpha, clip.audio, float(clip.fps), len(frames)


class SaveFrames(host.Foreseeing):
    """Write frames to a video or a PNG sequence."""

    CATEGORY = "VDP/video"
    DESCRIPTION = (
        "Writes frames to an H.264 mp4, an H.265 mp4 of 10 bit, a VP9 webm (with alpha), a ProRes 4444 mov (with "
        "alpha, for editing) or a PNG or EXR sequence (exact, with alpha), with sound. A mask becomes white on black. "
        "A file appears whole or not at all."
    )
    SEARCH_ALIASES = [
        "save video",
        "export video",
        "write video",
        "video combine",
        "render video",
        "image sequence",
        "save alpha",
        "transparent video",
        "mp4",
        "webm",
        "prores",
        "hevc",
        "10 bit",
    ]
    FUNCTION = "save"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from ..vdp_core.media.formats import FORMATS, MOST_MEGABITS

        return {
            "required": {
                "frames": (
                    "IMAGE,MASK",
                    {
                        "tooltip": "The frames to write. A mask is written as a picture, white where it is selected.",
                        "lazy": True,
                    },
                ),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "vdp",
                        "tooltip": "Name in the output folder, sub-folders allowed; a number is added. "
                        "%date:yyyy-MM-dd%, %width%, %height% and %NODE.widget% are filled in.",
                    },
                ),
                "format": (
                    list(FORMATS),
                    {
                        "default": "mp4",
                        "tooltip": "mp4: plays everywhere, no alpha. webm: for the web, alpha. prores4444: for "
                        "editing, 10 bit, alpha, large. png: a folder of pictures, exact, alpha. exr: the same in "
                        "linear half floats. h265: an mp4 of 10 bit, no alpha.",
                    },
                ),
                "fps": host.rate("Frames a second; 23.976, 29.97 and 59.94 become the exact broadcast rates."),
                "quality": (
                    "INT",
                    {
                        "default": 80,
                        "min": 1,
                        "max": 100,
                        "tooltip": "For mp4, webm and h265: 80 is visually near lossless, 50 is small. ProRes and PNG "
                        "have one quality.",
                    },
                ),
            },
            "optional": {
                "alpha": (
                    "MASK",
                    {
                        "tooltip": "Opacity, 1 = opaque; one mask for all frames or one each. mp4 and h265 cannot hold "
                        "it. Unlinked: the alpha that the clip came with, where the frames still carry it."
                    },
                ),
                "audio": ("AUDIO", {"tooltip": "Sound, cut where the frames end."}),
                "bitrate": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": float(MOST_MEGABITS),
                        "step": 0.1,
                        "round": 0.001,
                        "advanced": True,
                        "tooltip": "For mp4, webm and h265: megabits a second of the picture, in place of quality. 0: "
                        "by quality.",
                    },
                ),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: str | None = None, format: str | None = None) -> bool | str:
        from ..vdp_core.errors import VDPError
        from ..vdp_core.media.encode import check_encoder
        from ..vdp_core.media.formats import FORMATS

        # ComfyUI leaves to this what it names.
        if format is not None and format not in FORMATS:
            return f"format: expected one of {', '.join(FORMATS)}, got {format!r}"
        try:
            if format is not None and FORMATS[format].codec:
                check_encoder(FORMATS[format].codec)
        except VDPError as error:
            return str(error)
        return host.prefix_verdict(filename_prefix)

    @classmethod
    def foresee(
        cls, frames: Tensor | None = None, format: str = "mp4", alpha: Tensor | None = None, **_: object
    ) -> tuple[()]:
        from ..vdp_core.checks import check_mask

        clip = _as_pictures(frames)
        alpha = host.known(host.given_mask(alpha))
        _opacity(host.known(clip), alpha, format)
        if alpha is not None and clip is not None:
            check_mask(alpha, "alpha", count=len(clip), size=(clip.shape[1], clip.shape[2]))
        return ()

    def save(
        self,
        frames: Tensor,
        filename_prefix: str = "vdp",
        format: str = "mp4",
        fps: float = 24.0,
        quality: int = 80,
        alpha: Tensor | None = None,
        audio: dict[str, Any] | None = None,
        bitrate: float = 0.0,
        prompt: object = None,
        extra_pnginfo: object = None,
    ) -> dict[str, Any]:
        from ..vdp_core.media import clip as video

        frames = _as_pictures(frames)
        alpha, lost = _opacity(frames, host.given_mask(alpha), format)
        frames = frames[..., :3] if frames.shape[-1] == 4 else frames
        audio, missing = _sound(audio)
        workflow = extra_pnginfo.get("workflow") if isinstance(extra_pnginfo, dict) else None
        size = (frames.shape[2], frames.shape[1])
        prefix = host.fill_prefix(filename_prefix, prompt=prompt, workflow=workflow, size=size)
        started = time.perf_counter()
        with host.progress(len(frames), "Writing frames") as on_step:
            path = video.write_clip(
                host.output_path(prefix),
                frames,
                fps=fps,
                format=format,
                quality=quality,
                bitrate=bitrate,
                alpha=alpha,
                audio=audio,
                metadata=host.embed_metadata(prompt, extra_pnginfo),
                numbered=True,
                on_step=on_step,
            )
        written = path.relative_to(host.output_folder())
        summary = f"saved: {written.as_posix()}, {host.described(frames)}, {time.perf_counter() - started:.1f} s"
        host.say(summary, lost, missing)
        shown: dict[str, str]
        if format in ("mp4", "webm"):
            shown = {"filename": path.name, "subfolder": "/".join(written.parent.parts), "type": "output"}
        elif not host.has_viewer():
            shown = {}
        else:
            try:
                preview = self._write_preview(path, frames, fps, alpha, audio)
                shown = {"filename": preview.name, "subfolder": "", "type": "temp"}
            except OSError as error:  # what was asked for is there
                host.say(summary, f"there is no preview ({error})")
                shown = {}
        return {
            "ui": {"images": [shown] if shown else [], "animated": (True,), "vdp_outputs": [written.as_posix()]},
            "result": (),
        }

    @staticmethod
    def _write_preview(
        path: Path, frames: Tensor, fps: float, alpha: Tensor | None, audio: dict[str, Any] | None
    ) -> Path:
        """A small mp4 in the temp folder, over black where there is alpha, for the node to play."""
        import uuid

        from ..vdp_core.media import clip as video

        target = host.temp_folder() / f"{path.stem}_{uuid.uuid4().hex[:8]}"
        return video.write_clip(target, _preview_frames(frames, alpha), fps=fps, quality=60, audio=audio)


def _as_pictures(frames: Any) -> Any:
    """A mask as pictures of one channel; anything else as it is."""
    if getattr(frames, "ndim", 4) in (2, 3):
        return (frames if frames.ndim == 3 else frames[None])[..., None]
    return frames


def _opacity(frames: Tensor | None, alpha: Tensor | None, format: str) -> tuple[Tensor | None, str]:
    """What is given as alpha, else what the frames carry where the format holds it; and what is to be said about it.

    Raises:
        InputError: alpha is linked, or the frames' fourth channel, and says something, but the format cannot hold it.
    """
    from ..vdp_core.media import clip as video
    from ..vdp_core.media.formats import FORMATS, alpha_left_out, check_holds_alpha

    own = host.alpha_of(frames)
    if frames is not None and frames.shape[-1] == 4 and alpha is None:
        own, alpha = None, own
    carried = own if alpha is None else None
    if format not in FORMATS or FORMATS[format].holds_alpha:
        return carried if alpha is None else alpha, ""
    if alpha is not None and not video.says_nothing(alpha):
        check_holds_alpha(format)
    if carried is None or video.says_nothing(carried):
        return None, ""
    return None, alpha_left_out(format)


def _sound(audio: Any) -> tuple[dict[str, Any] | None, str]:
    """Sound as a plain dict, and what is to be said about it.

    Other packs' loaders hand on a mapping that decodes when it is looked into, and fails where the clip is silent.
    """
    if audio is None or isinstance(audio, dict):
        return audio, ""
    try:
        return {"waveform": audio["waveform"], "sample_rate": audio["sample_rate"]}, ""
    except Exception as error:
        if host.is_interruption(error):
            raise
        return None, f"the sound could not be read, so there is none ({error})"


def _preview_frames(frames: Tensor, alpha: Tensor | None, chunk: int = 8) -> Iterator[Tensor]:
    """Frames averaged down to PREVIEW_SIDE, a few at a time, multiplied by their alpha."""
    from torch.nn.functional import interpolate

    from ..vdp_core.image.resize import size_within

    size = size_within(frames.shape[1], frames.shape[2], PREVIEW_SIDE)
    for first in range(0, len(frames), chunk):
        part = frames[first : first + chunk]
        colour = part[..., :3].float()
        if alpha is not None:
            mattes = alpha if alpha.ndim == 3 else alpha.reshape(-1, *alpha.shape[-2:])
            colour = colour * (mattes[first : first + chunk] if len(mattes) > 1 else mattes)[..., None]
        elif part.shape[-1] == 4:
            colour = colour * part[..., 3:]
        yield interpolate(colour.movedim(-1, 1), size=size, mode="area").movedim(1, -1)


class DetectShots(host.Foreseeing):
    """Show where a clip cuts."""

    CATEGORY = "VDP/video"
    DESCRIPTION = (
        "Finds where a clip cuts from one shot to the next, also in a dissolve or a fade through black, and shows the "
        "first frame of each shot. RAFT Flow looks for shots by itself: this node shows what it goes by."
    )
    SEARCH_ALIASES = ["scene detection", "shot detection", "cut detection", "split scenes", "scene change", "dissolve"]
    FUNCTION = "detect"
    RETURN_TYPES = ("IMAGE", "STRING", "INT")
    RETURN_NAMES = ("first_frames", "shots", "count")
    OUTPUT_TOOLTIPS = (
        "The first frame of each shot.",
        "First and last frame of each shot, a line each, such as 0-29.",
        "How many shots there are.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"frames": ("IMAGE", {"tooltip": "The clip, two frames or more."})}}

    @classmethod
    def foresee(cls, **_: object) -> tuple[None, None, None]:
        return None, None, None

    def detect(self, frames: Tensor) -> tuple[Tensor, str, int]:
        from ..vdp_core.motion.flow import find_cuts

        frames = host.on_cpu(frames)
        with host.progress(len(frames), "Looking for cuts") as on_step:
            cuts = find_cuts(frames, on_step=on_step)
        first = [0, *cuts]
        shots = [f"{start}-{end - 1}" for start, end in zip(first, [*cuts, len(frames)], strict=True)]
        host.say(f"{len(shots)} shot{'s' * (len(shots) > 1)}: {', '.join(shots)}")
        (pictures,) = host.hand_on(frames[first])
        return pictures, "\n".join(shots), len(shots)
