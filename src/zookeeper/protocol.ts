/**
 * The words of ZooKeeper's wire protocol as far as Headpond speaks them (zookeeper.jute, ZooDefs and KeeperException of ZooKeeper
 * 3.8; TTL nodes need `extendedTypesEnabled` on the servers).
 */

import { type ErrorCode, HeadpondError, type Outcome } from "../base/errors.ts";
import type { JuteReader, JuteWriter } from "./jute.ts";

export const operation = {
  /** Only in results. */
  create: 1,
  delete: 2,
  exists: 3,
  getData: 4,
  setData: 5,
  sync: 9,
  ping: 11,
  getChildren2: 12,
  check: 13,
  multi: 14,
  create2: 15,
  createContainer: 19,
  createTtl: 21,
  auth: 100,
  sasl: 102,
  setWatches2: 105,
  addWatch: 106,
  closeSession: -11,
} as const;

/** Request numbers with a meaning. */
export const reservedXid = { watchEvent: -1, ping: -2, auth: -4, setWatches: -8 } as const;

export type CreateMode =
  | "persistent"
  | "ephemeral"
  | "persistent-sequential"
  | "ephemeral-sequential"
  /** Goes by itself some time after its last child went. */
  | "container";

export const createFlags: Readonly<Record<CreateMode, number>> = {
  persistent: 0,
  ephemeral: 1,
  "persistent-sequential": 2,
  "ephemeral-sequential": 3,
  container: 4,
};
export const createTtlFlags = { persistent: 5, "persistent-sequential": 6 } as const;

export type Stat = {
  /** Transaction that created, last changed the node, last changed its children. */
  readonly createdZxid: bigint;
  readonly changedZxid: bigint;
  readonly childrenZxid: bigint;
  readonly createdMs: number;
  readonly changedMs: number;
  readonly version: number;
  readonly childrenVersion: number;
  /** Session of an ephemeral node, else 0. */
  readonly ephemeralOwner: bigint;
  readonly childCount: number;
};

export function readStat(reader: JuteReader): Stat {
  const createdZxid = reader.long();
  const changedZxid = reader.long();
  const createdMs = Number(reader.long());
  const changedMs = Number(reader.long());
  const version = reader.int();
  const childrenVersion = reader.int();
  reader.int();
  const ephemeralOwner = reader.long();
  reader.int();
  const childCount = reader.int();
  const childrenZxid = reader.long();
  return {
    createdZxid,
    changedZxid,
    childrenZxid,
    createdMs,
    changedMs,
    version,
    childrenVersion,
    ephemeralOwner,
    childCount,
  };
}

export const permission = { read: 1, write: 2, create: 4, delete: 8, admin: 16, all: 31 } as const;

export type Acl = { readonly permissions: number; readonly scheme: string; readonly id: string };
/** Anybody may do anything. */
export const openAcl: readonly Acl[] = [{ permissions: permission.all, scheme: "world", id: "anyone" }];
/** Whoever has authenticated as this session has. */
export const creatorAcl: readonly Acl[] = [{ permissions: permission.all, scheme: "auth", id: "" }];

export function writeAcl(writer: JuteWriter, acl: readonly Acl[]): void {
  writer.int(acl.length);
  for (const { permissions, scheme, id } of acl) writer.int(permissions).text(scheme).text(id);
}

export type WatchEventType = "created" | "deleted" | "changed" | "children" | "removed";

const eventTypes: Readonly<Record<number, WatchEventType>> = {
  1: "created",
  2: "deleted",
  3: "changed",
  4: "children",
  5: "removed",
  6: "removed",
  7: "removed",
};

/** `undefined`: it speaks of the session. */
export function watchEventType(number: number): WatchEventType | undefined {
  return eventTypes[number];
}

