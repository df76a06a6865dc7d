"""The file packed.safetensors."""
