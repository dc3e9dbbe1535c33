"""moto's server, one request at a time.

moto looks at the condition of a put and puts in two steps, so that of two puts at once both may find their condition met.
S3 promises that one wins. Arguments: a port of 127.0.0.1.
"""

import sys
import threading

from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

LOCK = threading.Lock()
MOTO = DomainDispatcherApplication(create_backend_app)


def one_by_one(environment, start_response):
    with LOCK:
        return list(MOTO(environment, start_response))


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), one_by_one, threaded=True, request_handler=MotoRequestHandler)
