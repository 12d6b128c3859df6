"""Motion between frames: of pixels, of the camera, of objects and of the background behind them."""
