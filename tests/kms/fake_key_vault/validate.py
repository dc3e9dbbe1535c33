"""Measures server.py with Microsoft's own client, azure-keyvault-keys: what that takes for Key Vault, and the exceptions it
derives from the errors.

    validate.py PORT        the administrator's port of a running server
"""

import json
import socket
import sys
import urllib.request

from azure.core.exceptions import (ClientAuthenticationError, HttpResponseError, ResourceExistsError,
                                   ResourceNotFoundError)
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient, KeyType
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

from login import CLIENT, TENANT

PORT = int(sys.argv[1])
SECRET = bytes(range(56))


def admin(path, content=None):
    body = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/{path}", data=body, timeout=10) as answer:
        return json.load(answer)


PLACES = admin("admin")


def resolve(host, port, *arguments, real=socket.getaddrinfo):
    """Names of Azure lead here. The certificate is checked for the name all the same."""
    if host.endswith((".vault.azure.net", ".managedhsm.azure.net")):
        host, port = "127.0.0.1", PLACES["vault"]
    elif host == "login.microsoftonline.com":
        host, port = "127.0.0.1", PLACES["login"]
    return real(host, port, *arguments)


socket.getaddrinfo = resolve
TRUST = {"connection_verify": PLACES["ca"]}


def credential(secret="correct horse"):
    return ClientSecretCredential(TENANT, CLIENT, secret, disable_instance_discovery=True, retry_total=0, **TRUST)


def clients(host):
    return KeyClient(f"https://{host}", credential(), retry_total=0, **TRUST)


def refused(kind, status, code, inner, call):
    try:
        call()
    except HttpResponseError as error:
        details = error.error
        found = (type(error), error.status_code, details.code, (details.innererror or {}).get("code"))
        assert found == (kind, status, code, inner), found
        return
    raise AssertionError("was not refused")


def lives(client, kty, algorithm, create):
    key = create()
    assert key.key_type == kty and key.properties.enabled and key.properties.recovery_level == "Recoverable"
    crypto = CryptographyClient(key.id, credential(), retry_total=0, **TRUST)
    # The client would wrap with the public key by itself; what is measured is the server.
    crypto._local_provider._key = None
    crypto._keys_get_forbidden = True
    wrapped = crypto.wrap_key(algorithm, SECRET)
    assert wrapped.key_id == key.id and wrapped.encrypted_key != SECRET
    assert crypto.unwrap_key(algorithm, wrapped.encrypted_key).key == SECRET
    rotated = client.rotate_key("orders")
    assert rotated.properties.version != key.properties.version
    assert client.get_key("orders").properties.version == rotated.properties.version
    assert client.get_key("orders", key.properties.version).id == key.id
    assert {item.version for item in client.list_properties_of_key_versions("orders")} == {
        key.properties.version, rotated.properties.version}
    assert crypto.unwrap_key(algorithm, wrapped.encrypted_key).key == SECRET
    damaged = bytes([wrapped.encrypted_key[0] ^ 1]) + wrapped.encrypted_key[1:]
    refused(HttpResponseError, 400, "BadParameter", None, lambda: crypto.unwrap_key(algorithm, damaged))
    return crypto, wrapped.encrypted_key, key


def closes(client, algorithm, crypto, wrapped, key):
    version = key.properties.version
    def unwrap():
        return crypto.unwrap_key(algorithm, wrapped)

    client.update_key_properties("orders", version, enabled=False)
    assert client.get_key("orders", version).properties.enabled is False
    refused(HttpResponseError, 403, "Forbidden", "KeyDisabled", unwrap)
    assert crypto.wrap_key(algorithm, SECRET).encrypted_key
    client.update_key_properties("orders", version, enabled=True)
    assert unwrap().key == SECRET

    deleted = client.begin_delete_key("orders").result()
    assert deleted.recovery_id and deleted.scheduled_purge_date
    refused(ResourceNotFoundError, 404, "KeyNotFound", None, unwrap)
    refused(ResourceNotFoundError, 404, "KeyNotFound", None, lambda: client.get_key("orders"))
    refused(ResourceExistsError, 409, "Conflict", "ObjectIsDeletedButRecoverable",
            lambda: client.create_key("orders", key.key_type))
    refused(HttpResponseError, 403, "Forbidden", None, lambda: client.purge_deleted_key("orders"))
    assert client.begin_recover_deleted_key("orders").result().name == "orders"
    assert unwrap().key == SECRET


def permissions(host, client):
    for how, inner in [("rbac", "ForbiddenByRbac"), ("policy", "ForbiddenByPolicy"),
                       ("firewall", "ForbiddenByFirewall"), ("connection", "ForbiddenByConnection")]:
        admin("admin/vault", {"host": host, "denied": {"*": how}})
        refused(HttpResponseError, 403, "Forbidden", inner, lambda: client.get_key("orders"))
    admin("admin/vault", {"host": host, "denied": {}})
    client.get_key("orders")
    admin("admin/throttle/1", {})
    refused(HttpResponseError, 429, "Throttled", None, lambda: client.get_key("orders"))
    client.get_key("orders")
    refused(ResourceNotFoundError, 404, "KeyNotFound", None, lambda: client.get_key("invoices"))
    admin("admin/vault", {"host": host, "recoveryLevel": "Recoverable+Purgeable"})
    client.create_key("short-lived", client.get_key("orders").key_type)
    client.begin_delete_key("short-lived").wait()
    client.purge_deleted_key("short-lived")
    refused(ResourceNotFoundError, 404, "KeyNotFound", None, lambda: client.get_deleted_key("short-lived"))


def tokens(host):
    wrong = KeyClient(f"https://{host}", credential("wrong"), retry_total=0, **TRUST)
    try:
        wrong.get_key("orders")
        raise AssertionError("a wrong secret gave a token")
    except ClientAuthenticationError as error:
        assert "AADSTS7000215" in error.message, error.message
    client = clients(host)
    client.get_key("orders")
    admin("admin/revoke-tokens", {})
    # The credential's cache hands out the revoked token once more: the service rejects it.
    refused(ClientAuthenticationError, 401, "Unauthorized", None, lambda: client.get_key("orders"))


def main():
    vault, hsm = "measured.vault.azure.net", "measured.managedhsm.azure.net"
    client = clients(vault)
    algorithm = KeyWrapAlgorithm.rsa_oaep_256
    closes(client, algorithm, *lives(client, KeyType.rsa, algorithm, lambda: client.create_rsa_key("orders", size=2048)))
    permissions(vault, client)
    tokens(vault)
    refused(HttpResponseError, 400, "BadParameter", None, lambda: clients(vault).create_oct_key("aes"))

    client = clients(hsm)
    algorithm = KeyWrapAlgorithm.aes_256
    create = lambda: client.create_oct_key("orders", size=256, hardware_protected=True)
    closes(client, algorithm, *lives(client, KeyType.oct_hsm, algorithm, create))
    permissions(hsm, client)
    print("Microsoft's client takes it for Key Vault")


main()