/** ZooKeeper's error numbers, by the names of KeeperException.Code, and what they are here. */
const failures: Readonly<Record<number, readonly [name: string, code: ErrorCode]>> = {
  [-1]: ["SYSTEMERROR", "unavailable"],
  [-2]: ["RUNTIMEINCONSISTENCY", "unavailable"],
  [-3]: ["DATAINCONSISTENCY", "corrupt"],
  [-4]: ["CONNECTIONLOSS", "unavailable"],
  [-5]: ["MARSHALLINGERROR", "invalid"],
  [-6]: ["UNIMPLEMENTED", "unsupported"],
  [-7]: ["OPERATIONTIMEOUT", "timeout"],
  [-8]: ["BADARGUMENTS", "invalid"],
  [-12]: ["UNKNOWNSESSION", "unavailable"],
  [-13]: ["NEWCONFIGNOQUORUM", "unavailable"],
  [-14]: ["RECONFIGINPROGRESS", "unavailable"],
  [-101]: ["NONODE", "not-found"],
  [-102]: ["NOAUTH", "denied"],
  [-103]: ["BADVERSION", "version-mismatch"],
  [-108]: ["NOCHILDRENFOREPHEMERALS", "invalid"],
  [-110]: ["NODEEXISTS", "already-exists"],
  [-111]: ["NOTEMPTY", "not-empty"],
  [-112]: ["SESSIONEXPIRED", "unavailable"],
  [-114]: ["INVALIDACL", "invalid"],
  [-115]: ["AUTHFAILED", "denied"],
  [-118]: ["SESSIONMOVED", "unavailable"],
  [-119]: ["NOTREADONLY", "unavailable"],
  [-121]: ["NOWATCHER", "not-found"],
  [-124]: ["SESSIONCLOSEDREQUIRESASLAUTH", "unauthenticated"],
  [-125]: ["QUOTAEXCEEDED", "no-space"],
  [-127]: ["THROTTLEDOP", "overloaded"],
};

/** In a multi: another operation failed, so this one was not carried out. */
export const rolledBack = -2;

/** What an error number of a reply means. `details.zookeeper` has ZooKeeper's own name. */
export function zookeeperError(number: number, what: string): HeadpondError {
  const [name, code] = failures[number] ?? [`error ${number}`, "unavailable"];
  return new HeadpondError(code, `ZooKeeper: ${what}: ${name}`, { details: { zookeeper: name } });
}

/** The connection went before the answer came. */
export function connectionLoss(what: string, outcome: Outcome): HeadpondError {
  const message = `ZooKeeper: ${what}: the connection was lost before the answer came`;
  const details = { zookeeper: "CONNECTIONLOSS" };
  return new HeadpondError(outcome === "unknown" ? "unknown-outcome" : "unavailable", message, { outcome, details });
}

/** The session is over; a new client begins a new one. */
export function sessionExpired(what: string, outcome: Outcome): HeadpondError {
  const message = `ZooKeeper: ${what}: the session has expired`;
  return new HeadpondError(outcome === "unknown" ? "unknown-outcome" : "unavailable", message, {
    outcome,
    retryable: false,
    details: { zookeeper: "SESSIONEXPIRED" },
  });
}

/** What ends a request when its session does. */
export function endError(
  state: "expired" | "closed" | "auth-failed",
  what: string,
  mayHaveChanged: boolean,
): HeadpondError {
  const outcome = mayHaveChanged ? "unknown" : "none";
  if (state === "expired") return sessionExpired(what, outcome);
  const message = `ZooKeeper: ${what}: ${state === "closed" ? "the session was closed" : "not authenticated"}`;
  return new HeadpondError(mayHaveChanged ? "unknown-outcome" : "unavailable", message, { outcome, retryable: false });
}

/** Throws `invalid` for what no server would take. */
export function checkNodePath(path: string): void {
  const wrong =
    !path.startsWith("/") ||
    (path.length > 1 && path.endsWith("/")) ||
    /\/\/|\/\.\.?(\/|$)|[\u0000-\u001f\u007f-\u009f\ud800-\uf8ff\ufff0-\uffff]/.test(path);
  if (wrong) throw new HeadpondError("invalid", `${JSON.stringify(path)} is not the path of a node of ZooKeeper`);
}
