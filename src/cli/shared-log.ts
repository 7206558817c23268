/** A log in a shared store, named by its URI, for the tools that look at journals at rest. */

import { silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { openSharedStore } from "../journal/open-shared-store.ts";
import { SharedLogAtRest } from "../journal/shared-inspect.ts";
import type { SharedStore } from "../journal/shared-store.ts";

export function isStoreUri(text: string): boolean {
  return text.includes("://");
}

/** `settings`: `name=value` each, as `journal.zookeeper.storeOptions` has them. */
export function openStore(uri: string, settings: readonly string[]): Promise<SharedStore> {
  const options: Record<string, string> = {};
  for (const setting of settings) {
    const at = setting.indexOf("=");
    options[at < 0 ? setting : setting.slice(0, at)] = at < 0 ? "" : setting.slice(at + 1);
  }
  return openSharedStore(uri, options, {
    disk: new NodeDisk({ isPrivate: true }),
    clock: new NodeClock(),
    logger: silentLogger,
    metrics: new Metrics(),
    environment: process.env,
  });
}

/** The store is closed afterwards. */
export async function withSharedLog<T>(
  uri: string,
  settings: readonly string[],
  signal: AbortSignal,
  run: (log: SharedLogAtRest, store: SharedStore) => Promise<T>,
): Promise<T> {
  const store = await openStore(uri, settings);
  try {
    return await run(await SharedLogAtRest.open({ store, clock: new NodeClock(), signal }), store);
  } finally {
    await store.close();
  }
}
