"""``klyng-mp beacon unit``: the text of a systemd unit that runs a beacon, for one user or for the system.

Layer: cli.

What is taken from a beacon is taken from the programs that it runs: a unit keeps them from what hardly any of them
needs, and leaves them devices (GPUs), memory that is written and executed (compilers at run time), and control groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.errors import BeaconError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["make_unit"]

_TEXT = """\
{about}
[Unit]
Description=Beacon of klyng_mp: lets this machine run ranks for others
{needs}StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
{user}ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Environment={environment}
UMask=0077

# Jobs end when it does, and what the kernel kills for want of memory is a job's, not the beacon.
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
TimeoutStopSec=20
KillMode=mixed
OOMPolicy=continue

# Each job has a control group below the beacon's own, so that nothing of it can escape its end: ProtectControlGroups=
# must stay off. So must ProtectProc=: sessions hide from others of their user, and would from their beacon.
Delegate=yes

# Ranks can write to the beacon's own folder, and to a /tmp of their own. Add ReadWritePaths= for others.
ProtectSystem=strict
ReadWritePaths={home}
PrivateTmp=yes

NoNewPrivileges=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
{system}
[Install]
WantedBy={target}
"""

_ABOUT_USER = """\
# For one user: klyng-mp beacon unit > ~/.config/systemd/user/klyng-mp-beacon.service, then
# systemctl --user enable --now klyng-mp-beacon; and loginctl enable-linger, so that it runs without a login."""
_ABOUT_SYSTEM = """\
# For the system: klyng-mp beacon unit --user {name} > /etc/systemd/system/klyng-mp-beacon.service, as root, then
# systemctl daemon-reload; systemctl enable --now klyng-mp-beacon."""
_NEEDS_NETWORK = """\
Wants=network-online.target
After=network-online.target
"""
# A user's own systemd may not, or cannot everywhere, do these.
_ONLY_SYSTEM = """\

CapabilityBoundingSet=
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
"""


def make_unit(command: Sequence[str], home: str, user: str | None = None) -> str:
    """Return the text of a unit.

    Args:
        command: what is to be run.
        home: the beacon's folder.
        user: whose beacon the system is to run; None for a unit of a user's own systemd.

    Raises:
        BeaconError: no unit can name such a path.
    """
    for word in (*command, home):
        if not word.isprintable():
            raise BeaconError(f"no unit can name {word!r}: use a path without control characters")
    return _TEXT.format(
        about=_ABOUT_USER if user is None else _ABOUT_SYSTEM.format(name=user),
        needs="" if user is None else _NEEDS_NETWORK,
        user="" if user is None else f"User={user}\n",
        command=" ".join(_quote(word).replace("$", "$$") for word in command),
        environment=_quote(f"KLYNG_MP_HOME={home}"),
        home=_quote(home),
        system="" if user is None else _ONLY_SYSTEM,
        target="default.target" if user is None else "multi-user.target",
    )


def _quote(word: str) -> str:
    """Return a word as systemd reads it; only where it has to be in quotes is it."""
    quoted = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return quoted if word and not set(word) & set(" \t'\"\\;") else f'"{quoted}"'
