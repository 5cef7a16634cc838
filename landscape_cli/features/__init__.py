"""Features of a pretrained, a trained or a random network instead of pixels: found, computed once, cached."""
