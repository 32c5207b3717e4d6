"""A diffusers pipeline from a preset: what is asked of it, loading, sampling, files."""
