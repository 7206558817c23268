/** What a master tells about itself, as it arrives: a map of named fields that other releases may extend. */

import { HeadpondError } from "../base/errors.ts";
import type { PeerReport } from "./peers.ts";

/** Throws `corrupt`. */
export function readReport(head: Uint8Array): PeerReport {
  let value: Readonly<Record<string, unknown>>;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(head)) as Readonly<Record<string, unknown>>;
  } catch (cause) {
    throw new HeadpondError("corrupt", `a report of ${head.length} bytes is no JSON`, { cause });
  }
  return {
    rpc: textOf(value, "rpc"),
    http: textOf(value, "http"),
    appliedIndex: countOf(value, "appliedIndex"),
    digestIndex: countOf(value, "digestIndex"),
    digest: textOf(value, "digest"),
    software: textOf(value, "software"),
    featureLevel: countOf(value, "featureLevel"),
    ...(value["fresh"] === true ? { fresh: true } : {}),
    ...(value["full"] === true ? { full: true } : {}),
  };
}

function textOf(value: Readonly<Record<string, unknown>> | null, field: string): string {
  const text = value?.[field];
  if (typeof text !== "string") throw new HeadpondError("corrupt", `a report without ${field}`);
  return text;
}

function countOf(value: Readonly<Record<string, unknown>> | null, field: string): number {
  const count = value?.[field];
  if (!Number.isSafeInteger(count) || (count as number) < 0)
    throw new HeadpondError("corrupt", `a report without ${field}`);
  return count as number;
}
