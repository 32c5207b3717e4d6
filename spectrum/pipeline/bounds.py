"""The most that can be asked for: of these, plans end in a second, and files can be named."""

STEPS = 10_000
SIDE = 16_384  # pixels of a width or height
FRAMES = 10_000
FPS = 1_000
GUIDANCE = 1_000.0
IMAGES = 10_000  # of one command
