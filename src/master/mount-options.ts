/**
 * Options of a mount that are the master's own business; the others are the under store's. They are taken out before a
 * store is opened or a worker is told of the mount.
 */

import { HeadpondError } from "../base/errors.ts";
import { parseDurationMs } from "../base/units.ts";

/** How soon changes that others make in the under store are seen. */
export type SyncPolicy =
  /** After the first access only by `sync` on demand. */
  | { readonly kind: "never" }
  /** Every access asks the store. */
  | { readonly kind: "always" }
  /** What is older is served once more, and looked at anew in the background. */
  | { readonly kind: "interval"; readonly intervalMs: number };

export const syncPolicyDefault: SyncPolicy = { kind: "interval", intervalMs: 300_000 };

/** `sync=never`, `sync=always`, `sync=5m`. Throws `invalid`. */
export function syncPolicy(options: Readonly<Record<string, string>>): SyncPolicy {
  const text = options["sync"];
  if (text === undefined) return syncPolicyDefault;
  if (text === "never" || text === "always") return { kind: text };
  let intervalMs: number;
  try {
    intervalMs = parseDurationMs(text);
  } catch (error) {
    throw new HeadpondError("invalid", `option sync is ${JSON.stringify(text)}: write never, always, or e.g. 5m`, {
      cause: error,
    });
  }
  return intervalMs === 0 ? { kind: "always" } : { kind: "interval", intervalMs };
}

/** The options without the master's own. */
export function storeOptions(options: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const { sync: _sync, ...rest } = options;
  return rest;
}
