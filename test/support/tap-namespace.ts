/** Network namespaces with a tap in each: kernels at both ends of a switch. */

import { runCommand, startCommand } from './commands.js';
import { uniqueName } from './test-names.js';

const PYTHON = '/usr/bin/python3';

/** Takes one connection, and prints the SHA-256 of all it gets. */
const SERVER = `
import hashlib, socket, sys
listener = socket.create_server((sys.argv[1], 7001))
print("ready", flush=True)
connection, _ = listener.accept()
digest, count = hashlib.sha256(), 0
while data := connection.recv(1 << 16):
    digest.update(data)
    count += len(data)
connection.sendall(f"{count} {digest.hexdigest()}".encode())
connection.close()
`;

/** Sends so many bytes, and prints their SHA-256 and what the server made of them. */
const CLIENT = `
import hashlib, random, socket, sys
count = int(sys.argv[2])
data = random.Random(7).randbytes(count)
connection = socket.create_connection((sys.argv[1], 7001), timeout=60)
connection.sendall(data)
connection.shutdown(socket.SHUT_WR)
answer = b""
while part := connection.recv(4096):
    answer += part
print(f"{count} {hashlib.sha256(data).hexdigest()}|{answer.decode()}")
`;

export class TapNamespace {
  readonly name = uniqueName('tn');
  readonly address: string;
  /** Name of the tap. */
  readonly link: string;

  private constructor(tap: string, address: string) {
    this.link = tap;
    this.address = address;
  }

  /** Makes a namespace and moves a tap that is open already into it, up and with an address out of a /24. */
  static async create(tap: string, address: string, mtu = 1500): Promise<TapNamespace> {
    const space = new TapNamespace(tap, address);
    await runCommand('ip', ['netns', 'add', space.name]);
    try {
      await runCommand('ip', ['link', 'set', tap, 'netns', space.name]);
      await space.run('ip', 'link', 'set', 'lo', 'up');
      await space.run('ip', 'address', 'add', `${address}/24`, 'dev', tap);
      await space.run('ip', 'link', 'set', tap, 'mtu', String(mtu), 'up');
    } catch (error) {
      await space.close();
      throw error;
    }
    return space;
  }

  /** Runs a program in the namespace; resolves to what it printed. */
  run(command: string, ...args: readonly string[]): Promise<string> {
    return runCommand('ip', ['netns', 'exec', this.name, command, ...args], { timeoutMs: 60_000 });
  }

  /** The tap's MAC address. */
  async macAddress(): Promise<string> {
    return (await this.run('cat', `/sys/class/net/${this.link}/address`)).trim();
  }

  /**
   * Pings until `count` requests are answered, for 20 s at most; resolves to how many of so many were. On a busy machine
   * ping sends more than that, and gets answers to them too.
   *
   * Without the time limit, ping would wait for the last answers only twice as long as for earlier ones: on a busy machine
   * a thread may be held up for longer.
   */
  async ping(address: string, count: number, ...options: readonly string[]): Promise<number> {
    const said = await this.run('ping', '-c', String(count), '-i', '0.02', '-w', '20', ...options, address).catch(
      (error: Error) => error.message,
    );
    const [, received] = /packets transmitted, (\d+) received/.exec(said) ?? [];
    if (received === undefined) throw new Error(`ping said no numbers: ${said}`);
    if (said.includes('duplicates')) throw new Error(`an answer came twice: ${said}`);
    return Math.min(Number(received), count);
  }

  /** Sends bytes over TCP to another one; resolves to what was sent and what arrived, each `BYTES SHA256`. */
  async transfer(to: TapNamespace, bytes: number): Promise<{ readonly sent: string; readonly arrived: string }> {
    const args = ['netns', 'exec', to.name, PYTHON, '-c', SERVER, to.address];
    const server = await startCommand('ip', args, /ready/);
    try {
      const said = await this.run(PYTHON, '-c', CLIENT, to.address, String(bytes));
      const [sent = '', arrived = ''] = said.trim().split('|');
      return { sent, arrived };
    } finally {
      await server.stop();
    }
  }

  /** Removes the namespace, and the tap with it. Idempotent. */
  async close(): Promise<void> {
    await runCommand('ip', ['netns', 'delete', this.name]).catch(() => {});
  }
}
