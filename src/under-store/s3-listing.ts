/** Pages of ListObjectsV2 as pages of one directory. */

import type { ListObjectsV2CommandOutput } from "@aws-sdk/client-s3";
import { HeadpondError } from "../base/errors.ts";
import type { Logger } from "../io/logger.ts";
import { checkedEtag } from "./s3-upload.ts";
import { compareEntries, isValidName, type ListEntry, type ListPage } from "./under-store.ts";
import type { UnderStoreMetrics } from "./under-store-metrics.ts";

/**
 * Names of files seen, each the beginning of the next and of whatever follows: only they can turn up again as a
 * directory. At most as many as a name has bytes.
 */
type CoveredFiles = readonly string[];

export type ListedObject = { readonly objectKey: string; readonly sizeBytes: number; readonly etag: string };

export class S3Listing {
  readonly #uri: string;
  readonly #logger: Logger;
  readonly #metrics: UnderStoreMetrics;

  constructor({
    uri,
    logger,
    metrics,
  }: { readonly uri: string; readonly logger: Logger; readonly metrics: UnderStoreMetrics }) {
    this.#uri = uri;
    this.#logger = logger;
    this.#metrics = metrics;
  }

  /** Takes a continuation apart. Throws `invalid` for one that is not ours. */
  resume(continuation: string | undefined): { readonly token?: string; readonly coveredFiles: CoveredFiles } {
    if (continuation === undefined) return { coveredFiles: [] };
    try {
      const [token, ...coveredFiles] = JSON.parse(continuation) as string[];
      if (typeof token === "string") return { token, coveredFiles };
    } catch {
      // Falls through to the refusal.
    }
    throw new HeadpondError("invalid", `not a continuation of a listing of ${this.#uri}`);
  }

  page(
    directoryKey: string,
    prefix: string,
    output: ListObjectsV2CommandOutput,
    coveredBefore: CoveredFiles,
  ): ListPage {
    const decode = decoder(output);
    const entries: ListEntry[] = [];
    let skipped = 0;
    const skip = (key: string, why: string): void => {
      skipped++;
      this.#logger.warn("under store: skipped a name", { uri: this.#uri, objectKey: key, why });
    };
    const childKey = (name: string): string => (directoryKey === "" ? name : `${directoryKey}/${name}`);
    for (const { Key, Size, ETag, LastModified } of output.Contents ?? []) {
      const name = decode(Key ?? "").slice(prefix.length);
      // The object that stands for the directory itself.
      if (name === "") continue;
      if (!isValidName(name)) {
        skip(prefix + name, "not a possible name");
        continue;
      }
      const key = childKey(name);
      const modifiedMs = LastModified?.getTime() ?? 0;
      entries.push({ kind: "file", info: { key, sizeBytes: Size ?? 0, etag: checkedEtag(ETag, key), modifiedMs } });
    }
    for (const { Prefix } of output.CommonPrefixes ?? []) {
      const name = decode(Prefix ?? "").slice(prefix.length, -1);
      if (isValidName(name)) entries.push({ kind: "directory", key: childKey(name) });
      else skip(`${prefix}${name}/`, "not a possible name");
    }
    entries.sort(compareEntries);
    let coveredFiles = coveredBefore;
    const visible = entries.filter((entry) => {
      const key = entry.kind === "file" ? entry.info.key : entry.key;
      coveredFiles = coveredFiles.filter((file) => key.startsWith(file));
      if (entry.kind === "directory" && coveredFiles.includes(key)) {
        skip(`${key}/`, "an object of the same name exists");
        return false;
      }
      if (entry.kind === "file") coveredFiles = [...coveredFiles, key];
      return true;
    });
    if (skipped > 0) this.#metrics.skippedNames(skipped, { store: this.#uri });
    const token = output.IsTruncated === true ? output.NextContinuationToken : undefined;
    return {
      entries: visible,
      skipped,
      ...(token === undefined ? {} : { next: JSON.stringify([token, ...coveredFiles]) }),
    };
  }

  /** All objects of an answer, by their whole keys. */
  objectsOf(output: ListObjectsV2CommandOutput): readonly ListedObject[] {
    const decode = decoder(output);
    return (output.Contents ?? []).map(({ Key, Size, ETag }) => {
      const objectKey = decode(Key ?? "");
      return { objectKey, sizeBytes: Size ?? 0, etag: checkedEtag(ETag, objectKey) };
    });
  }
}

/** Keys may hold characters that XML cannot; servers that know `encoding-type=url` say so in the answer. */
function decoder(output: ListObjectsV2CommandOutput): (text: string) => string {
  if (output.EncodingType !== "url") return (text) => text;
  return (text) => {
    try {
      return decodeURIComponent(text.replaceAll("+", "%20"));
    } catch {
      // Not UTF-8: it becomes a name that is not possible, and is skipped.
      return text.replaceAll("%", "\0");
    }
  };
}
