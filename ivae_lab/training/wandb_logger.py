"""wandb, for those who want it: online where it can be, else offline (`wandb sync` uploads later)."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

_HOST = "api.wandb.ai"


def wandb_logger(folder: Path, config: dict[str, Any]) -> WandbLogger:
    """A logger that writes under the run folder; WANDB_MODE, where set, decides between online and offline."""
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() and _reachable() else "offline")
    os.environ["WANDB_MODE"] = mode
    os.environ.setdefault("WANDB_SILENT", "true")
    return WandbLogger(
        project="ivae_lab",
        name=folder.name,
        id=folder.name,
        save_dir=folder,
        offline=mode != "online",
        resume="allow" if mode == "online" else None,
        config=config,
    )


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _reachable() -> bool:
    import socket

    try:
        socket.create_connection((_HOST, 443), timeout=3).close()
    except OSError:
        return False
    return True
