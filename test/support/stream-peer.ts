/** The host's end of QEMU's `-netdev stream`: a unix socket with frames behind their lengths, sent back as they came. */

import { createServer, type Server, type Socket } from 'node:net';

/** Bytes before each frame: its length, big-endian. */
const LENGTH_BYTES = 4;

export class StreamEcho implements AsyncDisposable {
  readonly path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  frames = 0;

  private constructor(path: string) {
    this.path = path;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  static async listen(path: string): Promise<StreamEcho> {
    const echo = new StreamEcho(path);
    await new Promise<void>((resolve, reject) => echo.#server.once('error', reject).listen(path, resolve));
    return echo;
  }

  /** What QEMU is told, for a network device `name`. */
  netdev(name: string): string[] {
    return ['-netdev', `stream,id=${name},server=off,addr.type=unix,addr.path=${this.path}`];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    let rest = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('data', (data) => {
      rest = Buffer.concat([rest, data]);
      let end = 0;
      while (rest.length - end >= LENGTH_BYTES) {
        const next = end + LENGTH_BYTES + rest.readUInt32BE(end);
        if (next > rest.length) break;
        end = next;
        this.frames++;
      }
      if (end > 0) socket.write(rest.subarray(0, end));
      rest = rest.subarray(end);
    });
  }
}
