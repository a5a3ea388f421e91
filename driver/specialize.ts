/** Machine code of its own for every instance of a packet path. */

import { runInThisContext } from 'node:vm';

/**
 * Returns a factory like `factory`, whose every call gets functions of its own, compiled for its own constants.
 *
 * A ring's typed arrays never change while it lives. Compiled code that is shared by several rings checks and loads
 * each array anew at each access; code that belongs to one ring has address and length built in, which makes a poll
 * loop twice as quick (ARCHITECTURE.md, "Packet paths are specialized"). V8 builds constants in only where a function
 * exists once, so the factory's text is evaluated anew for each call.
 *
 * The text sees nothing of its module: `scope` has every name it uses, by that name. Factories are called when a queue
 * or ring starts, never on the packet path.
 */
export function specialize<Arguments extends unknown[], Instance>(
  factory: (...args: Arguments) => Instance,
  scope: Readonly<Record<string, unknown>>,
): (...args: Arguments) => Instance {
  const text = `(scope) => { const { ${Object.keys(scope).join(', ')} } = scope; return (${factory.toString()}); }`;
  const filename = `specialized:${factory.name}`;
  return (...args) => {
    const instantiate = runInThisContext(text, { filename }) as (names: typeof scope) => typeof factory;
    return instantiate(scope)(...args);
  };
}
