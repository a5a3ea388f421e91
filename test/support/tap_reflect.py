"""Sends every frame that comes in on an interface back out of it: `tap_reflect.py INTERFACE`. Prints `ready`; runs until it is ended."""

import errno
import socket
import sys
import time

ETH_P_ALL = 3
PACKET_OUTGOING = 4
FRAME_MAX = 65536
# Of socket(7): as SO_RCVBUF, beyond the system's limit.
SO_RCVBUFFORCE = 33
RECEIVE_BYTES = 1 << 24

wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
wire.bind((sys.argv[1], ETH_P_ALL))
print("ready", flush=True)


def send(frame):
    """A queue of the interface that is full, or being turned off, takes it later."""
    while True:
        try:
            wire.send(frame)
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            time.sleep(0.001)


while True:
    frame, address = wire.recvfrom(FRAME_MAX)
    if address[2] != PACKET_OUTGOING:
        send(frame)
