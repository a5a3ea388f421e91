/** Both sides of a control socket, as a test writes them by hand. */

import { connect, createServer, type Socket } from 'node:net';
import { until } from './until.js';

/** A connection that sends bytes, and collects what comes. */
export class RawClient {
  readonly socket: Socket;
  #received = '';
  #isOver = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      this.#received += text;
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#isOver = true;
    });
  }

  static connect(path: string): Promise<RawClient> {
    // A test that failed has its process end all the same.
    const socket = connect(path).unref();
    return new Promise((resolve, reject) => {
      socket.once('error', reject);
      socket.once('connect', () => resolve(new RawClient(socket)));
    });
  }

  get isOver(): boolean {
    return this.#isOver;
  }
  get lines(): string[] {
    return this.#received.split('\n').slice(0, -1);
  }

  send(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Resolves to the first lines, when there are so many. */
  async replies(count: number): Promise<Record<string, unknown>[]> {
    await until(() => this.lines.length >= count, `${count} replies, of ${this.lines.length}`);
    return this.lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  async end(): Promise<void> {
    await until(() => this.#isOver, 'the end of the connection');
  }
}

/** Listens as another program would, and does with each connection what `use` does; returns how to end it. */
export async function rawServer(path: string, use: (socket: Socket) => void): Promise<() => Promise<void>> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.unref());
    socket.on('error', () => undefined);
    use(socket);
  });
  await new Promise<void>((resolve) => server.unref().listen(path, resolve));
  return async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
}
