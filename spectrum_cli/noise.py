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


def silence(quiet: bool = False) -> None:
    """To be called before diffusers and transformers are imported.

    Progress bars and warnings of theirs are turned off, but for diffusers' own warnings on a
    prompt or a value that it changed: those are passed on, a line each, unless `quiet`.
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
    if not quiet:
        logger.addHandler(_PassOn(logging.WARNING))


class _PassOn(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # What fails in loading is an error; that guiders may change is no concern of a user's.
        if not record.name.endswith(("pipeline_utils", "modeling_utils", "guider_utils")):
            say(_sentence(" ".join(record.getMessage().split())), style="dim")


def _sentence(told: str) -> str:
    """What diffusers says, and in plain words if it is that a prompt was cut."""
    cut = re.search(r"part of your input was truncated because .*?(\d+) tokens: (.*)", told)
    if cut is None:
        return f"diffusers: {told}"
    lost = " ".join(re.findall(r"'([^']*)'", cut[2])) or cut[2]
    return f"note: the model reads {cut[1]} tokens of a prompt; these words were lost: {lost}"
