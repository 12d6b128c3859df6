// What the graph editor shows beyond plain widgets. No workflow needs it to run.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const VIDEO = /\.(mp4|m4v|mov|webm|mkv)$/i;
const PICTURE = /\.(png|jpe?g|webp|gif|bmp)$/i;

function complain(text) {
  app.extensionManager?.toast?.add({ severity: "error", summary: "Load Frames (VDP)", detail: text, life: 10000 });
}

/** Put a file into ComfyUI's input folder; gives its path there. */
async function upload(file) {
  const body = new FormData();
  body.append("image", file);
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (answer.status === 413) {
    throw new Error(`${file.name} is larger than this ComfyUI takes; type its path instead`);
  }
  if (answer.status !== 200) {
    throw new Error(`${file.name} could not be uploaded: ${answer.status} ${answer.statusText}`);
  }
  const { name, subfolder } = await answer.json();
  return subfolder ? `${subfolder}/${name}` : name;
}

/** The files that core's own loaders offer, so that no file is asked for that is not there. */
function filesInInputFolder() {
  const names = [];
  for (const [type, input] of [["LoadVideo", "file"], ["LoadImage", "image"]]) {
    const declared = globalThis.LiteGraph?.registered_node_types?.[type]?.nodeData?.input?.required?.[input];
    const options = Array.isArray(declared?.[0]) ? declared[0] : declared?.[1]?.options;
    names.push(...(Array.isArray(options) ? options : []));
  }
  return new Set(names);
}

/** A player of the chosen file below the widgets, for files in the input folder: browsers see no others. */
function previewOf(node) {
  const frame = document.createElement("div");
  const widget = node.addDOMWidget("vdp_preview", "preview", frame, { serialize: false, hideOnZoom: false });
  widget.serialize = false;
  let height = 0;
  widget.computeLayoutSize = () => ({ minHeight: height, minWidth: 0 });

  function fit(width, tall) {
    height = width ? Math.round(((node.size[0] - 20) * tall) / width) : 0;
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
    app.graph?.setDirtyCanvas(true, true);
  }

  return function show(path) {
    frame.replaceChildren();
    fit(0, 0);
    const isVideo = VIDEO.test(path);
    if ((!isVideo && !PICTURE.test(path)) || /^([/\\~]|[a-z]:)|[*?[\]]/i.test(path)) return;
    const parts = path.replaceAll("\\", "/").split("/");
    const query = new URLSearchParams({ filename: parts.pop(), subfolder: parts.join("/"), type: "input" });
    const shown = document.createElement(isVideo ? "video" : "img");
    Object.assign(shown, { loop: true, muted: true, autoplay: true, controls: true, playsInline: true });
    shown.style.width = "100%";
    shown.addEventListener("loadedmetadata", () => fit(shown.videoWidth, shown.videoHeight));
    shown.addEventListener("load", () => fit(shown.naturalWidth, shown.naturalHeight));
    shown.src = api.apiURL(`/view?${query}`);
    frame.replaceChildren(shown);
  };
}

function addUpload(node) {
  const path = node.widgets?.find((widget) => widget.name === "path");
  if (!path) return;

  async function take(file) {
    try {
      path.value = await upload(file);
      show(path.value);
    } catch (error) {
      complain(error.message);
    }
  }

  const chooser = document.createElement("input");
  Object.assign(chooser, { type: "file", accept: "video/*,image/*" });
  chooser.addEventListener("change", () => {
    if (chooser.files.length) take(chooser.files[0]);
    chooser.value = "";
  });
  const button = node.addWidget("button", "choose file to upload", null, () => chooser.click(), { serialize: false });
  button.serialize = false;
  const show = previewOf(node);

  const typed = path.callback;
  path.callback = function (value, ...rest) {
    typed?.call(this, value, ...rest);
    show(value);
  };
  const configured = node.onConfigure;
  node.onConfigure = function (...saved) {
    configured?.apply(this, saved);
    if (filesInInputFolder().has(path.value)) show(path.value);
  };
  node.onDragOver = (event) => [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file");
  node.onDragDrop = (event) => {
    const file = [...event.dataTransfer.files].find(({ type }) => /^(video|image)\//.test(type));
    if (file) take(file);
    return Boolean(file);
  };
}

/** A new seed would mean a new optimisation at every run, where a person moved a slider after it. */
function keepSeed(node) {
  const seed = node.widgets?.find((widget) => widget.name === "seed");
  const control = seed?.linkedWidgets?.[0];
  if (control) control.value = "fixed";
}

/** Widgets that the chosen task does not take are out of sight, unless something is linked to them. */
function showWhatTheTaskTakes(node) {
  const declared = node.constructor.nodeData?.input?.optional ?? {};
  const task = node.widgets?.find((widget) => widget.name === "task");
  if (!task) return;

  function show() {
    for (const widget of node.widgets) {
      const takers = declared[widget.name]?.[1]?.shown_where?.task;
      if (!takers) continue;
      const isLinked = node.inputs?.some((input) => input.widget?.name === widget.name && input.link != null);
      widget.hidden = !takers.includes(task.value) && !isLinked;
      widget.options = { ...widget.options, hidden: widget.hidden };
      // some releases keep room for what is hidden: the height of a widget and 4 pixels
      if (widget.hidden) widget.computeSize = () => [0, -4];
      else delete widget.computeSize;
    }
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
    app.graph?.setDirtyCanvas(true, true);
  }

  const chosen = task.callback;
  task.callback = function (...given) {
    chosen?.apply(this, given);
    show();
  };
  const configured = node.onConfigure;
  node.onConfigure = function (...saved) {
    configured?.apply(this, saved);
    show();
  };
  show();
}

app.registerExtension({
  name: "vdp.nodes",
  nodeCreated(node) {
    if (node.comfyClass === "LoadFrames") addUpload(node);
    if (node.comfyClass === "VDPOptimize") {
      keepSeed(node);
      showWhatTheTaskTakes(node);
    }
  },
});
