"""security: what is made is strong, private and the same after a save; proofs agree only where the secrets do."""

from __future__ import annotations

import os
import re
import stat
import statistics
import time

import pytest
from cryptography import x509
from spake2 import SPAKE2_B
from spake2.ed25519_basic import (
    Base,
    L,
    NotOnCurve,
    Zero,
    bytes_to_unknown_group_element,
    encodepoint,
    random_scalar,
    xform_extended_to_affine,
)

from klyng_mp.errors import AuthenticationError
from klyng_mp.remote.security import (
    BEACON_GROUP,
    BeaconIdentity,
    BeaconProof,
    ClientKey,
    ClientProof,
    JobAuthority,
    Verifier,
    new_code,
    new_password,
    plain_code,
    read_public,
    stretch,
    verify_signature,
)

SALT = bytes(range(16))
SECRET = b"s" * 32
PRINT = "SHA256:abc"
STRETCHED = "5c662628ac4eb1068a287e2aa2a202ae248e98db04d61d3327e7342db6ec7097"


# -- passwords -------------------------------------------------------------------------------------


def test_a_stretched_password_is_what_it_was():
    """A change of these parameters is another protocol."""
    assert stretch("correct horse", SALT).hex() == STRETCHED
    assert stretch("cafe\u0301", SALT) == stretch("café", SALT), "however the keyboard says it"
    assert stretch("correct horse", SALT[::-1]).hex() != STRETCHED


def test_an_empty_password_is_never_accepted():
    for make in (lambda: stretch("", SALT), lambda: Verifier.of("")):
        with pytest.raises(AuthenticationError, match="empty password"):
            make()


def test_passwords_and_codes_are_random_and_easy_to_type():
    passwords, codes = {new_password() for _ in range(500)}, {new_code() for _ in range(500)}
    assert len(passwords) == len(codes) == 500
    assert all(re.fullmatch(r"[0-9a-hjkmnp-tv-z]{4}(-[0-9a-hjkmnp-tv-z]{4}){3}", one) for one in passwords)
    assert all(re.fullmatch(r"[0-9a-hjkmnp-tv-z]{5}-[0-9a-hjkmnp-tv-z]{5}", one) for one in codes)
    assert len(set("".join(passwords)) - {"-"}) == 32, "5 bits each: 80 and 50 in all"
    assert plain_code(" ABCDE-fgh jk\n") == plain_code("abcdefghjk") == "abcdefghjk"


def test_a_verifier_does_not_show_its_secret():
    assert repr(Verifier(SALT, SECRET)) == "Verifier(...)"


# -- proofs ----------------------------------------------------------------------------------------


def prove(client, beacon):
    client.finish(beacon.share)
    beacon.finish(client.share)
    return (
        client.client_proves(b"t"),
        beacon.client_proves(b"t"),
        client.beacon_proves(b"t"),
        beacon.beacon_proves(b"t"),
    )


def test_who_has_the_same_secret_comes_to_the_same_proofs():
    said, heard, answer, checked = prove(
        ClientProof(SECRET, "password", PRINT), BeaconProof(Verifier(SALT, SECRET), "password", PRINT)
    )
    assert said == heard
    assert answer == checked
    assert said != answer
    assert len(said) == len(answer) == 32


@pytest.mark.parametrize(
    ("secret", "method", "fingerprint"),
    [(b"x" * 32, "password", PRINT), (SECRET, "code", PRINT), (SECRET, "password", "SHA256:abd")],
)
def test_another_secret_method_or_certificate_comes_to_others(secret, method, fingerprint):
    said, heard, answer, checked = prove(
        ClientProof(secret, method, fingerprint), BeaconProof(Verifier(SALT, SECRET), "password", PRINT)
    )
    assert said != heard
    assert answer != checked


def test_a_proof_is_of_what_was_said():
    proof = ClientProof(SECRET, "password", PRINT)
    proof.finish(BeaconProof(Verifier(SALT, SECRET), "password", PRINT).share)
    assert proof.client_proves(b"t") != proof.client_proves(b"u")


def test_what_was_multiplied_beforehand_is_what_spake2_would_multiply():
    """The beacon's subclass agrees with spake2's own class."""
    client = ClientProof(SECRET, "password", PRINT)
    plain = SPAKE2_B(SECRET, b"klyng-mp/1 password client", f"klyng-mp/1 password beacon {PRINT}".encode())
    client.finish(plain.start())
    assert plain.finish(client.share) == client._key


def element(point):
    return encodepoint(xform_extended_to_affine(point.XYTZ))


def malformed():
    """Yield shares that no honest client sends: no points, points of another order, wrong sides, wrong lengths."""
    small = []  # the points of order 1, 2, 4, 8: multiples of one of order 8
    for y in range(2, 200):
        try:
            point = bytes_to_unknown_group_element(y.to_bytes(32, "little")).scalarmult(L)
        except NotOnCurve:
            continue
        if all(element(point.scalarmult(n)) != element(Zero) for n in (1, 2, 4)):
            small = [point.scalarmult(n) for n in range(8)]
            break
    assert len({element(point) for point in small}) == 8
    for point in small:
        yield b"A" + element(point)
    for point in small[1:]:
        yield b"A" + element(Base.add(point))  # on the curve, of the wrong group
    honest = ClientProof(SECRET, "password", PRINT).share
    yield from (side + honest[1:] for side in (b"B", b"S", b"\x00", b"a"))
    yield from (honest[:size] for size in (0, 1, 2, 16, 32))
    yield b"A" + b"\xff" * 32
    yield b"A" + b"\x00" * 31 + b"\x80"
    not_on_curve = 0
    for y in range(2, 60):
        share = b"A" + y.to_bytes(32, "little")
        try:
            bytes_to_unknown_group_element(share[1:])
        except NotOnCurve:
            not_on_curve += 1
            yield share
    assert not_on_curve > 10


