/** What the two ends of a checkpoint's transfer say to each other (docs/formats/peers.md). */

import { HeadpondError } from "../base/errors.ts";
import { KiB } from "../base/units.ts";
import type { CheckpointFile } from "./peers.ts";

/** A slice of the event loop on both sides, and what is lost when a connection breaks. */
export const chunkBytes = 512 * KiB;

/** Which file it is, and the term of the leader that sends it. */
export type SnapshotOffer = Omit<CheckpointFile, "path"> & { readonly leaderTerm: number };

export function offerOf({ index, term, digest, bytes, xxh64 }: CheckpointFile, leaderTerm: number): SnapshotOffer {
  return { index, term, digest, bytes, xxh64, leaderTerm };
}

/** Throws `corrupt`. */
export function readOffer(head: Uint8Array): SnapshotOffer {
  const value = readDocument(head);
  const offer = {
    index: countOf(value, "index"),
    term: countOf(value, "term"),
    digest: textOf(value, "digest"),
    bytes: countOf(value, "bytes"),
    xxh64: textOf(value, "xxh64"),
    leaderTerm: countOf(value, "leaderTerm"),
  };
  // It becomes part of a file's name.
  if (!/^[0-9a-f]{16}$/.test(offer.xxh64)) throw malformed(`xxh64 is ${JSON.stringify(offer.xxh64)}`);
  return offer;
}

/** Throws `corrupt`. */
export function readOffset(head: Uint8Array): number {
  return countOf(readDocument(head), "offset");
}

/** Throws `corrupt`. */
export function readReason(head: Uint8Array): string {
  return textOf(readDocument(head), "reason");
}

export function isSameCheckpoint(a: Omit<CheckpointFile, "path">, b: Omit<CheckpointFile, "path">): boolean {
  return a.index === b.index && a.term === b.term && a.bytes === b.bytes && a.xxh64 === b.xxh64;
}

function readDocument(head: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(head));
    if (typeof value === "object" && value !== null) return value as Readonly<Record<string, unknown>>;
  } catch {
    // Said below.
  }
  throw malformed(`${head.length} bytes are no JSON object`);
}

function countOf(value: Readonly<Record<string, unknown>>, field: string): number {
  const count = value[field];
  if (!Number.isSafeInteger(count) || (count as number) < 0) throw malformed(`${field} is ${JSON.stringify(count)}`);
  return count as number;
}

function textOf(value: Readonly<Record<string, unknown>>, field: string): string {
  const text = value[field];
  if (typeof text !== "string") throw malformed(`${field} is ${JSON.stringify(text)}`);
  return text;
}

function malformed(what: string): HeadpondError {
  return new HeadpondError("corrupt", `not of a checkpoint's transfer: ${what}`);
}
