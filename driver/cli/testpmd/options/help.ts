/** `virtio-pmd testpmd --help`. */

export const helpText = (): string => `Usage: virtio-pmd testpmd [EAL options] -- [testpmd options]

Forwards packets between ports, by the options, commands and reports of dpdk-testpmd 22.11.

EAL options:
  -l 0-1, -c MASK, --lcores MAP   lcores; the first reads commands (--main-lcore), the others forward
  --vdev NAME[,DEVARGS]           a port: net_virtio_user, net_vhost, net_tap, net_pcap, net_null, net_ring or
                                  net_loopback, and a number; repeatable
  -a BDF[,DEVARGS]                a PCI device through VFIO; repeatable
  -b BDF, --no-pci                accepted: PCI devices are those of -a alone
  --no-huge, --huge-dir, -m, --socket-mem, --in-memory, --file-prefix, --single-file-segments, --iova-mode,
  --log-level, --no-telemetry, --proc-type=primary, -n, -d and the like are accepted

testpmd options, most of them as in DPDK's user guide:
  -i, --cmdline-file FILE         commands from a terminal or a pipe; from a file, first
  -a, --tx-first                  forward at once; send a burst first
  --forward-mode MODE             io mac macswap flowgen rxonly txonly csum icmpecho noisy 5tswap
  --port-topology T               paired, chained or loop
  --nb-cores N, --nb-ports N, --coremask MASK, --portmask MASK, --portlist LIST
  --rxq N, --txq N, --rxd N, --txd N, --burst N, --txpkts LIST, --mbuf-size N, --total-num-mbufs N
  --stats-period SECONDS, --display-xstats NAMES
  --json                          reports as records, a line each
  --metrics PORT                  metrics for Prometheus (OpenMetrics) at http://127.0.0.1:PORT/metrics
  --control-socket PATH, --no-control-socket
                                  where \`virtio-pmd top\` looks on, or that it cannot

Examples:
  virtio-pmd testpmd --no-pci --vdev net_null0 --vdev net_null1 -- -i
      two ports that make and take packets; then: start, show port stats all, stop, quit
  virtio-pmd testpmd -l 0,1 --no-pci --vdev net_vhost0,iface=/run/vm1.sock -- -i --forward-mode=mac
      serves a guest's network device and sends back what comes
  virtio-pmd testpmd -l 0,1 --no-pci --vdev net_virtio_user0,path=/run/vm1.sock,queues=2 -- --rxq=2 --txq=2
      drives the device that somebody else serves there

Exit status: 0 done, 1 it ended by itself: an option that cannot be, a port that does not start.
`;
