"""The one-time code that lets in a client that is to leave its key: at most one, for a while, with few guesses.

Layer: remote; one file of `Home`, and a clock.

What is kept is not the code, but what a login needs to check it. A guess is counted when it has come and before it is
looked at, and one login uses the code up, however many session processes are at it at once. Who only asks for the
challenge has not guessed, and learns nothing to guess with.
"""

from __future__ import annotations

import hmac
import time
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import BeaconError

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.remote.home import Home

__all__ = ["PAIRING_GUESSES", "PAIRING_SECONDS", "Offer", "Pairing"]

PAIRING_SECONDS = 600.0  # to walk from one machine to the other
PAIRING_GUESSES = 10  # of 2**50 codes, so a stranger's chance is nil; and a user may mistype it


class Offer(NamedTuple):
    """The code that is valid now.

    Attributes:
        verifier: what a login needs to check it, as it was given to `Pairing.offer`.
        made: when, in seconds of the clock.
        expires: when it ends.
        guesses: how many are left.
    """

    verifier: bytes
    made: float
    expires: float
    guesses: int


class Pairing:
    """The one code of a beacon.

    Args:
        home: where it is kept.
        clock: seconds since 1970, as ``time.time``: it has to go on when the machine starts anew.

    Raises (each method):
        AuthenticationError: others can read the file.
        BeaconError: the file is damaged, or cannot be read or written; no code is valid.

    Threads: any; processes too.
    """

    def __init__(self, home: Home, clock: Callable[[], float] = time.time) -> None:
        self._home = home
        self._path = home.pairing
        self._clock = clock

    def offer(self, verifier: bytes, seconds: float = PAIRING_SECONDS, guesses: int = PAIRING_GUESSES) -> Offer:
        """Let a code in until it expires; the one before is void.

        Args:
            verifier: what a login needs to check it; not the code itself.
            seconds: for how long.
            guesses: how many logins may try.
        """
        now = self._clock()
        offer = Offer(verifier, now, now + seconds, guesses)
        with self._home.lock():
            self._write(offer)
        return offer

    def current(self) -> Offer | None:
        """Return the code that is valid now, without using it; None if there is none."""
        return self._read()

    def guess(self, verifier: bytes) -> bool:
        """Count a guess at a code, before it is looked at; tell whether it is valid, and had one left.

        Args:
            verifier: what the guess is going to be checked with: of what `current` has returned.
        """
        with self._home.lock():
            offer = self._read()
            if offer is None or not hmac.compare_digest(offer.verifier, verifier):
                return False
            self._write(offer._replace(guesses=offer.guesses - 1))
            return True

    def redeem(self, verifier: bytes) -> bool:
        """Use a code up that was proved; tell whether it was there to be used: to one caller only, of all processes.

        Args:
            verifier: what it was proved with.
        """
        with self._home.lock():
            offer = self._read(spent=True)
            if offer is None or not hmac.compare_digest(offer.verifier, verifier):
                return False
            self._home.write(self._path, "")
            return True

    def cancel(self) -> bool:
        """Let the code in no more; tell whether one was valid."""
        with self._home.lock():
            valid = self._read() is not None
            self._home.write(self._path, "")
            return valid

    def _read(self, *, spent: bool = False) -> Offer | None:
        """Return the code if it is valid; ``spent``: also one whose last guess is being made."""
        text = self._home.read(self._path, secret=True)
        if not text.strip():
            return None
        try:
            verifier, made, expires, guesses = text.split()
            offer = Offer(bytes.fromhex(verifier), float(made), float(expires), int(guesses))
        except ValueError:
            raise BeaconError(f"{self._path} is damaged: remove it, and make a new code") from None
        # Where the clock was set back before it was made, nobody knows how long ago that was.
        valid = offer.made <= self._clock() < offer.expires and offer.guesses > (-1 if spent else 0)
        return offer if valid else None

    def _write(self, offer: Offer) -> None:
        self._home.write(self._path, f"{offer.verifier.hex()} {offer.made!r} {offer.expires!r} {offer.guesses}\n")
