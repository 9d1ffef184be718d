"""Keys, certificates and password proofs; the only importer of `cryptography` and `spake2`.

Layer: remote; no sockets. Imported by beacons, and by drivers with hosts; never by a rank.

A beacon keeps scrypt of its password in memory, and the password itself in a file that only its owner can read.
`spake2` says of itself that it does not run in constant time. So a beacon multiplies what depends on the secret once,
when it starts; what is left in a login depends on a fresh random number; and an answer leaves at a fixed time
(`remote.login`).
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import os
import unicodedata
from copy import copy
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from spake2 import SPAKE2_A, SPAKE2_B
from spake2.ed25519_basic import NotOnCurve
from spake2.parameters.ed25519 import ParamsEd25519
from spake2.spake2 import SPAKEError

from klyng_mp.errors import AuthenticationError
from klyng_mp.remote.private import read_private, write_private
from klyng_mp.remote.tls import Credentials, fingerprint_of, rank_name

__all__ = [
    "BeaconIdentity",
    "BeaconProof",
    "ClientKey",
    "ClientProof",
    "JobAuthority",
    "Verifier",
    "new_code",
    "new_password",
    "plain_code",
    "read_public",
    "stretch",
    "verify_signature",
]

# Of scrypt. Part of the protocol: a beacon that chose them could make a client burn, or reveal, what it likes.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 15, 8, 1
_SALT_SIZE = 16
_SCALAR_DIGITS, _DIGIT = 64, 15  # of four bits each
_SECRET_SIZE = 32
_SHARE_SIZE = 33
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # 32 that are not taken for each other (Crockford's)
_KEY_WORD = "klyng-ed25519"
_FIRST_DAY, _LAST_DAY = dt.datetime(2000, 1, 1), dt.datetime(9999, 12, 31)  # nobody looks at the times


# -- passwords -------------------------------------------------------------------------------------


def new_password() -> str:
    """Return a password of 80 random bits, in four groups that are easy to type."""
    return "-".join(_letters(4) for _ in range(4))


def new_code() -> str:
    """Return a code of 50 random bits, for one pairing: whoever guesses has one guess a connection."""
    return "-".join(_letters(5) for _ in range(2))


def plain_code(code: str) -> str:
    """Return of a code what proves it, however it was typed: its letters and digits."""
    return "".join(code.split()).replace("-", "").lower()


def _letters(count: int) -> str:
    return "".join(_ALPHABET[byte % 32] for byte in os.urandom(count))


def stretch(password: str, salt: bytes) -> bytes:
    """Return the secret that a password and a beacon's salt come to.

    Raises:
        AuthenticationError: the password is empty.

    Cost: 0.1 s of a processor and 32 MiB of memory, once a login; that is its purpose.
    """
    if not password:
        raise AuthenticationError("an empty password is never accepted: give the beacon's own")
    return hashlib.scrypt(
        unicodedata.normalize("NFC", password).encode(),
        salt=salt,
        n=_SCRYPT_N,
        r=_SCRYPT_R,
        p=_SCRYPT_P,
        maxmem=64 << 20,
        dklen=_SECRET_SIZE,
    )


class Verifier:
    """What a beacon keeps of a password or a code: the salt, the secret, and the two points that it always needs.

    Cost: 4 ms for the points, when it is made; the first one 5 ms more.
    """

    def __init__(self, salt: bytes, secret: bytes) -> None:
        self.salt = salt
        self.secret = secret
        scalar = ParamsEd25519.group.password_to_scalar(secret)
        self.blinding = ParamsEd25519.N.scalarmult(scalar)
        self.unblinding = ParamsEd25519.M.scalarmult(-scalar)
        _base_multiples()  # a session that is forked finds them

    @classmethod
    def of(cls, password: str) -> Verifier:
        """Return that of a password, with a fresh salt; costs what `stretch` does."""
        salt = os.urandom(_SALT_SIZE)
        return cls(salt, stretch(password, salt))

    @classmethod
    def of_nobody(cls) -> Verifier:
        """Return one that no password fits, to be guessed at where there is none."""
        return cls(os.urandom(_SALT_SIZE), os.urandom(_SECRET_SIZE))

    def __repr__(self) -> str:
        return "Verifier(...)"


class _Multiplied:
    """A point that was multiplied by the secret's scalar beforehand."""

    def __init__(self, product: object) -> None:
        self._product = product

    def scalarmult(self, _scalar: int) -> object:
        return self._product


