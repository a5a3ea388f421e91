/** The host's end of QEMU's `-netdev stream`: a unix socket with frames behind their lengths. */

import { createServer, type Server, type Socket } from 'node:net';

/** Bytes before each frame: its length, big-endian. */
const LENGTH_BYTES = 4;

export class StreamPeer implements AsyncDisposable {
  readonly path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #onFrame: (frame: Buffer, peer: StreamPeer) => void;
  /** Frames that came. */
  frames = 0;

  private constructor(path: string, onFrame: (frame: Buffer, peer: StreamPeer) => void) {
    this.path = path;
    this.#onFrame = onFrame;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** @param onFrame called for each frame that comes */
  static async listen(path: string, onFrame: (frame: Buffer, peer: StreamPeer) => void): Promise<StreamPeer> {
    const peer = new StreamPeer(path, onFrame);
    await new Promise<void>((resolve, reject) => peer.#server.once('error', reject).listen(path, resolve));
    return peer;
  }

  /** What QEMU is told, for a network device `name`. */
  netdev(name: string): string[] {
    return ['-netdev', `stream,id=${name},server=off,addr.type=unix,addr.path=${this.path}`];
  }

  /** Sends a frame to every QEMU that is connected. */
  send(frame: Uint8Array): void {
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt32BE(frame.length);
    for (const socket of this.#sockets) socket.write(Buffer.concat([length, frame]));
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
      let at = 0;
      while (rest.length - at >= LENGTH_BYTES) {
        const next = at + LENGTH_BYTES + rest.readUInt32BE(at);
        if (next > rest.length) break;
        this.frames++;
        this.#onFrame(rest.subarray(at + LENGTH_BYTES, next), this);
        at = next;
      }
      rest = rest.subarray(at);
    });
  }
}

/** Sends every frame back as it came. */
export const streamEcho = (path: string): Promise<StreamPeer> =>
  StreamPeer.listen(path, (frame, peer) => peer.send(frame));
