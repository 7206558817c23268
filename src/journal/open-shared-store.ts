/**
 * From `journal.zookeeper.store` to the shared store: `file:///directory`, or `s3://bucket/prefix` with the options, references to
 * secrets and variables of the environment that mounts have.
 */

import { nearestName } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import { parseFileUri, shownUri } from "../under-store/open.ts";
import { type Environment, OptionReader, type OptionTable, redactOptions } from "../under-store/options.ts";
import { SharedDirectory, sharedDirectoryLimitsDefault } from "./shared-directory.ts";
import type { SharedStore } from "./shared-store.ts";

export type SharedStoreOptions = Readonly<Record<string, string>>;

export type OpenSharedStoreDependencies = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly environment: Environment;
};

const directoryOptions: OptionTable = { mount: "text", requestTimeout: "duration" };
const tables: Readonly<Record<string, OptionTable>> = { file: directoryOptions };

/**
 * Throws `invalid` for a URI or an option that makes no sense, `unsupported` for a scheme that is not known and for a file
 * system that cannot keep the promises, `not-found` for a directory that is not there. Nothing is asked of a bucket yet.
 */
export async function openSharedStore(
  uri: string,
  options: SharedStoreOptions,
  dependencies: OpenSharedStoreDependencies,
): Promise<SharedStore> {
  const { disk, clock, logger } = dependencies;
  const scheme = schemeOf(uri);
  const reader = new OptionReader(scheme, tables[scheme] ?? {}, options, dependencies);
  const callTimeoutMs = reader.durationMs("requestTimeout", sharedDirectoryLimitsDefault.callTimeoutMs);
  const trusted = reader.oneOf("mount", ["checked", "trusted"], "checked") === "trusted";
  return SharedDirectory.open({ root: parseFileUri(uri), disk, clock, logger, trusted, limits: { callTimeoutMs } });
}

/** Options as they may be shown and logged. */
export function redactSharedStoreOptions(uri: string, options: SharedStoreOptions): SharedStoreOptions {
  return redactOptions(tables[schemeOf(uri)] ?? {}, options);
}

function schemeOf(uri: string): string {
  const known = Object.keys(tables);
  const all = known.map((scheme) => `${scheme}://`).join(", ");
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(uri)?.[1]?.toLowerCase();
  if (scheme === undefined) {
    throw new HeadpondError("invalid", `${shownUri(uri)} is not a URI of a shared store: write one of ${all}`);
  }
  if (known.includes(scheme)) return scheme;
  const nearest = nearestName(scheme, known);
  const hint = nearest === undefined ? "" : `; do you mean ${nearest}://?`;
  throw new HeadpondError("unsupported", `${scheme}:// cannot keep a shared journal; these can: ${all}${hint}`);
}
