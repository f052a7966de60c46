"""Images, trimaps, compositing, foreground colours and the four metrics: NumPy and OpenCV only."""