@cache
def _base_multiples() -> list[list[Any]]:
    """Return, for each four bits of a scalar from the lowest, what their values are worth; costs 5 ms, once."""
    rows = []
    unit = ParamsEd25519.group.Base
    for _ in range(_SCALAR_DIGITS):
        row = [ParamsEd25519.group.Zero, unit]
        while len(row) <= _DIGIT:
            row.append(row[-1].add(unit))
        rows.append(row)
        unit = row[-1].add(unit)
    return rows


class _Base:
    """The group's base point, multiplied by looking up: the time does not depend on how many bits are set."""

    def scalarmult(self, scalar: int) -> Any:
        total = ParamsEd25519.group.Zero
        for row in _base_multiples():
            total = total.add(row[scalar & _DIGIT])
            scalar >>= 4
        return total


class _BeaconGroup:
    """What side B needs of the group: as spake2's, but that products are known beforehand, in whole or in part."""

    Base = _Base()
    random_scalar = staticmethod(ParamsEd25519.group.random_scalar)
    bytes_to_element = staticmethod(ParamsEd25519.group.bytes_to_element)

    @staticmethod
    def password_to_scalar(_secret: bytes) -> int:
        return 0  # `_Multiplied` needs none


_BEACON_PARAMETERS = copy(ParamsEd25519)
BEACON_GROUP = _BEACON_PARAMETERS.group = _BeaconGroup()


class _BeaconSide(SPAKE2_B):  # type: ignore[misc]
    """spake2's side B with the products that it would compute each time, in a time that tells of the secret."""

    def __init__(self, verifier: Verifier, names: tuple[bytes, bytes]) -> None:
        super().__init__(verifier.secret, *names, params=_BEACON_PARAMETERS)
        self._verifier = verifier

    def my_blinding(self) -> _Multiplied:
        return _Multiplied(self._verifier.blinding)

    def my_unblinding(self) -> _Multiplied:
        return _Multiplied(self._verifier.unblinding)


def _names(method: str, fingerprint: str) -> tuple[bytes, bytes]:
    # The beacon's name has its certificate: with another one in between, the two sides come to different keys.
    return f"klyng-mp/1 {method} client".encode(), f"klyng-mp/1 {method} beacon {fingerprint}".encode()


class _Proof:
    """One side's part in the proof that both know one secret, and that nobody stands between them.

    Attributes:
        share: what the other side needs, 33 bytes.
    """

    def __init__(self, side: SPAKE2_A | SPAKE2_B) -> None:
        self._side = side
        self.share: bytes = side.start()
        self._key = b""

    def finish(self, share: bytes) -> None:
        """Take the other side's share; only once.

        Raises:
            AuthenticationError: it is no share, or this side's own.
        """
        if len(share) != _SHARE_SIZE:  # spake2 takes a shorter one for a number with zeros before it
            raise AuthenticationError(f"a malformed proof: {len(share)} bytes")
        try:
            self._key = self._side.finish(share)
        except (SPAKEError, NotOnCurve, ValueError) as error:
            raise AuthenticationError(f"a malformed proof: {error or type(error).__name__}") from None

    def client_proves(self, transcript: bytes) -> bytes:
        """Return what only a client that knows the secret can say, after all that was said; 32 bytes."""
        return self._confirm(b"client proves", transcript)

    def beacon_proves(self, transcript: bytes) -> bytes:
        """Return what only a beacon that knows the secret can say, after all that was said; 32 bytes."""
        return self._confirm(b"beacon proves", transcript)

    def _confirm(self, label: bytes, transcript: bytes) -> bytes:
        return hmac.digest(self._key, label + transcript, hashlib.sha256)


class ClientProof(_Proof):
    """The client's part; costs 13 ms of a processor in all."""

    def __init__(self, secret: bytes, method: str, fingerprint: str) -> None:
        super().__init__(SPAKE2_A(secret, *_names(method, fingerprint)))


class BeaconProof(_Proof):
    """The beacon's part."""

    def __init__(self, verifier: Verifier, method: str, fingerprint: str) -> None:
        super().__init__(_BeaconSide(verifier, _names(method, fingerprint)))


# -- keys of clients -------------------------------------------------------------------------------


