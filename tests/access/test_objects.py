"""Objects: authorization lists, secrets, and what is wrong with a folder of certificates."""

from __future__ import annotations

import datetime
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, strategies as st

from tests.certificates import (
    authority,
    client_certificate,
    server_certificate,
    write_folder,
)
from tests.peers import need
from trio_chardev.access.authz import AuthzList, AuthzListRule, AuthzSimple, matches_glob
from trio_chardev.access.credentials import TlsCredentials
from trio_chardev.access.objects import Authorizer
from trio_chardev.access.secret import Secret, SecretValue
from trio_chardev.access.table import OBJECTS
from trio_chardev.access.tls_creds import TlsCredsX509
from trio_chardev.errors import BackendError, ChardevError, OptionsError
from trio_chardev.options.structure import structure

# ---------------------------------------------------------------- who may


def test_nobody_may_by_default() -> None:
    assert not AuthzList(id="o").allows("CN=x")
    assert AuthzList(id="o", policy="allow").allows("CN=x")


def test_the_first_rule_that_matches_decides() -> None:
    rules = (
        AuthzListRule(match="CN=bad", policy="deny"),
        AuthzListRule(match="CN=*", policy="allow", format="glob"),
        AuthzListRule(match="CN=good", policy="deny"),
    )
    some = AuthzList(id="o", rules=rules)
    assert [some.allows(name) for name in ("CN=bad", "CN=good", "O=good")] == [False, True, False]


@pytest.mark.parametrize(
    ("pattern", "kind", "name", "matches"),
    [
        ("CN=a*", "exact", "CN=ab", False),
        ("CN=a*", "exact", "CN=a*", True),
        ("CN=a*", "glob", "CN=a", True),
        ("CN=a*", "glob", "CN=a/b\nc", True),
        ("CN=a*", "glob", "O=x,CN=a", False),
        ("*,CN=a", "glob", "O=x,CN=a", True),
        ("CN=?", "glob", "CN=a", True),
        ("CN=?", "glob", "CN=", False),
        ("CN=[ab]", "glob", "CN=a", False),
        ("CN=[ab]", "glob", "CN=[ab]", True),
        ("CN=a.c", "glob", "CN=abc", False),
    ],
)
def test_globs_know_two_wildcards(pattern: str, kind: Any, name: str, matches: bool) -> None:
    rule = AuthzListRule(match=pattern, policy="allow", format=kind)
    assert rule.matches(name) is matches


@given(st.text("*?a.\n", max_size=12), st.text("?*a.\n", max_size=12))
def test_a_glob_matches_what_an_expression_does(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(char) or re.escape(char) for char in pattern)
    assert matches_glob(pattern, text) is bool(re.fullmatch(expression, text, re.DOTALL))


@pytest.mark.parametrize("pattern", ["*.*" * 20 + "x", "*?" * 2000 + "x", "*" * 1_000_000 + "x"])
def test_a_glob_takes_one_step_a_character(pattern: str) -> None:
    """One that goes back and tries again does not end."""
    assert not matches_glob(pattern, "." * 4000)


def test_simple_allows_one() -> None:
    simple = AuthzSimple(id="o", identity="CN=a").create({})
    assert isinstance(simple, Authorizer)
    assert simple.allows("CN=a")
    assert not simple.allows("CN=ab")


def test_objects_are_structured_as_qapi_names_them() -> None:
    rule = {"match": "CN=*", "policy": "allow", "format": "glob"}
    some: object = structure(OBJECTS["authz-list"], {"id": "o", "rules": [rule]})
    assert some == AuthzList(
        id="o", rules=(AuthzListRule(match="CN=*", policy="allow", format="glob"),)
    )
    creds: object = structure(
        OBJECTS["tls-creds-x509"],
        {"id": "o", "dir": "/x", "endpoint": "server", "verify-peer": False},
    )
    assert creds == TlsCredsX509(id="o", dir="/x", endpoint="server", verify_peer=False)


# ---------------------------------------------------------------- secrets


