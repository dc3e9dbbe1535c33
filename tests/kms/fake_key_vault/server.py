"""Azure Key Vault, Managed HSM and the login service, as far as the tests of a KEK need them. No emulator exists.

    server.py PORT FOLDER

On PORT, in the clear: the administrator's interface, and a proxy that answers for 169.254.169.254. `GET /admin` tells the
two ports with TLS, one for all vaults and one for the login service, and the file of the authority to trust. Hosts
have their real names: clients are told where they are. State is kept in FOLDER. The surface is measured by Microsoft's own
client in validate.py.
"""

import base64
import json
import os
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import certificates
from login import AUTHORITY, Login
from vault import Vaults, error

LOCK = threading.RLock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def setup(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.tls:
            self.request.settimeout(self.timeout)
            # In this connection's own thread: a client that is slow to greet holds up nobody.
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def respond(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        with LOCK:
            raw, status, answer, headers = self.server.answer(self, body)
        if raw is not None:
            self.wfile.write(raw)
            # Kept open only where the client can see the answer's end as we do.
            head, _, content = raw.partition(b"\r\n\r\n")
            if f"\r\ncontent-length: {len(content)}" not in head.decode("latin-1").lower():
                self.close_connection = True
            return
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if answer is not None:
            self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        # Head and content in one packet.
        self._headers_buffer.append(b"\r\n" + content)
        self.flush_headers()

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = respond

    def log_message(self, text, *arguments):
        # No header and no content: a log shows no token.
        sys.stderr.write(f"{self.headers.get('Host') if hasattr(self, 'headers') else '-'} {text % arguments}\n")


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, answer, tls=None):
        self.answer, self.tls = answer, tls
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request, client_address):
        sys.stderr.write(f"connection of {client_address}: {sys.exc_info()[1]!r}\n")


class Service:
    def __init__(self, port, folder):
        ca, certificate = certificates.make(folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        self.vaults = Vaults(os.path.join(folder, "vaults.json"))
        self.login = Login(os.path.join(folder, "login.json"))
        # Of each of the services: answers to give in place of its own, and the requests that came.
        self.raw = {"challenge": [], "vault": [], "login": [], "identity": []}
        self.requests = []
        self.throttled = 0
        ports = os.path.join(folder, "ports.json")
        kept = {"vault": 0, "login": 0}
        if os.path.exists(ports):
            with open(ports) as file:
                kept = json.load(file)
        listeners = [Listener(kept["vault"], self.to_vault, tls), Listener(kept["login"], self.to_login, tls)]
        self.places = {"vault": listeners[0].server_port, "login": listeners[1].server_port}
        with open(ports, "w") as file:
            json.dump(self.places, file)
        self.places["ca"] = ca
        for listener in listeners:
            threading.Thread(target=listener.serve_forever, daemon=True).start()
        Listener(port, self.to_port).serve_forever()

    def instead(self, service, request):
        self.requests.append({"service": service, "method": request.command, "path": request.path,
                              "host": request.headers.get("Host"),
                              "authorized": "Authorization" in request.headers,
                              "length": int(request.headers.get("Content-Length") or 0)})
        return self.raw[service].pop(0) if self.raw[service] else None

    def to_vault(self, request, body):
        host = request.headers.get("Host", "").lower()
        resource = "https://" + host.split(":")[0].split(".", 1)[1]
        headers = {"x-ms-request-id": os.urandom(16).hex(), "x-ms-keyvault-region": "westeurope",
                   "x-ms-keyvault-service-version": "1.9.2714.1"}
        # The challenge comes first, also where an answer waits: the client sends no content before it.
        why = self.login.check(request.headers.get("Authorization"), resource)
        if why and "Authorization" not in request.headers:
            raw = self.instead("challenge", request)
            if raw is not None:
                return raw, None, None, None
            return None, 401, error(401, "Unauthorized", why)[1], headers | challenge(resource, "")
        raw = self.instead("vault", request)
        if raw is not None:
            return raw, None, None, None
        if why:
            extra = ', error="invalid_token", error_description="the token is rejected"'
            return None, 401, error(401, "Unauthorized", why)[1], headers | challenge(resource, extra)
        if self.throttled:
            self.throttled -= 1
            status, answer = error(429, "Throttled", "Request was not processed because too many requests were"
                                   " received. Reason: VaultRequestTypeLimitReached")
            return None, status, answer, headers | {"Retry-After": "10"}
        status, answer = self.rest(host, request.command, request.path, body)
        return None, status, answer, headers

    def to_login(self, request, body):
        raw = self.instead("login", request)
        if raw is not None:
            return raw, None, None, None
        status, answer = self.login.handle(request.command, request.path, body)
        return None, status, answer, {"x-ms-request-id": os.urandom(16).hex()}

    def to_port(self, request, body):
        if urlparse(request.path).path == "/metadata/identity/oauth2/token":
            raw = self.instead("identity", request)
            if raw is not None:
                return raw, None, None, None
            status, answer = self.login.identity(request.path, request.headers.get("Metadata"))
            return None, status, answer, {"Server": "IMDS/150.870.65.1854"}
        status, answer = self.admin(request.command, request.path, body)
        return None, status, answer, {}

    def rest(self, host, method, path, body):
        try:
            content = json.loads(body) if body else {}
        except ValueError:
            return error(400, "BadParameter", "The request body is not JSON.")
        return self.vaults.handle(host, method, unquote(urlparse(path).path), content)

    def admin(self, method, path, body):
        match path.strip("/").split("/", 2):
            # The REST surface itself, as somebody who may do everything.
            case ["owner", host, rest]:
                vault = self.vaults.vault(host)
                denied, vault["denied"] = vault["denied"], {}
                answer = self.rest(host, method, "/" + rest, body)
                vault["denied"] = denied
                return answer
            case ["admin"]:
                return 200, self.places
            case ["admin", "requests"]:
                requests, self.requests = self.requests, []
                return 200, requests
            # {"service": .., "raw": base64, "times": n}
            case ["admin", "answer"]:
                wish = json.loads(body)
                self.raw[wish["service"]] = [base64.b64decode(wish["raw"])] * wish["times"]
            # {"host": .., "denied": {operation: how}, "recoveryLevel": ..}
            case ["admin", "vault"]:
                wish = json.loads(body)
                self.vaults.vault(wish.pop("host")).update(wish)
                self.vaults.keep()
            # {"secret": .., "state": .., "lifetime": .., "identity": ..}
            case ["admin", "login"]:
                self.login.state.update(json.loads(body))
                self.login.keep()
            case ["admin", "revoke-tokens"]:
                self.login.state["tokens"] = {}
                self.login.keep()
            case ["admin", "throttle", times]:
                self.throttled = int(times)
            case _:
                return 404, {}
        return 200, {}


def challenge(resource, extra):
    return {"WWW-Authenticate": f'Bearer authorization="{AUTHORITY}", resource="{resource}"{extra}'}


if __name__ == "__main__":
    Service(int(sys.argv[1]), sys.argv[2])
