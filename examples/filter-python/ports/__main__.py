"""A filter for Sluice: it lets flows pass by their destination port."""

import struct
import sys

import sluice_stage
from sluice_stage import Attribute, Diagnostic


class Ports:
    """What the protocol needs to know of a filter: a description, a configuration, a verdict."""

    type = "ports"
    summary = "Lets flows pass by their destination port."
    attributes = [
        Attribute("accept", "list(number)", required=True, doc="The destination ports that pass, of the original direction."),
    ]

    def configure(self, block):
        """Takes the block, a dict without absent attributes, and returns what is wrong with it."""
        accept = block.get("accept")
        if not isinstance(accept, list):
            return [Diagnostic(["accept"], "Wrong type", "A list of ports is needed, as in [80, 443].")]
        for i, port in enumerate(accept):
            if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
                return [Diagnostic(["accept", i], "Bad port", f"{port!r} is no port: write a number from 0 to 65535.")]
        self.ports = set(accept)
        return []

    def passes(self, record):
        """Judges one record about a flow: see "Records" in docs/batch.md."""
        if record[2] == sluice_stage.DESTROY:  # who was told of a flow is told of its end
            return True
        return struct.unpack_from("<H", record, 40 + 34)[0] in self.ports


if __name__ == "__main__":
    sys.exit(sluice_stage.serve(Ports()))
