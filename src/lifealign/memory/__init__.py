"""Short-to-long memory consolidation: adapters as tensors, denoising, projection, and what is remembered."""