def test_secrets_are_raw_or_base64_given_or_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"YWJj\n")
    assert Secret(id="o", data="YWJj").create({}).data == b"YWJj"
    assert Secret(id="o", data="YWI", format="base64").create({}).data == b"ab"
    assert Secret(id="o", file=str(path)).create({}).data == b"YWJj\n"
    assert Secret(id="o", file=str(path), format="base64").create({}).data == b"abc"


@pytest.mark.parametrize(
    ("secret", "error"),
    [
        (Secret(id="o"), "Either 'file' or 'data' must be provided"),
        (Secret(id="o", data="x", file="y"), "'file' and 'data' are mutually exclusive"),
        (Secret(id="o", data="ab-c=", format="base64"), "Base64 data contains invalid characters"),
        (Secret(id="o", data="abcde", format="base64"), "Base64 data is truncated"),
        (
            Secret(id="o", file="/no/file"),
            "Unable to read /no/file: Failed to open file “/no/file”: No such file or directory",
        ),
    ],
)
def test_bad_secrets_are_refused(secret: Secret, error: str) -> None:
    with pytest.raises(ChardevError) as caught:
        secret.create({})
    assert str(caught.value) == error


def test_secrets_are_not_shown() -> None:
    assert "hush" not in repr(Secret(id="o", data="hush"))
    assert "hush" not in repr(SecretValue(b"hush"))


# ---------------------------------------------------------------- credentials


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tls"
    write_folder(path, server=server_certificate(), client=client_certificate())
    return path


def create(folder: Path, **options: Any) -> TlsCredentials:
    objects = options.pop("objects", {})
    return TlsCredsX509(id="o", dir=str(folder), **options).create(objects)


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(BackendError) as caught:
        create(folder, **options)
    return str(caught.value)


@pytest.mark.parametrize("endpoint", ["server", "client"])
def test_a_complete_folder_is_good_for_both_ends(folder: Path, endpoint: str) -> None:
    assert create(folder, endpoint=endpoint).endpoint == endpoint


@pytest.mark.parametrize("name", ["ca-cert.pem", "server-cert.pem", "server-key.pem"])
def test_a_server_needs_three_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    expected = f"Unable to access credentials {folder}/{name}: No such file or directory"
    assert refusal(folder, endpoint="server") == expected


@pytest.mark.parametrize("name", ["client-cert.pem", "client-key.pem"])
def test_a_client_needs_no_certificate(folder: Path, name: str) -> None:
    (folder / name).unlink()
    create(folder)


def test_a_key_of_another_certificate_is_refused(folder: Path) -> None:
    client_certificate().private_key_pem.write_to_path(folder / "server-key.pem")
    assert refusal(folder, endpoint="server") == (
        f"Cannot load certificate '{folder}/server-cert.pem' & key '{folder}/server-key.pem': "
        "key values mismatch"
    )


def test_what_is_no_certificate_is_refused(folder: Path) -> None:
    (folder / "server-cert.pem").write_text("garbage")
    assert refusal(folder, endpoint="server").startswith(
        f"Cannot load certificate '{folder}/server-cert.pem' & key"
    )
    (folder / "ca-cert.pem").write_text("garbage")
    assert refusal(folder, endpoint="server") == (
        f"Unable to import CA certificate list {folder}/ca-cert.pem: no certificate or crl found"
    )


@pytest.mark.parametrize("endpoint", ["server", "client"])
def test_our_own_certificate_must_be_good_for_the_peers(tmp_path: Path, endpoint: str) -> None:
    past = datetime.datetime(2001, 1, 1), datetime.datetime(2002, 1, 1)
    expired = authority().issue_cert("localhost", not_before=past[0], not_after=past[1])
    foreign = authority("Somebody else").issue_cert("localhost")
    for leaf, fault in [
        (expired, "certificate has expired"),
        (foreign, "unable to get local issuer certificate"),
    ]:
        folder = tmp_path / fault
        write_folder(folder, server=leaf, client=leaf)
        assert refusal(folder, endpoint=endpoint) == (
            f"Our own certificate {folder}/{endpoint}-cert.pem failed validation against "
            f"{folder}/ca-cert.pem: {fault}"
        )
        create(folder, endpoint=endpoint, sanity_check=False)


