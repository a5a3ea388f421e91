"""Answers tagged UDP on an interface: says which tag it has and whether its checksums are right, and sends 100 bytes in the VLAN that it names.

Usage: scapy_vlan.py INTERFACE. Prints `ready`, then a line for each packet; runs until it is ended.
"""

import sys

from scapy.all import IP, UDP, Dot1Q, Ether, conf

wire = conf.L2socket(iface=sys.argv[1], promisc=True)
print("ready", flush=True)
while True:
    packet = wire.recv()
    if packet is None or Dot1Q not in packet or UDP not in packet or packet[UDP].dport != 5000:
        continue
    again = packet.copy()
    del again[IP].chksum
    del again[UDP].chksum
    right = "right" if bytes(again) == bytes(packet) else "wrong"
    vlan = int.from_bytes(bytes(packet[UDP].payload)[:2], "big")
    ether, ip, udp = packet[Ether], packet[IP], packet[UDP]
    answer = (
        Ether(src=ether.dst, dst=ether.src)
        / Dot1Q(vlan=vlan)
        / IP(src=ip.dst, dst=ip.src)
        / UDP(sport=udp.dport, dport=udp.sport)
        / bytes(index % 251 for index in range(100))
    )
    wire.send(answer)
    print("took", packet[Dot1Q].vlan, packet[Dot1Q].prio, right, flush=True)