def test_malformed_shares_are_refused():
    verifier, count = Verifier(SALT, SECRET), 0
    for share in malformed():
        with pytest.raises(AuthenticationError, match="malformed proof"):
            BeaconProof(verifier, "password", PRINT).finish(share)
        count += 1
    assert count >= 37


def test_a_share_that_comes_back_is_refused():
    proof = BeaconProof(Verifier(SALT, SECRET), "password", PRINT)
    with pytest.raises(AuthenticationError, match="malformed proof"):
        proof.finish(b"A" + proof.share[1:])


def test_the_base_point_is_multiplied_as_by_spake2():
    for scalar in (1, 15, 16, 1 << 251, L - 1, *(random_scalar(os.urandom) for _ in range(10))):
        assert BEACON_GROUP.Base.scalarmult(scalar).to_bytes() == Base.scalarmult(scalar).to_bytes()


def test_a_guess_costs_a_beacon_little(time_limit):
    verifier, costs = Verifier(SALT, SECRET), []
    for _ in range(7):
        client = ClientProof(b"x" * 32, "password", PRINT)
        before = time.process_time()
        proof = BeaconProof(verifier, "password", PRINT)
        proof.finish(client.share)
        proof.client_proves(b"t")
        costs.append(time.process_time() - before)
    assert statistics.median(costs) < time_limit(0.02)


# -- keys of clients -------------------------------------------------------------------------------


def test_a_key_survives_its_file(tmp_path):
    key = ClientKey.create("ada@box")
    key.save(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    loaded = ClientKey.load(tmp_path / "key", "ada@box")
    assert loaded.public == key.public
    assert verify_signature(key.public_bytes, loaded.sign(b"data"), b"data")


def test_a_public_line_is_read():
    key = ClientKey.create("ada at the box")
    assert read_public(key.public) == read_public(f"  {key.public}\n") == (key.public_bytes, "ada at the box")
    assert read_public(ClientKey.create().public)[1] == ""
    ssh = key.public.replace("klyng", "ssh")
    for line in ("", "klyng-ed25519", "klyng-ed25519 AAAA x", "klyng-ed25519 %%%% x", "klyng-ed25519 ÄÄÄÄ x", ssh):
        with pytest.raises(AuthenticationError, match="no public key of a client"):
            read_public(line)


def test_only_the_owner_of_a_key_signs():
    key, other = ClientKey.create(), ClientKey.create()
    signature = key.sign(b"data")
    assert verify_signature(key.public_bytes, signature, b"data")
    assert not verify_signature(key.public_bytes, signature, b"date")
    assert not verify_signature(other.public_bytes, signature, b"data")
    assert not verify_signature(bytes(31), signature, b"data")
    for position in range(64):
        changed = bytearray(signature)
        changed[position] ^= 1
        assert not verify_signature(key.public_bytes, bytes(changed), b"data")
    assert not verify_signature(key.public_bytes, signature[:32], b"data")


# -- certificates ----------------------------------------------------------------------------------


def test_an_identity_survives_its_file(tmp_path):
    identity = BeaconIdentity.create()
    identity.save(tmp_path / "identity")
    assert stat.S_IMODE((tmp_path / "identity").stat().st_mode) == 0o600
    loaded = BeaconIdentity.load(tmp_path / "identity")
    assert (loaded.fingerprint, loaded.cert_pem, loaded.key_pem) == (
        identity.fingerprint,
        identity.cert_pem,
        identity.key_pem,
    )
    assert BeaconIdentity.create().fingerprint != identity.fingerprint
    assert repr(identity) == f"BeaconIdentity({identity.fingerprint})"


@pytest.mark.parametrize("load", [BeaconIdentity.load, ClientKey.load], ids=["identity", "key"])
def test_a_file_that_holds_no_key_is_refused(tmp_path, load):
    path = tmp_path / "file"
    identity, other, key = BeaconIdentity.create(), BeaconIdentity.create(), ClientKey.create()
    key.save(path)
    key_pem = path.read_bytes()
    texts = [b"", b"no key", identity.cert_pem, identity.key_pem, other.key_pem + identity.cert_pem, key_pem[:-30]]
    texts += [key_pem + identity.cert_pem] if load == BeaconIdentity.load else []
    for text in texts:
        path.write_bytes(text)
        with pytest.raises(AuthenticationError, match=re.escape(str(path))):
            load(path)
    path.chmod(0o644)
    with pytest.raises(AuthenticationError, match="chmod 600"):
        load(path)


def test_an_authority_signs_for_one_rank_each_and_for_no_authority():
    authority = JobAuthority()
    first, second = authority.issue(0), authority.issue(1)
    assert first.ca_pem == second.ca_pem
    assert first.key_pem != second.key_pem
    for number, credentials in enumerate((first, second)):
        certificate = x509.load_pem_x509_certificate(credentials.cert_pem)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(credentials.ca_pem))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [f"rank-{number}.job"]
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert JobAuthority().issue(0).ca_pem != first.ca_pem


def test_an_authority_signs_quickly(time_limit):
    authority = JobAuthority()
    before = time.process_time()
    for number in range(100):
        authority.issue(number)
    assert (time.process_time() - before) / 100 < time_limit(0.001)


def test_what_is_made_takes_no_file():
    before = os.listdir("/proc/self/fd")
    BeaconIdentity.create()
    JobAuthority().issue(1)
    assert os.listdir("/proc/self/fd") == before
