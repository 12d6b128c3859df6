from __future__ import annotations

from comfyui_vdp.vdp_core.image.plot import Curve, plot


def test_a_plot_shades_what_is_marked_and_draws_its_curves():
    empty = plot("", [Curve([0.0] * 11, (255, 255, 255), "")], fps=10, span=(0.0, 1.0))
    marked = plot("", [Curve([0.0] * 11, (255, 255, 255), "")], fps=10, span=(0.0, 1.0), marks=[(5, 10)])
    # above the line in the middle
    changed = (marked - empty).abs().amax(dim=2)[40:110]
    assert float(changed[:, :450].max()) == 0.0
    assert float(changed[:, 560:930].min()) > 0.0
    line = plot("", [Curve([1.0, 0.0], (255, 0, 0), "")], fps=1, span=(0.0, 1.0))
    red = ((line[..., 0] - line[..., 1]) > 0.5).nonzero()
    assert red[red[:, 1].argmin(), 0] < 60  # falls from the upper left
    assert red[red[:, 1].argmax(), 0] > 180
