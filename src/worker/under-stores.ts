/** The under stores of the mount table, opened when they are first needed. */

import { HeadpondError } from "../base/errors.ts";
import type { MountInfo } from "../base/file.ts";
import type { MountId } from "../base/ids.ts";
import type { Logger } from "../io/logger.ts";
import type { UnderStore } from "../under-store/under-store.ts";

/** `options` with their secrets. */
export type OpenUnderStore = (mount: MountInfo) => Promise<UnderStore>;

export class UnderStores {
  readonly #open: OpenUnderStore;
  readonly #logger: Logger;
  readonly #mounts = new Map<MountId, MountInfo>();
  readonly #stores = new Map<MountId, Promise<UnderStore>>();
  #known = false;

  constructor(options: { readonly open: OpenUnderStore; readonly logger: Logger }) {
    this.#open = options.open;
    this.#logger = options.logger;
  }

  /** The whole table. Stores of mounts that changed or went are closed when what they do now is done. */
  setMounts(mounts: readonly MountInfo[]): void {
    this.#known = true;
    const next = new Map(mounts.map((mount) => [mount.id, mount]));
    for (const [id, mount] of this.#mounts) {
      if (JSON.stringify(next.get(id)) === JSON.stringify(mount)) continue;
      this.#mounts.delete(id);
      this.#drop(id);
    }
    for (const [id, mount] of next) this.#mounts.set(id, mount);
  }

  /** Throws `no-mount`, or `unavailable` while no master has told the mounts. */
  get(id: MountId): Promise<UnderStore> {
    const known = this.#stores.get(id);
    if (known !== undefined) return known;
    const opening = Promise.resolve()
      .then(() => this.#open(this.#mount(id)))
      .catch((error: unknown) => {
        this.#stores.delete(id);
        throw error;
      });
    this.#stores.set(id, opening);
    return opening;
  }

  /** As `get`; also throws `read-only`. */
  async writable(id: MountId): Promise<UnderStore> {
    const mount = this.#mount(id);
    if (mount.readOnly) throw new HeadpondError("read-only", `${mount.path} is mounted read-only`);
    const store = await this.get(id);
    if (!store.traits.writable) throw new HeadpondError("read-only", `${store.uri} cannot be written`);
    return store;
  }

  /** For metrics. */
  path(id: MountId): string {
    return this.#mounts.get(id)?.path ?? String(id);
  }

  async close(): Promise<void> {
    const stores = [...this.#stores.values()];
    this.#stores.clear();
    await Promise.all(stores.map(closeStore));
  }

  #mount(id: MountId): MountInfo {
    const mount = this.#mounts.get(id);
    if (mount !== undefined) return mount;
    if (!this.#known) {
      throw new HeadpondError("unavailable", "no master has told this worker the mounts yet: try again soon");
    }
    throw new HeadpondError("no-mount", `there is no mount ${id} any more`);
  }

  #drop(id: MountId): void {
    const store = this.#stores.get(id);
    if (store === undefined) return;
    this.#stores.delete(id);
    closeStore(store).catch((error: unknown) => {
      this.#logger.warn("an under store could not be closed", { mount: id, error: String(error) });
    });
  }
}

async function closeStore(opening: Promise<UnderStore>): Promise<void> {
  const store = await opening.catch(() => undefined);
  await store?.close();
}
