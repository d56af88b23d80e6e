"""Whether a run is recorded in wandb, and what is missing for it; nothing of wandb is imported unless it is online."""

import netrc
import os
import urllib.parse
from pathlib import Path

from singan.config import TrackingConfig
from singan.errors import UserError

# wandb's own words for WANDB_MODE, beside online and offline.
_OTHER_WORDS = {"disabled": "off", "dryrun": "offline", "run": "online"}


def wandb_mode(tracking: TrackingConfig) -> str:
    """Returns online, offline or off: tracking.wandb, or where it is auto WANDB_MODE, or offline without either."""
    if tracking.wandb != "auto":
        return tracking.wandb
    given = os.environ.get("WANDB_MODE", "").lower()
    word = _OTHER_WORDS.get(given, given)
    return word if word in ("online", "off") else "offline"


def check_key(tracking: TrackingConfig) -> None:
    """Raises UserError where wandb is to be online and has no key, before anything is trained in vain."""
    if wandb_mode(tracking) != "online":
        return
    import wandb

    settings = wandb.setup().settings
    if not (settings.api_key or settings.identity_token_file or _in_netrc(settings.base_url)):
        raise UserError(
            "wandb is to be online and has no key: run wandb login, set WANDB_API_KEY, or give"
            " --config.tracking.wandb=offline, whose record wandb sync uploads later"
        )


def _in_netrc(url: str) -> bool:
    """Returns whether wandb login has left a key for the server."""
    places = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for path in places:
        try:
            if netrc.netrc(path).authenticators(urllib.parse.urlsplit(url).hostname or ""):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
