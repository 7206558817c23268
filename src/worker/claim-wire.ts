/** `POST /v1/claims/<fileVersionId>`: what workers report to the coordinator of a file that they load, and what it answers. docs/formats/claims.md. */

import Type, { type Static } from "typebox";
import { Compile } from "typebox/compile";
import { BlockBitmap } from "../base/blocks.ts";
import type { ClaimNews, ClaimReport } from "../base/claim-table.ts";
import { HeadpondError } from "../base/errors.ts";
import { Count, WorkerIdSchema } from "../base/schema.ts";

/** Blocks named in one report. */
const listedMax = 1024;
export const claimBodyBytesMax = 4 * 1024 * 1024;

const BlockList = Type.Array(Count, { maxItems: listedMax });

export const ClaimRequest = Type.Object({
  by: WorkerIdSchema,
  /** Of the list of workers by which the asked one is the coordinator. */
  workers: Count,
  /** Better coordinators that could not be reached. */
  skipped: Type.Array(WorkerIdSchema, { maxItems: 64 }),
  /** The table whose claims are known up to `claimsVersion`, and the version of everything. */
  table: Type.String({ maxLength: 128 }),
  claimsVersion: Count,
  version: Count,
  /** Drawn at random when the load begins there, and counted from 1. */
  session: Type.String({ minLength: 1, maxLength: 64 }),
  sequence: Count,
  /** `BlockBitmap.toBytes`, base64. */
  have: Type.String({ maxLength: 1024 * 1024 }),
  reading: BlockList,
  arriving: Type.Array(Type.Tuple([Count, Count]), { maxItems: listedMax }),
  lost: Type.Array(Type.Tuple([Count, WorkerIdSchema]), { maxItems: listedMax }),
  wanted: BlockList,
  done: Type.Boolean(),
  /** How long the answer may wait for something new. */
  waitMs: Type.Integer({ minimum: 0, maximum: 10_000 }),
});
export type ClaimRequest = Static<typeof ClaimRequest>;

export const ClaimReply = Type.Object({
  table: Type.String({ minLength: 1, maxLength: 128 }),
  version: Count,
  claimsVersion: Count,
  /** Runs of blocks: first, how many, and whose, as an index into `workers`. */
  claims: Type.Array(Type.Tuple([Count, Count, Count])),
  workers: Type.Array(WorkerIdSchema),
  ring: Type.Array(WorkerIdSchema),
  rings: Type.Integer({ minimum: 1 }),
  /** The next report is wanted so much later at the earliest. */
  gapMs: Count,
});
export type ClaimReply = Static<typeof ClaimReply>;

const request = Compile(ClaimRequest);
const reply = Compile(ClaimReply);

export function parseClaimRequest(document: unknown): ClaimRequest {
  if (request.Check(document)) return document;
  throw new HeadpondError("invalid", "this is no report of a worker about a file that it loads");
}

/** Throws `corrupt`. */
export function parseClaimReply(document: unknown, blockCount: number): ClaimReply {
  if (!reply.Check(document)) throw new HeadpondError("corrupt", "a coordinator answered something else than claims");
  for (const [first, count, index] of document.claims) {
    if (first + count > blockCount || document.workers[index] === undefined) {
      throw new HeadpondError("corrupt", `a coordinator told of blocks ${first} + ${count} of ${blockCount}`);
    }
  }
  return document;
}

export function reportOf(asked: ClaimRequest, table: string, blockCount: number): ClaimReport {
  return {
    worker: asked.by,
    session: asked.session,
    sequence: asked.sequence,
    have: BlockBitmap.fromBytes(Buffer.from(asked.have, "base64"), blockCount),
    reading: asked.reading,
    arriving: asked.arriving,
    lost: asked.lost,
    wanted: asked.wanted,
    done: asked.done,
    succeeds: asked.table !== "" && asked.table !== table,
  };
}

export function replyOf(table: string, news: ClaimNews, gapMs: number): ClaimReply {
  const workers = [...new Set(news.claims.map(([, , claimant]) => claimant))];
  return {
    table,
    version: news.version,
    claimsVersion: news.claimsVersion,
    claims: news.claims.map(([first, count, claimant]) => [first, count, workers.indexOf(claimant)]),
    workers,
    ring: [...news.plan.ring],
    rings: news.plan.rings,
    gapMs,
  };
}

export function newsOf({ version, claimsVersion, claims, workers, ring, rings }: ClaimReply): ClaimNews {
  return {
    version,
    claimsVersion,
    claims: claims.map(([first, count, index]) => [first, count, workers[index] as (typeof workers)[number]]),
    plan: { ring, rings },
  };
}
