"""The presets that ship with Spectrum, one YAML a model; installed as `spectrum.presets`."""
