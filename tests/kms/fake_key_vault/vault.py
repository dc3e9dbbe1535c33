"""What the REST surface of Key Vault and Managed HSM does with keys, as far as a KEK needs it.

Answers are (status, body). Where the words of an error come from is said in the
first line of its file in ../fixtures/azure_keyvault.
Propagation is immediate here; the real service takes seconds for deletions and minutes for permissions.
"""

import base64
import json
import os
import re
import time

from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
OPERATIONS = ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]
APP = "appid=00000000-1111-2222-3333-444444444444;oid=55555555-6666-7777-8888-999999999999"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise Refused(bad("The request URI or body contains a value that is not base64url."))
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer


def error(status, code, message, inner=None):
    body = {"error": {"code": code, "message": message}}
    if inner:
        body["error"]["innererror"] = {"code": inner}
    return status, body


def bad(message):
    return error(400, "BadParameter", message)


class Vaults:
    """All vaults by host name, kept in a file so that a restart loses nothing."""

    def __init__(self, path):
        self.path = path
        self.vaults = {}
        if os.path.exists(path):
            with open(path) as file:
                self.vaults = json.load(file)

    def keep(self):
        with open(self.path + ".new", "w") as file:
            json.dump(self.vaults, file)
        os.replace(self.path + ".new", self.path)

    def vault(self, host):
        fresh = {"keys": {}, "deleted": {}, "recoveryLevel": "Recoverable", "denied": {}}
        return self.vaults.setdefault(host, fresh)

    def handle(self, host, method, path, body):
        """One request that was authenticated."""
        vault = self.vault(host)
        parts = path.strip("/").split("/") if "//" not in path else path[1:].split("/")
        try:
            answer = self.route(host, vault, method, parts, body)
        except Refused as refused:
            answer = refused.answer
        if method != "GET":
            self.keep()
        return answer

    def route(self, host, vault, method, parts, body):
        match (method, parts):
            case ("POST", ["keys", name, "create"]):
                self.permit(host, vault, "create")
                return 200, self.create(host, vault, name, body)
            case ("POST", ["keys", name, "rotate"]):
                self.permit(host, vault, "rotate")
                return 200, self.rotate(host, vault, name)
            case ("GET", ["keys", name, "versions"]):
                self.permit(host, vault, "list")
                key = self.find(vault, name)
                items = [self.item(host, vault, name, version) for version in key["versions"]]
                return 200, {"value": items, "nextLink": None}
            case ("GET", ["keys", name] | ["keys", name, _]):
                self.permit(host, vault, "get")
                return 200, self.bundle(host, vault, name, self.version(vault, name, parts[2:]))
            case ("PATCH", ["keys", name] | ["keys", name, _]):
                self.permit(host, vault, "update")
                version = self.version(vault, name, parts[2:])
                for field in ("enabled", "exp", "nbf"):
                    if field in body.get("attributes", {}):
                        version[field] = body["attributes"][field]
                if "key_ops" in body:
                    version["ops"] = body["key_ops"]
                return 200, self.bundle(host, vault, name, version)
            case ("POST", ["keys", name, version, "wrapkey" | "unwrapkey" as operation]):
                self.permit(host, vault, operation.removesuffix("key"))
                return self.operate(host, vault, name, self.version(vault, name, [version]), operation, body)
            case ("DELETE", ["keys", name]):
                self.permit(host, vault, "delete")
                key = self.find(vault, name)
                vault["deleted"][name] = vault["keys"].pop(name)
                return 200, self.deleted(host, vault, name, key)
            case ("GET", ["deletedkeys", name]):
                return 200, self.deleted(host, vault, name, self.find_deleted(vault, name))
            case ("POST", ["deletedkeys", name, "recover"]):
                key = self.find_deleted(vault, name)
                vault["keys"][name] = vault["deleted"].pop(name)
                return 200, self.bundle(host, vault, name, key["versions"][-1])
            case ("DELETE", ["deletedkeys", name]):
                self.find_deleted(vault, name)
                if "Purgeable" not in vault["recoveryLevel"]:
                    return error(403, "Forbidden", "Operation \"purge\" is not allowed because purge protection is"
                                 " enabled for this vault. Key Vault service will automatically purge it after the"
                                 " retention period has passed.")
                del vault["deleted"][name]
                return 204, None
        return error(404, "NotFound", "The resource is not known.")

    def permit(self, host, vault, operation):
        how = vault["denied"].get(operation) or vault["denied"].get("*")
        place = f"{host.split('.')[0]};location=westeurope"
        issuer = "iss=https://sts.windows.net/aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee/"
        words = {
            "rbac": ("ForbiddenByRbac", "Caller is not authorized to perform action on resource.\r\nIf role"
                     " assignments, deny assignments or role definitions were changed recently, please observe"
                     f" propagation time.\r\nCaller: {APP};{issuer}\r\nAction: 'Microsoft.KeyVault/vaults/keys/"
                     f"{operation}/action'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason:"
                     f" null \r\nVault: {place}\r\n"),
            "policy": ("ForbiddenByPolicy", f"The user, group or application '{APP};{issuer}' does not have keys"
                       f" {operation} permission on key vault '{place}'. For help resolving this issue, please see"
                       " https://go.microsoft.com/fwlink/?linkid=2125287"),
            "firewall": ("ForbiddenByFirewall", "Client address is not authorized and caller is not a trusted"
                         f" service.\r\nClient address: 192.0.2.7\r\nCaller: {APP};{issuer}\r\nVault: {place}"),
            "connection": ("ForbiddenByConnection", "Public network access is disabled and request is not from a"
                           " trusted service nor via an approved private link.\r\nCaller:"
                           f" {APP};{issuer}\r\nVault: {place}"),
        }
        if how:
            inner, message = words[how]
            raise Refused(error(403, "Forbidden", message, inner))

    def create(self, host, vault, name, body):
        if not re.fullmatch(r"[0-9A-Za-z-]{1,127}", name):
            raise Refused(bad(f"The request URI contains an invalid name: {name}"))
        if name in vault["deleted"]:
            raise Refused(error(409, "Conflict", f"Key {name} is currently in a deleted but recoverable state, and its"
                                " name cannot be reused; in this state, the key can only be recovered or purged.",
                                "ObjectIsDeletedButRecoverable"))
        kind, is_hsm = body.get("kty"), ".managedhsm." in host
        if kind not in (["RSA-HSM", "oct-HSM"] if is_hsm else ["RSA", "RSA-HSM"]):
            raise Refused(bad(f"kty {kind} is not supported"))
        attributes = body.get("attributes") or {}
        version = {"id": os.urandom(16).hex(), "kty": kind, "ops": body.get("key_ops") or OPERATIONS,
                   "size": body.get("key_size") or (256 if kind == "oct-HSM" else 2048),
                   "enabled": attributes.get("enabled", True), "exp": attributes.get("exp"),
                   "nbf": attributes.get("nbf"), "created": int(time.time())}
        version["key"] = generate(version)
        vault["keys"].setdefault(name, {"versions": []})["versions"].append(version)
        return self.bundle(host, vault, name, version)

    def rotate(self, host, vault, name):
        last = self.find(vault, name)["versions"][-1]
        attributes = {"enabled": True}
        return self.create(host, vault, name, {"kty": last["kty"], "key_size": last["size"],
                                               "key_ops": last["ops"], "attributes": attributes})

    def operate(self, host, vault, name, version, operation, body):
        says = {"wrapkey": "wrapKey", "unwrapkey": "unwrapKey"}[operation]
        now = time.time()
        # Public-key operations and wraps go on with a disabled key; out of its time only unwraps do.
        if operation == "unwrapkey" and not version["enabled"]:
            return error(403, "Forbidden", f"Operation {says} is not allowed on a disabled key.", "KeyDisabled")
        if operation == "wrapkey" and version["exp"] is not None and version["exp"] <= now:
            return error(403, "Forbidden", f"Operation {says} is not allowed on an expired key.", "KeyExpired")
        if operation == "wrapkey" and version["nbf"] is not None and version["nbf"] > now:
            return error(403, "Forbidden", f"Operation {says} is not allowed on a key that is not yet valid.",
                         "KeyNotYetValid")
        if says not in version["ops"]:
            return error(403, "Forbidden", f"Operation {says} is not permitted on this key.", "KeyOperationForbidden")
        algorithms = ["A256KW"] if version["kty"] == "oct-HSM" else ["RSA-OAEP-256"]
        if body.get("alg") not in algorithms:
            return bad("Key and encryption algorithm are incompatible.")
        value = unb64(body.get("value"))
        try:
            done = compute(version, operation, value)
        except (ValueError, keywrap.InvalidUnwrap):
            return bad("The parameter is incorrect.\r\n")
        return 200, {"kid": self.kid(host, name, version), "value": b64(done)}

    def find(self, vault, name, suffix=""):
        for known, key in vault["keys"].items():
            if known.lower() == name.lower():
                return key
        raise Refused(error(404, "KeyNotFound", f"A key with (name/id) {name}{suffix} was not found in this key vault."
                            " If you recently deleted this key you may be able to recover it using the correct"
                            " recovery command. For help resolving this issue, please see"
                            " https://go.microsoft.com/fwlink/?linkid=2125182"))

    def find_deleted(self, vault, name):
        if name not in vault["deleted"]:
            raise Refused(error(404, "KeyNotFound", f"Deleted Key not found: {name}"))
        return vault["deleted"][name]

    def version(self, vault, name, wanted):
        wanted = (wanted or [""])[0]
        key = self.find(vault, name, f"/{wanted}" if wanted else "")
        for version in reversed(key["versions"]):
            if wanted in ("", version["id"]):
                return version
        raise Refused(error(404, "KeyNotFound", f"A key with (name/id) {name}/{wanted} was not found in this key vault."
                            " If you recently deleted this key you may be able to recover it using the correct"
                            " recovery command. For help resolving this issue, please see"
                            " https://go.microsoft.com/fwlink/?linkid=2125182"))

    def kid(self, host, name, version):
        return f"https://{host}/keys/{name}/{version['id']}"

    def attributes(self, vault, version):
        level = vault["recoveryLevel"]
        hsm = version["kty"].endswith("-HSM")
        out = {"enabled": version["enabled"], "created": version["created"], "updated": version["created"],
               "recoveryLevel": level, "recoverableDays": 0 if level == "Purgeable" else 90, "exportable": False,
               "hsmPlatform": "2" if hsm else "0"}
        out.update({field: version[field] for field in ("exp", "nbf") if version[field] is not None})
        return out

    def bundle(self, host, vault, name, version):
        key = {"kid": self.kid(host, name, version), "kty": version["kty"], "key_ops": version["ops"]}
        if version["kty"] != "oct-HSM":
            numbers = private(version).public_key().public_numbers()
            key["n"] = b64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big"))
            key["e"] = b64(numbers.e.to_bytes(3, "big"))
        return {"key": key, "attributes": self.attributes(vault, version)}

    def item(self, host, vault, name, version):
        return {"kid": self.kid(host, name, version), "attributes": self.attributes(vault, version)}

    def deleted(self, host, vault, name, key):
        bundle = self.bundle(host, vault, name, key["versions"][-1])
        now = int(time.time())
        return bundle | {"recoveryId": f"https://{host}/deletedkeys/{name}", "deletedDate": now,
                         "scheduledPurgeDate": now + 90 * 86400}


def generate(version):
    if version["kty"] == "oct-HSM":
        return os.urandom(version["size"] // 8).hex()
    key = rsa.generate_private_key(public_exponent=65537, key_size=version["size"])
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, form, serialization.NoEncryption()).decode()


def private(version, cache={}):
    if version["id"] not in cache:
        cache[version["id"]] = serialization.load_pem_private_key(version["key"].encode(), None)
    return cache[version["id"]]


def compute(version, operation, value):
    if version["kty"] == "oct-HSM":
        function = keywrap.aes_key_wrap if operation == "wrapkey" else keywrap.aes_key_unwrap
        return function(bytes.fromhex(version["key"]), value)
    if operation == "wrapkey":
        return private(version).public_key().encrypt(value, OAEP)
    return private(version).decrypt(value, OAEP)
