/** Serves the metrics on the loopback interface: `--metrics`. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ErrorCode, isSystemError, VirtioError } from '../../errors.js';

const HOST = '127.0.0.1';
const PATH = '/metrics';
/** A scraper or two, and somebody with a browser. */
const MOST_CONNECTIONS = 16;
/** From its first byte to its last, a request takes no longer. */
const REQUEST_MS = 5000;

/** What is served. */
export interface PrintedMetrics {
  /** All of it, in the format that an Accept header asks for. */
  print(accept: string | undefined): Promise<{ readonly type: string; readonly text: string }>;
}

export class MetricsServer {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Listens; with port 0 wherever there is room. @throws VirtioError IN_USE, PERMISSION_DENIED, IO */
  static listen(port: number, metrics: PrintedMetrics): Promise<MetricsServer> {
    const server = createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS }, (request, response) =>
      answer(request, response, metrics),
    );
    server.maxConnections = MOST_CONNECTIONS;
    return new Promise((resolve, reject) => {
      server.once('error', (error) => reject(listenError(error, port)));
      server.listen({ host: HOST, port }, () => {
        // A connection that fails later is the other side's.
        server.on('error', () => undefined);
        resolve(new MetricsServer(server));
      });
    });
  }

  get url(): string {
    return `http://${HOST}:${(this.#server.address() as AddressInfo).port}${PATH}`;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }
}

function answer(request: IncomingMessage, response: ServerResponse, metrics: PrintedMetrics): void {
  const refuse = (status: number, text: string): void => {
    response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(`${text}\n`);
  };
  if (request.url?.split('?')[0] !== PATH) {
    refuse(404, `the metrics are at ${PATH}`);
    return;
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    refuse(405, 'the metrics can only be read');
    return;
  }
  metrics.print(request.headers.accept).then(
    ({ type, text }) => response.writeHead(200, { 'content-type': type, vary: 'Accept' }).end(text),
    (error: unknown) => refuse(500, String(error)),
  );
}

function listenError(error: unknown, port: number): unknown {
  if (!isSystemError(error)) return error;
  const fail = (code: ErrorCode, message: string, advice: string): VirtioError =>
    new VirtioError(code, `--metrics: ${message}`, { value: port, cause: error, advice });
  switch (error.code) {
    case 'EADDRINUSE':
      return fail(ErrorCode.IN_USE, `port ${port} of ${HOST} is taken`, 'choose another one');
    case 'EACCES':
      return fail(ErrorCode.PERMISSION_DENIED, `not allowed to listen on port ${port}`, 'choose one from 1024 on');
    default:
      return fail(ErrorCode.IO, `could not listen on port ${port}: ${error.message}`, 'see the cause');
  }
}
