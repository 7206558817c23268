/**
 * The opened under store of each mount. A store is opened when it is needed first, opened anew when its mount's URI or
 * options change, and closed when the mount goes. `check` is what a new mount has to pass: whoever mounts a bucket that is
 * not there hears so at once, not at the first read.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { MountId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { UnderStore } from "../under-store/under-store.ts";
import { storeOptions } from "./mount-options.ts";

/** What a store is opened with; options include secrets. */
export type StoreSource = { readonly uri: string; readonly options: Readonly<Record<string, string>> };

export type OpenUnderStore = (uri: string, options: Readonly<Record<string, string>>) => Promise<UnderStore>;

/** A mount, as far as it matters here. */
export type MountedSource = StoreSource & { readonly id: MountId; readonly path: Path };

/** A store that does not answer the check of a new mount for so long counts as not reachable. */
const checkTimeoutMs = 20_000;

type Opened = { readonly fingerprint: string; readonly store: Promise<UnderStore> };

export class UnderStores {
  readonly #open: OpenUnderStore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #opened = new Map<MountId, Opened>();
  #closed = false;

  constructor(dependencies: { readonly open: OpenUnderStore; readonly clock: Clock; readonly logger: Logger }) {
    this.#open = dependencies.open;
    this.#clock = dependencies.clock;
    this.#logger = dependencies.logger;
  }

  /** The store of a mount. Throws what opening throws, and tries again the next time. */
  async of(mount: MountedSource): Promise<UnderStore> {
    if (this.#closed) throw new HeadpondError("unavailable", "this master is closing");
    const fingerprint = fingerprintOf(mount);
    const known = this.#opened.get(mount.id);
    if (known?.fingerprint === fingerprint) return known.store;
    if (known !== undefined) this.#closeStore(mount.id, known);
    const store = this.#open(mount.uri, storeOptions(mount.options));
    const opened = { fingerprint, store };
    this.#opened.set(mount.id, opened);
    store.catch(() => {
      if (this.#opened.get(mount.id) === opened) this.#opened.delete(mount.id);
    });
    return store;
  }

  /** Closes the stores of mounts that are no more, or have changed. */
  retain(mounts: Iterable<MountedSource>): void {
    const wanted = new Map<MountId, string>();
    for (const mount of mounts) wanted.set(mount.id, fingerprintOf(mount));
    for (const [id, opened] of [...this.#opened]) {
      if (wanted.get(id) !== opened.fingerprint) this.#closeStore(id, opened);
    }
  }

  /** Throws unless the store can be opened and its root is there: with the store's code, naming what to do. */
  async check(path: Path, source: StoreSource, signal?: AbortSignal): Promise<void> {
    let store: UnderStore | undefined;
    const timeout = new AbortController();
    const timer = this.#clock.timer(checkTimeoutMs, () => {
      timeout.abort(new HeadpondError("timeout", `no answer within ${checkTimeoutMs} ms`));
    });
    const both = signal === undefined ? timeout.signal : AbortSignal.any([signal, timeout.signal]);
    try {
      store = await this.#open(source.uri, storeOptions(source.options));
      await reach(store, both);
    } catch (thrown) {
      const error = toHeadpondError(thrown);
      const uri = store?.uri ?? source.uri;
      throw new HeadpondError(
        error.code,
        `cannot mount ${uri} at ${path}: ${error.message}: check the address, that it exists, and the options`,
        {
          cause: thrown,
          retryable: error.retryable,
          ...(error.details === undefined ? {} : { details: error.details }),
        },
      );
    } finally {
      timer.clear();
      await store?.close();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    const opened = [...this.#opened.values()];
    this.#opened.clear();
    await Promise.allSettled(opened.map(async ({ store }) => (await store).close()));
  }

  #closeStore(id: MountId, { store }: Opened): void {
    this.#opened.delete(id);
    store
      .then((opened) => opened.close())
      .catch((error: unknown) => this.#logger.warn("an under store did not close cleanly", { mountId: id, error }));
  }
}

/** Stores without listings (a web server) are asked for their root instead. */
async function reach(store: UnderStore, signal: AbortSignal): Promise<void> {
  try {
    await store.list("", { limit: 1, signal });
  } catch (error) {
    if (toHeadpondError(error).code !== "unsupported") throw error;
    await store.head("", { signal });
  }
}

function fingerprintOf({ uri, options }: StoreSource): string {
  return JSON.stringify([uri, Object.entries(options).sort(([a], [b]) => (a < b ? -1 : 1))]);
}