def openssl(*arguments: str | Path) -> None:
    subprocess.run([need("openssl"), *arguments], check=True, capture_output=True)


def test_a_certificate_for_clients_only_is_good_for_clients_only(folder: Path) -> None:
    key, request, cert = folder / "k", folder / "r", folder / "c"
    ca_key = folder / "ca-key.pem"
    authority().private_key_pem.write_to_path(ca_key)
    (folder / "ext").write_text("extendedKeyUsage=clientAuth\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", request, "-subj", "/CN=only")  # fmt: skip
    openssl("x509", "-req", "-in", request, "-CA", folder / "ca-cert.pem", "-CAkey", ca_key,
            "-extfile", folder / "ext", "-out", cert, "-days", "2")  # fmt: skip
    for endpoint in ("client", "server"):
        (folder / f"{endpoint}-cert.pem").write_bytes(cert.read_bytes())
        (folder / f"{endpoint}-key.pem").write_bytes(key.read_bytes())
    create(folder)
    assert refusal(folder, endpoint="server").endswith(": unsuitable certificate purpose")


@pytest.mark.parametrize("password", [b"sesame", b"wrong", None])
def test_an_encrypted_key_needs_its_password(folder: Path, password: bytes | None) -> None:
    """Without one nobody is asked at the terminal."""
    key = folder / "server-key.pem"
    openssl("pkey", "-in", key, "-aes128", "-passout", "pass:sesame", "-out", folder / "new")
    (folder / "new").rename(key)
    options: dict[str, Any] = {"endpoint": "server"}
    if password is not None:
        options |= {"objects": {"s": SecretValue(password)}, "passwordid": "s"}
    if password == b"sesame":
        create(folder, **options)
    else:
        assert refusal(folder, **options).startswith("Cannot load certificate ")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (TlsCredsX509(id="o"), "Missing 'dir' property value"),
        (TlsCredsX509(id="o", dir="/no", passwordid="s"), "No secret with id 's'"),
        (
            TlsCredsX509(id="o", dir="/no", passwordid="other"),
            "Object with id 'other' is not a secret",
        ),
    ],
)
def test_options_of_credentials_are_checked(options: TlsCredsX509, error: str) -> None:
    with pytest.raises(OptionsError) as caught:
        options.create({"other": AuthzList(id="o")})
    assert str(caught.value) == error


def test_priorities_of_gnutls_are_refused(folder: Path) -> None:
    create(folder, priority="")
    with pytest.raises(OptionsError, match="'priority' is of GnuTLS"):
        create(folder, priority="NORMAL")


def test_a_revoked_certificate_is_not_good_for_the_peers(folder: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    key = serialization.load_pem_private_key(authority().private_key_pem.bytes(), None)
    ca = x509.load_pem_x509_certificate(authority().cert_pem.bytes())
    ours = x509.load_pem_x509_certificate(server_certificate().cert_chain_pems[0].bytes())
    builder = x509.CertificateRevocationListBuilder(
        ca.subject, now - datetime.timedelta(1), now + datetime.timedelta(1)
    )
    path = folder / "ca-crl.pem"
    for revoked, is_good in [([], True), ([ours.serial_number], False)]:
        for number in revoked:
            entry = x509.RevokedCertificateBuilder(number, now - datetime.timedelta(1)).build()
            builder = builder.add_revoked_certificate(entry)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        crl = builder.sign(key, hashes.SHA256())
        path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        if is_good:
            create(folder, endpoint="server")
        else:
            assert refusal(folder, endpoint="server").endswith(": certificate revoked")


def test_a_list_of_revoked_certificates_must_be_one(folder: Path) -> None:
    (folder / "ca-crl.pem").write_text("garbage")
    assert refusal(folder).startswith(f"Unable to import CA CRL list {folder}/ca-crl.pem: ")
