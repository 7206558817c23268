/** Mounting and unmounting: a mount is checked against its under store before it becomes one. */

import { present } from "../base/assert.ts";
import { parsePath } from "../base/path.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { ReplyOf, RequestOf } from "../rpc/method.ts";
import type { RequestContext } from "../rpc/server.ts";
import { type Core, stampOf } from "./core.ts";
import { storeOptions, syncPolicy } from "./mount-options.ts";
import type { UnderStores } from "./under-stores.ts";

type Request<K extends keyof MasterMethods> = RequestOf<MasterMethods[K]>;
type Reply<K extends keyof MasterMethods> = ReplyOf<MasterMethods[K]>;
type Options = Readonly<Record<string, string>>;

/** How URIs and options of under stores are written and shown; `under-store/open.ts` in production. */
export type StoreNames = {
  readonly normalise: (uri: string) => string;
  /** Options with plain secrets replaced by `***`. */
  readonly redact: (uri: string, options: Options) => Options;
};

export type MountServiceDependencies = {
  readonly core: Core;
  readonly stores: UnderStores;
  readonly names: StoreNames;
  readonly onChanged: () => void;
};

export class MountService {
  readonly #core: Core;
  readonly #stores: UnderStores;
  readonly #names: StoreNames;
  readonly #onChanged: () => void;

  constructor(dependencies: MountServiceDependencies) {
    this.#core = dependencies.core;
    this.#stores = dependencies.stores;
    this.#names = dependencies.names;
    this.#onChanged = dependencies.onChanged;
  }

  async mount(request: Request<"mount">, context: RequestContext): Promise<Reply<"mount">> {
    const core = this.#leading();
    const path = parsePath(request.path);
    const options = request.options ?? {};
    syncPolicy(options);
    const uri = this.#names.normalise(request.uri);
    const redacted = this.#names.redact(uri, storeOptions(options));
    await this.#stores.check(path, { uri, options }, context.signal);
    const done = await core.proposer.propose({
      kind: "mount",
      path,
      uri,
      options,
      secretOptions: Object.keys(redacted).filter((name) => redacted[name] === "***"),
      readOnly: request.readOnly ?? false,
      ...stampOf(request, core.proposer.nowMs()),
    });
    this.#onChanged();
    return present(
      core.namespace.mounts().find(({ id }) => id === done.mountId),
      `mount ${done.mountId} is in the table`,
    );
  }

  async unmount(request: Request<"unmount">): Promise<Reply<"unmount">> {
    const core = this.#leading();
    const path = parsePath(request.path);
    await core.proposer.propose({ kind: "unmount", path, force: false, ...stampOf(request, core.proposer.nowMs()) });
    this.#onChanged();
    return {};
  }

  #leading(): Core {
    this.#core.requireLeader();
    return this.#core;
  }
}
