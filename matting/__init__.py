"""Images, trimaps, compositing, foreground colours and the four metrics: no PyTorch here."""
