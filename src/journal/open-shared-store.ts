/**
 * From `journal.zookeeper.store` to the shared store: `file:///directory`, or `s3://bucket/prefix` with the options, references to
 * secrets and variables of the environment that mounts have.
 */

import { nearestName } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import { parseFileUri, readS3Settings, s3Options, shownUri } from "../under-store/open.ts";
import { type Environment, OptionReader, type OptionTable, redactOptions } from "../under-store/options.ts";
import { SharedBucket } from "./shared-bucket.ts";
import { SharedDirectory, sharedDirectoryLimitsDefault } from "./shared-directory.ts";
import type { SharedStore } from "./shared-store.ts";

export type SharedStoreOptions = Readonly<Record<string, string>>;

export type OpenSharedStoreDependencies = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** Variables that options may refer to (`env:NAME`), and that S3's usual names are looked up in. */
  readonly environment: Environment;
  readonly random?: Random;
};

type Opening = {
  readonly uri: string;
  readonly options: OptionReader;
  readonly dependencies: OpenSharedStoreDependencies;
};

type Scheme = { readonly options: OptionTable; readonly open: (opening: Opening) => Promise<SharedStore> };

const { partSize: _, ...bucketOptions } = s3Options;

const schemes: Readonly<Record<string, Scheme>> = {
  file: { options: { mount: "text", requestTimeout: "duration" }, open: openDirectory },
  s3: { options: bucketOptions, open: openBucket },
};

/** Slots are small: an answer that takes longer is not coming. */
const requestTimeoutMsDefault = 4000;

/**
 * Throws `invalid` for a URI or an option that makes no sense, `unsupported` for a scheme that is not known and for a file
 * system that cannot keep the promises, `not-found` for a directory that is not there. Nothing is asked of a bucket yet.
 */
export async function openSharedStore(
  uri: string,
  options: SharedStoreOptions,
  dependencies: OpenSharedStoreDependencies,
): Promise<SharedStore> {
  const { name, scheme } = schemeOf(uri);
  return scheme.open({ uri, options: new OptionReader(name, scheme.options, options, dependencies), dependencies });
}

async function openDirectory({ uri, options, dependencies }: Opening): Promise<SharedStore> {
  const { disk, clock, logger } = dependencies;
  const callTimeoutMs = options.durationMs("requestTimeout", sharedDirectoryLimitsDefault.callTimeoutMs);
  const trusted = options.oneOf("mount", ["checked", "trusted"], "checked") === "trusted";
  return SharedDirectory.open({ root: parseFileUri(uri), disk, clock, logger, trusted, limits: { callTimeoutMs } });
}

async function openBucket({ uri, options, dependencies }: Opening): Promise<SharedStore> {
  const { disk, clock, logger, metrics, environment } = dependencies;
  const settings = await readS3Settings(uri, options, environment, requestTimeoutMsDefault);
  const random = dependencies.random ?? new Random(Math.floor(Math.random() * 2 ** 32));
  return new SharedBucket({ settings, disk, clock, logger, metrics, random });
}

/** Options as they may be shown and logged. */
export function redactSharedStoreOptions(uri: string, options: SharedStoreOptions): SharedStoreOptions {
  return redactOptions(schemeOf(uri).scheme.options, options);
}

function schemeOf(uri: string): { readonly name: string; readonly scheme: Scheme } {
  const known = Object.keys(schemes);
  const all = known.map((each) => `${each}://`).join(", ");
  const name = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(uri)?.[1]?.toLowerCase();
  if (name === undefined) {
    throw new HeadpondError("invalid", `${shownUri(uri)} is not a URI of a shared store: write one of ${all}`);
  }
  const scheme = schemes[name];
  if (scheme !== undefined && known.includes(name)) return { name, scheme };
  const nearest = nearestName(name, known);
  const hint = nearest === undefined ? "" : `; do you mean ${nearest}://?`;
  throw new HeadpondError("unsupported", `${name}:// cannot keep a shared journal; these can: ${all}${hint}`);
}