class ClientKey:
    """An Ed25519 key that a client proves itself with.

    Attributes:
        name: what it is called in a beacon's lists.
    """

    def __init__(self, private: ed25519.Ed25519PrivateKey, name: str = "") -> None:
        self._private = private
        self.name = name

    @classmethod
    def create(cls, name: str = "") -> ClientKey:
        """Make a new one."""
        return cls(ed25519.Ed25519PrivateKey.generate(), name)

    @classmethod
    def load(cls, path: str | os.PathLike[str], name: str = "") -> ClientKey:
        """Read one from a file that `save` wrote.

        Raises:
            AuthenticationError: the file is none, or others can read it.
            OSError: it cannot be read.
        """
        private = _load_key(path)
        if not isinstance(private, ed25519.Ed25519PrivateKey):
            raise AuthenticationError(f"{os.fspath(path)} is no Ed25519 key: make one with `klyng-mp beacon authorize`")
        return cls(private, name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file that only its owner can read."""
        write_private(path, _key_pem(self._private))

    @property
    def public_bytes(self) -> bytes:
        """The public half, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    @property
    def public(self) -> str:
        """The public half as a line of a beacon's list of authorized clients."""
        words = [_KEY_WORD, base64.b64encode(self.public_bytes).decode(), self.name]
        return " ".join(filter(None, words))

    def sign(self, data: bytes) -> bytes:
        """Return the signature of some bytes, 64 of them."""
        return self._private.sign(data)


def read_public(line: str) -> tuple[bytes, str]:
    """Return the key (32 bytes) and the name of a line like `ClientKey.public`.

    Raises:
        AuthenticationError: it is no such line.
    """
    words = line.split(maxsplit=2)
    try:
        key = base64.b64decode(words[1], validate=True) if len(words) > 1 and words[0] == _KEY_WORD else b""
    except ValueError:  # no base64, or no ASCII
        key = b""
    if len(key) != 32:
        raise AuthenticationError(f"no public key of a client: {line!r:.100}; it begins with {_KEY_WORD}")
    return key, words[2].strip() if len(words) > 2 else ""


def verify_signature(public_bytes: bytes, signature: bytes, data: bytes) -> bool:
    """Tell whether the owner of a key has signed some bytes."""
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public_bytes).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


# -- certificates ----------------------------------------------------------------------------------


class BeaconIdentity:
    """A beacon's key, and the certificate for it that it has signed itself.

    Attributes:
        cert_pem, key_pem: both as PEM.
        fingerprint: of the certificate, as users compare and pin it.
    """

    def __init__(self, private: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key_pem = _key_pem(private)
        self.cert_pem = _pem(certificate)
        self.fingerprint = fingerprint_of(certificate.public_bytes(serialization.Encoding.DER))

    @classmethod
    def create(cls) -> BeaconIdentity:
        """Make a new one."""
        private = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "klyng-mp beacon")])
        return cls(private, _builder(name, private.public_key()).issuer_name(name).sign(private, hashes.SHA256()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BeaconIdentity:
        """Read one from a file that `save` wrote.

        Raises:
            AuthenticationError: the file is none, or others can read it.
            OSError: it cannot be read.
        """
        private = _load_key(path)
        try:
            certificate = x509.load_pem_x509_certificate(read_private(path))
        except ValueError:
            certificate = None
        if (
            certificate is None
            or not isinstance(private, ec.EllipticCurvePrivateKey)
            or certificate.public_key() != private.public_key()
        ):
            raise AuthenticationError(
                f"{os.fspath(path)} is no beacon's identity: restore it, or remove it for a new one"
            )
        return cls(private, certificate)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file that only its owner can read."""
        write_private(path, self.key_pem + self.cert_pem)

    def __repr__(self) -> str:
        return f"BeaconIdentity({self.fingerprint})"


class JobAuthority:
    """Signs the certificates of one job's ranks; its key is in the memory of the process that made it, nowhere else."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        public = self._private.public_key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"klyng-mp job {os.urandom(8).hex()}")])
        self._identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
        builder = (
            _builder(self._name, public)
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(self._identifier, critical=False)
        )
        self._ca_pem = _pem(builder.sign(self._private, hashes.SHA256()))

    def issue(self, number: int) -> Credentials:
        """Return the credentials of a rank, or of the driver (`wire.frames.DRIVER`)."""
        private = ec.generate_private_key(ec.SECP256R1())
        public = private.public_key()
        name = rank_name(number)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), public)
            .issuer_name(self._name)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(self._identifier, critical=False)
        )
        return Credentials(_pem(builder.sign(self._private, hashes.SHA256())), _key_pem(private), self._ca_pem)


def _builder(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FIRST_DAY)
        .not_valid_after(_LAST_DAY)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: str | os.PathLike[str]) -> object:
    data = read_private(path)
    try:
        return serialization.load_pem_private_key(data, password=None)
    except InternalError:  # of OpenSSL: what the key is made of cannot be
        raise AuthenticationError(f"{os.fspath(path)} holds a damaged key: make a new one") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AuthenticationError(f"{os.fspath(path)} holds no key that can be used: {error}; make a new one") from None
