"""Sends every frame that comes in on an interface back out of it: `tap_reflect.py INTERFACE`. Prints `ready`; runs until it is ended."""

import socket
import sys

ETH_P_ALL = 3
PACKET_OUTGOING = 4
FRAME_MAX = 65536

wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
wire.bind((sys.argv[1], ETH_P_ALL))
print("ready", flush=True)
while True:
    frame, address = wire.recvfrom(FRAME_MAX)
    if address[2] != PACKET_OUTGOING:
        wire.send(frame)
