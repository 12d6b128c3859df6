"""The core: video decomposition without any host."""
