"""One field of vectors as a file: Middlebury's .flo, KITTI's PNG, NumPy's .npy."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError, MediaError, ShapeError
from ..image.inpaint import inpaint
from ..media.still import decoded_by_opencv

if TYPE_CHECKING:
    import numpy as np

__all__ = ["UNKNOWN", "decode", "encode_flo", "encode_kitti", "encode_npy", "head"]

FLO, PNG, NPY = b"PIEH", b"\x89PNG", b"\x93NUMPY"
UNKNOWN = 1e9  # of .flo: larger values stand for no vector
LEVELS, ZERO, TOP = 64.0, 2.0**15, 2.0**16 - 1.0  # of KITTI: a pixel, no motion, the largest value


def encode_flo(vectors: np.ndarray, seen: np.ndarray) -> bytes:
    """Middlebury: a tag, width, height, then dx and dy of each pixel, all little-endian.

    Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011.

    Args:
        vectors: ``(h, w, 2)`` float32 in pixels.
        seen: ``(h, w)``, whether a pixel is seen in the other frame; not kept.
    """
    import numpy as np

    height, width = vectors.shape[:2]
    return FLO + np.array((width, height), "<i4").tobytes() + vectors.astype("<f4").tobytes()


def encode_kitti(vectors: np.ndarray, seen: np.ndarray) -> bytes:
    """KITTI: dx and dy as 64 times pixels + 32768, and whether that is valid, in the channels of a 16-bit PNG.

    Geiger et al., "Are we ready for Autonomous Driving? The KITTI Vision Benchmark Suite", CVPR 2012. A pixel that is
    not seen in the other frame is not valid; its vector is kept all the same where it fits.

    Args:
        vectors: ``(h, w, 2)`` float32 in pixels.
        seen: ``(h, w)``, whether a pixel is seen in the other frame.

    Raises:
        InputError: a valid vector is too long.
    """
    import cv2
    import numpy as np

    levels = np.rint(vectors * LEVELS) + ZERO
    fits = np.asarray(((levels >= 0.0) & (levels <= TOP)).all(axis=-1))
    if (seen & ~fits).any():
        longest = float(np.abs(vectors[seen & ~fits]).max())
        raise InputError(f"flow: moves by {longest:.0f} pixels, and kitti holds at most 511; choose another format")
    pixels = np.dstack((seen, levels[..., 1], levels[..., 0]))  # OpenCV's order
    content = cv2.imencode(".png", np.where(fits[..., None], pixels, 0.0).astype(np.uint16))[1]
    return content.tobytes()


def encode_npy(vectors: np.ndarray, seen: np.ndarray) -> bytes:
    """NumPy's array of vectors ``(h, w, 2)``; what is seen is not kept."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(vectors))
    return content.getvalue()


def head(file: Path) -> bytes:
    """The first bytes of a file, which tell what it is."""
    with file.open("rb") as opened:
        return opened.read(8)


def decode(file: Path) -> tuple[Tensor, Tensor | None]:
    """Read a file of vectors, recognised by its first bytes.

    Returns:
        Vectors ``(2, h, w)`` float32 in pixels, filled in from around where the file says that there is none; and
        ``(h, w)``, 1 where they are valid, None where the file does not tell.

    Raises:
        MediaError, InputError: it is damaged, no flow, or holds NaN or infinite values.
        OSError, ValueError: as what reads it finds out.
    """
    import numpy as np

    begins, valid, known = head(file), None, None
    if begins.startswith(FLO):
        pixels = _read_flo(file)
        known = valid = (np.abs(pixels) <= UNKNOWN).all(axis=-1)
        valid = None if known.all() else known
    elif begins.startswith(PNG):
        levels = _read_png(file)
        pixels, valid = (levels[..., :2].astype(np.float32) - ZERO) / LEVELS, levels[..., 2] > 0
        known = valid | levels[..., :2].any(axis=-1)
    elif begins.startswith(NPY):
        pixels = np.lib.format.open_memmap(file, mode="r")
        if pixels.ndim != 3 or pixels.shape[2] != 2 or pixels.dtype.kind != "f" or 0 in pixels.shape:
            raise ShapeError(f"{file}: holds {pixels.dtype} of shape {pixels.shape}, expected floats (H, W, 2)")
    else:
        raise MediaError(f"{file}: no flow file; expected .npz, .flo, .npy, or KITTI's .png")
    vectors = torch.from_numpy(np.moveaxis(pixels, -1, 0).astype(np.float32, order="C"))
    most = UNKNOWN if known is None else torch.finfo(vectors.dtype).max
    if not bool((vectors.abs() <= most).all()):
        raise InputError(f"{file}: holds NaN or infinite values, or such as no frame has; estimate the flow again")
    if known is not None and not known.all():
        weight = torch.from_numpy(known).float()
        vectors = inpaint((vectors * weight)[None], weight[None, None])[0]
    return vectors, None if valid is None else torch.from_numpy(valid).float()


def _read_flo(file: Path) -> np.ndarray:
    import numpy as np

    content = np.memmap(file, np.uint8, mode="r")
    width, height = content[4:12].view("<i4").tolist() if len(content) >= 12 else (0, 0)
    wanted = 12 + 8 * width * height
    if width < 1 or height < 1 or len(content) != wanted:
        raise MediaError(
            f"{file}: holds {len(content)} bytes, a .flo file of {width}x{height} has {wanted}; save it again"
        )
    return content[12:].view("<f4").reshape(height, width, 2)


def _read_png(file: Path) -> np.ndarray:
    import numpy as np

    pixels = decoded_by_opencv(file)
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise MediaError(f"{file}: a picture, not flow; KITTI's PNG files of flow have 16 bits and three channels")
    return pixels[..., ::-1]
