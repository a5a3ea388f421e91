/** Runs functions of test modules on real threads. */

import { Worker } from 'node:worker_threads';

/**
 * Runs an export of a compiled module on a thread of its own; resolves to what it returned.
 *
 * @param module the module's URL
 * @param data handed to the function (structured clone)
 */
export function onThread<T>(module: URL, name: string, data: unknown): Promise<T> {
  const code = `
    const { parentPort, workerData } = require('node:worker_threads');
    import(workerData.module).then(async (module) => parentPort.postMessage(await module[workerData.name](workerData.data)));
  `;
  return new Promise<T>((resolve, reject) => {
    const worker = new Worker(code, { eval: true, workerData: { module: module.href, name, data } });
    worker.on('message', (result: T) => {
      resolve(result);
      void worker.terminate();
    });
    worker.on('error', reject);
    worker.on('exit', () => reject(new Error(`${name} ended without a result`)));
  });
}
