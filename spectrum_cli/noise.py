"""Other libraries' chatter, kept off a user's screen."""

from __future__ import annotations

import logging
import os
import re
import warnings

from spectrum_cli.output import say


def hush() -> None:
    """What can be done without importing them: of the hub and torch all is heard as an error."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # not a line for each of its retries
    warnings.simplefilter("ignore")


def silence(quiet: bool = False, model: str = "the model") -> None:
    """To be called before diffusers and transformers are imported.

    Progress bars and warnings of theirs are turned off, but for diffusers' own warnings on a
    prompt or a value that it changed: those are passed on, a line each and once, unless `quiet`.
    """
    hush()
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    diffusers_logging.disable_default_handler()
    for chatty in ("matplotlib", "torchao", "torch.utils._pytree"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    logger = logging.getLogger("diffusers")
    for handler in [h for h in logger.handlers if isinstance(h, _PassOn)]:
        logger.removeHandler(handler)
    logger.addHandler(_PassOn(quiet, model))  # with none at all, Python prints them by itself


class _PassOn(logging.Handler):
    def __init__(self, quiet: bool, model: str) -> None:
        super().__init__(logging.WARNING)
        self._quiet, self._model = quiet, model
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        # What fails in loading is an error; that guiders may change is no concern of a user's.
        if record.name.endswith(("pipeline_utils", "modeling_utils", "guider_utils")):
            return
        told = _sentence(" ".join(record.getMessage().split()), self._model)
        if not self._quiet and told not in self._said:
            self._said.add(told)
            say(told, style="dim")


def _sentence(told: str, model: str) -> str:
    """What diffusers says, and in plain words if it is that a prompt was cut: without the words
    that it lists, as some pipelines take them from another place than where they cut."""
    cut = re.search(r"input was truncated because (\S+) .*?(\d+) tokens", told)
    if cut is None:
        return f"diffusers: {told}"
    reader = model if cut[1].startswith("`") else f"{model}'s {cut[1]}"
    return (
        f"note: {reader} reads the first {cut[2]} tokens of a prompt; what is beyond is lost to it"
    )
