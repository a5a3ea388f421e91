// The meter with DPDK's vhost in place of our back-end: it does what traffic.ts does, for the round trip of DPDK's pair.
//
// Arguments: EAL's, `--`, and a file. Its port is the first there is. Input, a line each, answered by one line of JSON;
// end of input ends the program, which is idle between its answers.
//   trial RATE SECONDS BYTES   {"type":"trial","counts":{...},"samples":N}: what traffic.ts counts, and N latencies in
//                              nanoseconds, 32 bits each, in the file
// Before the first: {"type":"ready"}.

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

namespace {

constexpr uint16_t kPort = 0;
constexpr uint16_t kRingSize = 1024;
constexpr uint16_t kBurst = 32;
constexpr unsigned kPackets = 8191;
// As in trial.ts.
constexpr uint64_t kLagMax = 1024;
constexpr double kGraceSeconds = 0.2;
constexpr size_t kSamplesMax = size_t{1} << 21;

// Words 0 to 4 of a packet, as in traffic.ts.
struct __rte_packed Frame {
  uint32_t addresses[3];
  uint16_t etherType;
  uint16_t trial;
  uint32_t due;
};
static_assert(sizeof(Frame) == 20, "the meter's words are the first 20 bytes");

struct Trial {
  double rate, seconds;
  unsigned bytes;
  uint16_t number;
  uint64_t made, refused, received;
  double took;
  std::vector<uint32_t> samples;
};

rte_mempool* pool = nullptr;

bool makePackets(Trial& trial, rte_mbuf** packets, uint16_t count, double apart) {
  if (rte_pktmbuf_alloc_bulk(pool, packets, count) != 0) return false;
  for (uint16_t i = 0; i < count; i++) {
    packets[i]->data_len = static_cast<uint16_t>(trial.bytes);
    packets[i]->pkt_len = trial.bytes;
    const auto due = static_cast<uint64_t>(static_cast<double>(trial.made + trial.refused) * apart);
    const Frame frame{
        {0xffffffff, 0x0002ffff, 0x01000000}, 0xb588, trial.number, static_cast<uint32_t>(due)};
    memcpy(rte_pktmbuf_mtod(packets[i], void*), &frame, sizeof frame);
    trial.made++;
  }
  return true;
}

void takePackets(Trial& trial, rte_mbuf** packets, uint16_t count, double nanoseconds, uint64_t stride) {
  for (uint16_t i = 0; i < count; i++) {
    Frame frame;
    memcpy(&frame, rte_pktmbuf_mtod(packets[i], void*), sizeof frame);
    // What is left of an earlier trial.
    if (frame.trial != trial.number || frame.etherType != 0xb588) continue;
    if (trial.received++ % stride == 0 && trial.samples.size() < kSamplesMax) {
      trial.samples.push_back(static_cast<uint32_t>(static_cast<uint64_t>(nanoseconds)) - frame.due);
    }
  }
  rte_pktmbuf_free_bulk(packets, count);
}

// Runs a trial on the core that forwards.
int run(void* argument) {
  Trial& trial = *static_cast<Trial*>(argument);
  const double perSecond = static_cast<double>(rte_get_tsc_hz());
  const double apart = 1e9 / trial.rate;
  const auto stride = static_cast<uint64_t>(trial.rate * trial.seconds / kSamplesMax) + 1;
  rte_mbuf* out[kBurst];
  rte_mbuf* back[kBurst];
  uint16_t waiting = 0;
  const uint64_t start = rte_rdtsc();
  for (;;) {
    const double now = static_cast<double>(rte_rdtsc() - start) / perSecond;
    const uint16_t came = rte_eth_rx_burst(kPort, 0, back, kBurst);
    if (came > 0) {
      const double then = static_cast<double>(rte_rdtsc() - start) / perSecond;
      takePackets(trial, back, came, then * 1e9, stride);
    }
    const auto due = static_cast<uint64_t>(std::min(now, trial.seconds) * trial.rate);
    uint64_t unmade = due - trial.made - trial.refused;
    const bool isBack = unmade + waiting == 0 && trial.received >= trial.made;
    if (now >= trial.seconds && (isBack || now >= trial.seconds + kGraceSeconds)) {
      trial.refused += unmade;
      break;
    }
    if (unmade > kLagMax) {
      trial.refused += unmade - kLagMax;
      unmade = kLagMax;
    }
    const auto count = static_cast<uint16_t>(std::min<uint64_t>(unmade, kBurst - waiting));
    if (count > 0 && makePackets(trial, out + waiting, count, apart)) {
      waiting = static_cast<uint16_t>(waiting + count);
      trial.took = now;
    }
    if (waiting > 0) {
      const uint16_t sent = rte_eth_tx_burst(kPort, 0, out, waiting);
      waiting = static_cast<uint16_t>(waiting - sent);
      memmove(out, out + sent, waiting * sizeof *out);
    }
  }
  rte_pktmbuf_free_bulk(out, waiting);
  return 0;
}

bool openPort() {
  pool = rte_pktmbuf_pool_create("meter", kPackets, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
  rte_eth_conf configuration{};
  return pool != nullptr && rte_eth_dev_configure(kPort, 1, 1, &configuration) == 0 &&
         rte_eth_rx_queue_setup(kPort, 0, kRingSize, SOCKET_ID_ANY, nullptr, pool) == 0 &&
         rte_eth_tx_queue_setup(kPort, 0, kRingSize, SOCKET_ID_ANY, nullptr) == 0 && rte_eth_dev_start(kPort) == 0;
}

void answer(const Trial& trial, const char* file) {
  FILE* stream = fopen(file, "wb");
  size_t written = 0;
  if (stream != nullptr) {
    written = fwrite(trial.samples.data(), sizeof(uint32_t), trial.samples.size(), stream);
    fclose(stream);
  }
  printf("{\"type\":\"trial\",\"counts\":{\"offered\":%" PRIu64 ",\"sent\":%" PRIu64 ",\"received\":%" PRIu64
         ",\"refused\":%" PRIu64 ",\"seconds\":%.9f},\"samples\":%zu}\n",
         trial.made + trial.refused, trial.made, trial.received, trial.refused, trial.took, written);
}

}  // namespace

int main(int argc, char** argv) {
  const int used = rte_eal_init(argc, argv);
  const unsigned worker = used < 0 ? RTE_MAX_LCORE : rte_get_next_lcore(-1, 1, 0);
  if (used < 0 || used + 1 >= argc || worker == RTE_MAX_LCORE || !openPort()) {
    fprintf(stderr, "dpdk-meter: no port, no second core, or no file for latencies\n");
    return 1;
  }
  const char* file = argv[used + 1];
  puts("{\"type\":\"ready\"}");
  fflush(stdout);
  char line[128];
  for (uint16_t number = 1; fgets(line, sizeof line, stdin) != nullptr; number++) {
    Trial trial{};
    trial.number = number;
    if (sscanf(line, "trial %lf %lf %u", &trial.rate, &trial.seconds, &trial.bytes) != 3) continue;
    trial.samples.reserve(kSamplesMax);
    rte_eal_remote_launch(run, &trial, worker);
    // Waiting as EAL does would spin on the core where the guest forwards.
    while (rte_eal_get_lcore_state(worker) == RUNNING) usleep(1000);
    rte_eal_wait_lcore(worker);
    answer(trial, file);
    fflush(stdout);
  }
  rte_eth_dev_stop(kPort);
  rte_eth_dev_close(kPort);
  rte_eal_cleanup();
  return 0;
}
