"""Tokens: Entra ID's endpoint for client secrets and federated assertions, and the identity service of a virtual machine."""

import json
import os
import time
from urllib.parse import parse_qs, urlparse

TENANT = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
CLIENT = "00000000-1111-2222-3333-444444444444"
AUTHORITY = f"https://login.microsoftonline.com/{TENANT}"


class Login:
    """Which credentials are good, and which tokens were issued. Kept in a file, as the vaults are."""

    def __init__(self, path):
        self.path = path
        self.state = {"secret": "correct horse", "assertion": "a federated token", "state": "good",
                      "identity": True, "lifetime": 3600, "tokens": {}, "issued": 0}
        if os.path.exists(path):
            with open(path) as file:
                self.state = json.load(file)

    def keep(self):
        with open(self.path + ".new", "w") as file:
            json.dump(self.state, file)
        os.replace(self.path + ".new", self.path)

    def issue(self, audience):
        token = "token-" + os.urandom(24).hex()
        self.state["tokens"][token] = {"aud": audience, "exp": time.time() + self.state["lifetime"]}
        self.state["issued"] += 1
        self.keep()
        return token

    def check(self, header, audience):
        """None, or why a token is rejected."""
        if not header or not header.startswith("Bearer "):
            return "AKV10000: Request is missing a Bearer or PoP token."
        token = self.state["tokens"].get(header.removeprefix("Bearer "))
        if token is None:
            return "AKV10046: Unable to resolve the key used for signature validation."
        if token["aud"] != audience:
            return f"AKV10022: Invalid audience. Expected {audience}, found: {token['aud']}."
        if token["exp"] <= time.time():
            return "[TokenExpired] Error validating token: 'S2S12086'."
        return None

    def handle(self, method, target, body):
        """A request to the login service."""
        path = urlparse(target).path
        if path == "/common/discovery/instance":
            return 200, {"tenant_discovery_endpoint": f"{AUTHORITY}/v2.0/.well-known/openid-configuration",
                         "api-version": "1.1", "metadata": []}
        if path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            return 200, {"token_endpoint": f"{AUTHORITY}/oauth2/v2.0/token", "issuer": f"{AUTHORITY}/v2.0",
                         "authorization_endpoint": f"{AUTHORITY}/oauth2/v2.0/authorize"}
        if path != f"/{TENANT}/oauth2/v2.0/token":
            return rejected(400, "invalid_request", 90002, f"Tenant '{path.split('/')[1]}' not found. Check to make"
                            " sure you have the correct tenant ID and are signing into the correct cloud.")
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if form.get("client_id") != CLIENT:
            return rejected(400, "unauthorized_client", 700016, f"Application with identifier '{form.get('client_id')}'"
                            " was not found in the directory 'Contoso'. This can happen if the application has not"
                            " been installed by the administrator of the tenant.")
        if "client_assertion" in form:
            if form["client_assertion"] != self.state["assertion"]:
                return rejected(401, "invalid_client", 700213, "No matching federated identity record found for"
                                " presented assertion subject.")
        elif self.state["state"] == "expired":
            return rejected(401, "invalid_client", 7000222, f"The provided client secret keys for app '{CLIENT}' are"
                            " expired. Visit the Azure portal to create new keys for your app:"
                            " https://aka.ms/NewClientSecret, or consider using certificate credentials for added"
                            " security: https://aka.ms/certCreds.")
        elif form.get("client_secret") != self.state["secret"]:
            return rejected(401, "invalid_client", 7000215, "Invalid client secret provided. Ensure the secret being"
                            " sent in the request is the client secret value, not the client secret ID, for a secret"
                            f" added to app '{CLIENT}'.")
        audience = form.get("scope", "").removesuffix("/.default")
        lifetime = self.state["lifetime"]
        return 200, {"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime,
                     "access_token": self.issue(audience)}

    def identity(self, target, metadata):
        """A request to the identity service of a virtual machine, 169.254.169.254."""
        if metadata != "true":
            return 400, {"error": "invalid_request", "error_description": "Required metadata header not specified"}
        if not self.state["identity"]:
            return 400, {"error": "invalid_request", "error_description": "Identity not found"}
        resource = parse_qs(urlparse(target).query)["resource"][0]
        now = int(time.time())
        return 200, {"access_token": self.issue(resource), "client_id": CLIENT, "expires_in": str(self.state["lifetime"]),
                     "expires_on": str(now + self.state["lifetime"]), "ext_expires_in": str(self.state["lifetime"]),
                     "not_before": str(now), "resource": resource, "token_type": "Bearer"}


def rejected(status, code, number, text):
    description = f"AADSTS{number}: {text} Trace ID: 6f5a Correlation ID: 51a1 Timestamp: 2026-01-02 03:04:05Z"
    return status, {"error": code, "error_description": description, "error_codes": [number],
                    "timestamp": "2026-01-02 03:04:05Z", "trace_id": "6f5a", "correlation_id": "51a1",
                    "error_uri": f"https://login.microsoftonline.com/error?code={number}"}
