"""Serves a page to try a trained model in a browser:

    meljax app RUN [--host HOST] [--port PORT] [--open]

Prints the address of the page and serves it until Ctrl-C. Record or upload a recording, upload an
image, or choose one of the run's validation files: the page shows the most probable classes with
calibrated probabilities, what the network saw, where the evidence for its answer is, and the
windows of a long recording over time. The page contacts no other host, and uploads are deleted.

Needs the extra: pip install '.[app]'. The weights are those of the run's best epoch.
"""

from collections.abc import Sequence

from meljax.util import console
from meljax.util.console import Parser, path
from meljax.util.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(__doc__)
    parser.add_argument("run", metavar="RUN", type=path, help="directory of a run")
    host_help = "address to listen on; 0.0.0.0: all addresses of this machine (default: 127.0.0.1)"
    parser.add_argument("--host", metavar="HOST", default="127.0.0.1", help=host_help)
    port_help = "port to listen on (default: the first free one from 7860 on)"
    parser.add_argument("--port", metavar="PORT", type=int, help=port_help)
    parser.add_argument("--open", action="store_true", help="open the page in a browser")

    def run(_: console.StopRequest) -> int:
        arguments = parser.parse(argv)
        if arguments.port is not None and not 0 <= arguments.port <= 65535:
            raise UserError("--port must be 0 to 65535; 0: any free port")
        from meljax.workflows.app import app

        app(arguments.run, arguments.host, arguments.port, arguments.open)
        return 0

    return console.run(run)
