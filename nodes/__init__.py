"""The nodes, one file per family. Ids and the order of widgets are for ever: saved workflows hold them."""

from .decompose import VDPOptimize
from .detect import DetectMasks
from .edit import Deflicker, Dehaze, Relight
from .flashes import FlashSafety
from .flow import FlowToRGB, LoadFlow, RAFTFlow, SaveFlow
from .layers import Composite, LoadLayers, ReplaceLayer, SaveLayers, SplitLayers
from .matte import KeyScreen, MatteVideo
from .measure import MeasureVideo
from .paint import EditAtlas, EditFrame
from .points import LoadPoints, SaveTracks, TrackPoints
from .textures import AtlasTexture
from .video import DetectShots, LoadFrames, SaveFrames

NODE_CLASS_MAPPINGS: dict[str, type] = {
    "LoadFrames": LoadFrames,
    "DetectShots": DetectShots,
    "DetectMasks": DetectMasks,
    "RAFTFlow": RAFTFlow,
    "FlowToRGB": FlowToRGB,
    "SaveFlow": SaveFlow,
    "LoadFlow": LoadFlow,
    "VDPOptimize": VDPOptimize,
    "Relight": Relight,
    "Dehaze": Dehaze,
    "Deflicker": Deflicker,
    "MatteVideo": MatteVideo,
    "KeyScreen": KeyScreen,
    "SplitLayers": SplitLayers,
    "ReplaceLayer": ReplaceLayer,
    "Composite": Composite,
    "AtlasTexture": AtlasTexture,
    "EditAtlas": EditAtlas,
    "EditFrame": EditFrame,
    "SaveLayers": SaveLayers,
    "LoadLayers": LoadLayers,
    "LoadPoints": LoadPoints,
    "TrackPoints": TrackPoints,
    "SaveTracks": SaveTracks,
    "FlashSafety": FlashSafety,
    "SaveFrames": SaveFrames,
    "MeasureVideo": MeasureVideo,
}

NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "LoadFrames": "Load Frames (VDP)",
    "DetectShots": "Detect Shots (VDP)",
    "DetectMasks": "Detect Masks (VDP)",
    "RAFTFlow": "RAFT Flow (VDP)",
    "FlowToRGB": "Flow to RGB (VDP)",
    "SaveFlow": "Save Flow (VDP)",
    "LoadFlow": "Load Flow (VDP)",
    "VDPOptimize": "Optimize (VDP)",
    "Relight": "Relight (VDP)",
    "Dehaze": "Dehaze (VDP)",
    "Deflicker": "Deflicker (VDP)",
    "MatteVideo": "Matte Video (VDP)",
    "KeyScreen": "Key Screen (VDP)",
    "SplitLayers": "Split Layers (VDP)",
    "ReplaceLayer": "Replace Layer (VDP)",
    "Composite": "Composite (VDP)",
    "AtlasTexture": "Atlas Texture (VDP)",
    "EditAtlas": "Edit Atlas (VDP)",
    "EditFrame": "Edit Frame (VDP)",
    "SaveLayers": "Save Layers (VDP)",
    "LoadLayers": "Load Layers (VDP)",
    "LoadPoints": "Load Points (VDP)",
    "TrackPoints": "Track Points (VDP)",
    "SaveTracks": "Save Tracks (VDP)",
    "FlashSafety": "Flash Safety (VDP)",
    "SaveFrames": "Save Frames (VDP)",
    "MeasureVideo": "Measure Video (VDP)",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
