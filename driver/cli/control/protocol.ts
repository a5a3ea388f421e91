/** What goes over a control socket: JSON-RPC 2.0, one request or reply a line (newline-delimited JSON). */

/** Bytes of a request with its line break; methods take no parameters. */
export const LONGEST_REQUEST = 4096;
/** Bytes of a reply: a snapshot of 128 guests with 128 queue pairs each stays below. */
export const LONGEST_REPLY = 2 ** 24;

/** Codes of errors (JSON-RPC 2.0 §5.1). */
export const RpcError = {
  PARSE_ERROR: -32700,
  INVALID_REQUEST: -32600,
  METHOD_NOT_FOUND: -32601,
  INVALID_PARAMS: -32602,
  INTERNAL_ERROR: -32603,
  /** Of those that are a server's own: too many clients. */
  BUSY: -32000,
} as const;
export type RpcErrorCode = (typeof RpcError)[keyof typeof RpcError];

export type RpcId = string | number | null;

/** What can be asked for, by name. A method takes no parameters, and returns what is fit for JSON. */
export type ControlMethods = Readonly<Record<string, () => unknown>>;

/** Returns the reply to a line, without its line break, or undefined where none is wanted (JSON-RPC 2.0 §4.1). */
export function answer(line: string, methods: ControlMethods): string | undefined {
  let request: unknown;
  try {
    request = JSON.parse(line);
  } catch {
    return failure(null, RpcError.PARSE_ERROR, 'the line is no JSON');
  }
  if (typeof request !== 'object' || request === null || Array.isArray(request)) {
    return failure(null, RpcError.INVALID_REQUEST, 'a request is one object a line');
  }
  const { jsonrpc, id, method, params } = request as Readonly<Record<string, unknown>>;
  const replyId: RpcId = typeof id === 'string' || typeof id === 'number' ? id : null;
  if (jsonrpc !== '2.0' || typeof method !== 'string' || (id !== undefined && id !== null && replyId === null)) {
    return failure(replyId, RpcError.INVALID_REQUEST, 'a request has "jsonrpc": "2.0", "method" and "id"');
  }
  if (id === undefined) return undefined;
  if (!Object.hasOwn(methods, method)) {
    const known = Object.keys(methods).join(', ');
    return failure(replyId, RpcError.METHOD_NOT_FOUND, `there are the methods ${known}`);
  }
  if (params !== undefined) return failure(replyId, RpcError.INVALID_PARAMS, `${method} takes no parameters`);
  try {
    return JSON.stringify({ jsonrpc: '2.0', id: replyId, result: methods[method]!() });
  } catch (error) {
    return failure(replyId, RpcError.INTERNAL_ERROR, error instanceof Error ? error.message : String(error));
  }
}

export const failure = (id: RpcId, code: RpcErrorCode, message: string): string =>
  JSON.stringify({ jsonrpc: '2.0', id, error: { code, message } });
