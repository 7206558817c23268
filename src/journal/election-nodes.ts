/**
 * What an election keeps in ZooKeeper (docs/formats/zookeeper.md), and what it follows from: who should lead, who is next, whom each
 * one watches. Pure; `zookeeper-election.ts` asks and writes.
 *
 * A *mark* is a random text that names one candidacy, so that a node whose creation was not answered is found again, and so that
 * a candidacy can go on in another session. Whoever steps back takes a new mark.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Candidate } from "./election.ts";

export const nodeFormatVersion = 1;

export type ElectionPaths = {
  readonly root: string;
  readonly cluster: string;
  /** One ephemeral node per candidacy, `MARK-NNNNNNNNNN`. */
  readonly masters: string;
  /** One node per master that ever took part, by its id. */
  readonly known: string;
  readonly leader: string;
};

export function electionPaths(root: string): ElectionPaths {
  const below = (name: string): string => `${root === "/" ? "" : root}/${name}`;
  return { root, cluster: below("cluster"), masters: below("masters"), known: below("known"), leader: below("leader") };
}

/** What a candidate's node holds. */
export type CandidateData = Candidate & {
  /** Of the directory that it works on, which is locked by one process: another mark with the same one is of a dead process. */
  readonly incarnation: string;
};

export type CandidateNode = CandidateData & { readonly name: string; readonly mark: string; readonly number: number };

/** What the leader's node holds: who said last that it leads, or whom the last one made its successor. */
export type LeaderData = {
  readonly id: string;
  readonly mark: string;
  readonly epoch: number;
  /** Of who was made the next one, until it has announced its own epoch. */
  readonly successor: string | undefined;
};

export type Ranking = {
  /** Who should lead first; then by age. */
  readonly order: readonly CandidateNode[];
  /** The one that said that it leads, if it still takes part. */
  readonly leader: CandidateNode | undefined;
};

/**
 * Who was made the successor leads; else who said last that it does; else the oldest. So a leader whose session has ended keeps its
 * place if nobody has claimed it meanwhile.
 */
export function rank(nodes: readonly CandidateNode[], leader: LeaderData | undefined): Ranking {
  const byAge = [...nodes].sort((a, b) => a.number - b.number);
  const of = (mark: string | undefined): CandidateNode[] => byAge.filter((node) => node.mark === mark);
  const leading = of(leader?.mark);
  const first = [...new Set([...of(leader?.successor), ...leading])];
  return { order: [...first, ...byAge.filter((node) => !first.includes(node))], leader: leading.at(-1) };
}

/** The node before the own ones: the only one that is watched. A candidacy may have two, of an old session and of the new one. */
export function nodeBefore(order: readonly CandidateNode[], mark: string): CandidateNode | undefined {
  return order[order.findIndex((node) => node.mark === mark) - 1];
}

/** Whether nobody but the leader is before `mark`. */
export function isNextInLine({ order, leader }: Ranking, mark: string): boolean {
  return leader !== undefined && leader.mark !== mark && order.find((node) => node.mark !== leader.mark)?.mark === mark;
}

/** The part of a node's name behind the mark is given by ZooKeeper. `undefined`: no candidate's. */
export function parseCandidateName(name: string): { readonly mark: string; readonly number: number } | undefined {
  const match = /^([0-9a-f]{32})-(-?[0-9]{10})$/.exec(name);
  return match === null ? undefined : { mark: match[1] as string, number: Number(match[2]) };
}

export function encodeNode(value: CandidateData | LeaderData | { readonly clusterId: string }): Buffer {
  return Buffer.from(JSON.stringify({ version: nodeFormatVersion, ...value }));
}

export function decodeCandidate(bytes: Buffer): CandidateData {
  const { id, rpc, http, featureLevel, incarnation } = decode(bytes);
  if (typeof id !== "string" || typeof rpc !== "string" || typeof http !== "string") throw unreadable(bytes);
  if (typeof featureLevel !== "number" || typeof incarnation !== "string") throw unreadable(bytes);
  return { id, rpc, http, featureLevel, incarnation };
}

/** `undefined`: nobody ever said that it leads. */
export function decodeLeader(bytes: Buffer): LeaderData | undefined {
  if (bytes.length === 0) return undefined;
  const { id, mark, epoch, successor } = decode(bytes);
  if (typeof id !== "string" || typeof mark !== "string" || typeof epoch !== "number") throw unreadable(bytes);
  return { id, mark, epoch, successor: typeof successor === "string" ? successor : undefined };
}

export function decodeClusterId(bytes: Buffer): string {
  const { clusterId } = decode(bytes);
  if (typeof clusterId !== "string") throw unreadable(bytes);
  return clusterId;
}

/** Later versions may add fields; one that changes the meaning of those here has another number. */
function decode(bytes: Buffer): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw unreadable(bytes, error);
  }
  if (typeof value !== "object" || value === null) throw unreadable(bytes);
  const fields = value as Readonly<Record<string, unknown>>;
  if (fields["version"] === nodeFormatVersion) return fields;
  throw new HeadpondError(
    "unsupported",
    `ZooKeeper: a node of version ${String(fields["version"])}: this release reads ${nodeFormatVersion}`,
  );
}

function unreadable(bytes: Buffer, cause?: unknown): HeadpondError {
  const shown = JSON.stringify(bytes.toString("utf8", 0, 100));
  return new HeadpondError("corrupt", `ZooKeeper: ${shown} was not written by a master`, { cause });
}
