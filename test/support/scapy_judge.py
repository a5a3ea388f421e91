"""Has scapy make every length and checksum of a capture's TCP and UDP packets anew; prints what differs, and the streams' payloads."""

import hashlib
import sys

from scapy.all import IP, TCP, UDP, IPv6, rdpcap

packets = wrong = 0
payloads = {}
for packet in rdpcap(sys.argv[1]):
    packets += 1
    found = bytes(packet)
    again = packet.copy()
    transport = TCP if TCP in again else UDP
    payload = bytes(again[transport].payload)
    del again[transport].chksum
    if transport is UDP:
        del again[UDP].len
    else:
        del again[TCP].dataofs
    if IP in again:
        del again[IP].len
        del again[IP].chksum
        del again[IP].ihl
    else:
        del again[IPv6].plen
    if bytes(again) != found:
        wrong += 1
    stream = f"{'4' if IP in packet else '6'}{transport.__name__}"
    payloads.setdefault(stream, hashlib.sha256()).update(payload)
print(packets, wrong, *(f"{stream}={digest.hexdigest()}" for stream, digest in sorted(payloads.items())))
