/**
 * Commands as bytes (docs/formats/command.md): a version, the kind, the stamp, then the fields. The frequent kinds are
 * positional; the others are a JSON object, which is easy to extend and rare enough.
 *
 * The fields stand behind the stamp so that `bodyOffset` can find them: their hash tells a retry from another request
 * under the same sequence. Bytes that this software does not understand throw: to skip them would let masters diverge.
 */

import { HeadpondError } from "../base/errors.ts";
import type { ContentDigest, ListedRow } from "../base/file.ts";
import type { InodeId, MountId, SessionId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import type { Command, CommandKind, CommandOf, Origin, Stamp } from "./command.ts";

export const commandFormat = 1;

/** The position is the number on disk: append only. */
const kinds = [
  "create",
  "complete",
  "mkdir",
  "remove",
  "rename",
  "set-attributes",
  "sync-rows",
  "sync-end",
  "renew-sessions",
  "pin",
  "ttl",
  "replicas",
  "mount",
  "unmount",
  "finish-intent",
  "open-session",
  "close-session",
  "expire-sessions",
  "reclaim",
  "expire-ttl",
  "put-job",
  "job-progress",
  "remove-job",
  "record-revision",
  "set-setting",
  "set-feature-level",
] as const satisfies readonly CommandKind[];

const kindNumbers = new Map<CommandKind, number>(kinds.map((kind, number) => [kind, number]));

const hasOrigin = 1;
const hasRequestId = 2;

const writer = new ByteWriter(64 * 1024);
const reader = new ByteReader("a command", Buffer.alloc(0));

export function encodeCommand(command: Command): Buffer {
  const w = writer;
  w.position = 0;
  w.byte(commandFormat);
  w.byte(kindNumbers.get(command.kind) as number);
  const { origin, requestId } = command;
  w.byte((origin === undefined ? 0 : hasOrigin) | (requestId === undefined ? 0 : hasRequestId));
  w.uint48(command.timeMs);
  if (origin !== undefined) {
    w.varint(origin.sessionId);
    w.varint(origin.sequence);
    w.varint(origin.acknowledged);
  }
  if (requestId !== undefined) w.string(requestId);
  writeBody(w, command);
  return w.bytes();
}

/** Without decoding it. */
export function isKind(payload: Uint8Array, kind: CommandKind): boolean {
  return payload[0] === commandFormat && payload[1] === kindNumbers.get(kind);
}

/** Throws `corrupt` for damaged bytes and `unsupported` for those of newer software. */
export function decodeCommand(payload: Uint8Array): Command {
  return decode(payload).command;
}

export type DecodedCommand = {
  readonly command: Command;
  /** Where the fields begin in the payload: equal requests have equal bytes from here on. */
  readonly bodyOffset: number;
};

export function decode(payload: Uint8Array): DecodedCommand {
  const r = reader.reset(payload);
  const format = r.byte();
  const kind = kinds[r.byte()];
  if (format !== commandFormat || kind === undefined) {
    throw new HeadpondError(
      "unsupported",
      `a command of format ${format}, kind ${payload[1]} is newer than this software: update it before it joins the cluster`,
    );
  }
  const flags = r.byte();
  const timeMs = r.uint48();
  const origin =
    (flags & hasOrigin) === 0
      ? undefined
      : { sessionId: r.varint() as SessionId, sequence: r.varint(), acknowledged: r.varint() };
  const requestId = (flags & hasRequestId) === 0 ? undefined : r.string();
  const bodyOffset = r.position;
  if (kind === "create") {
    return { command: atEnd(r, kind, readCreate(r, timeMs, origin, requestId)), bodyOffset };
  }
  const stamp: Stamp = {
    timeMs,
    ...(origin === undefined ? {} : { origin }),
    ...(requestId === undefined ? {} : { requestId }),
  };
  return { command: atEnd(r, kind, readBody(r, kind, stamp)), bodyOffset };
}

function atEnd(r: ByteReader, kind: CommandKind, command: Command): Command {
  if (!r.atEnd) {
    throw new HeadpondError("unsupported", `a ${kind} command has fields that are newer than this software: update it`);
  }
  return command;
}

/** The most frequent command: one object of one shape, without spreads. */
function readCreate(r: ByteReader, timeMs: number, origin: Origin | undefined, requestId: string | undefined): Command {
  const flags = r.byte();
  const command: CommandOf<"create"> = {
    kind: "create",
    timeMs,
    path: r.string() as Path,
    exclusive: (flags & 1) !== 0,
    recursive: (flags & 2) !== 0,
    forWriting: (flags & 4) !== 0,
    mode: r.varint(),
    owner: name(r),
    group: name(r),
    attributes: readRecord(r),
  };
  if (origin !== undefined) (command as { origin?: Origin }).origin = origin;
  if (requestId !== undefined) (command as { requestId?: string }).requestId = requestId;
  return command;
}

function writeBody(w: ByteWriter, command: Command): void {
  switch (command.kind) {
    case "create":
      w.byte((command.exclusive ? 1 : 0) | (command.recursive ? 2 : 0) | (command.forWriting ? 4 : 0));
      w.string(command.path);
      writeOwnership(w, command);
      writeRecord(w, command.attributes);
      return;
    case "complete":
      w.varint(command.inodeId);
      w.varint(command.contentVersion);
      w.varint(command.sizeBytes);
      w.string(command.etag);
      w.varint(command.modifiedMs);
      writeDigest(w, command.digest);
      return;
    case "mkdir":
      w.byte((command.exclusive ? 1 : 0) | (command.recursive ? 2 : 0));
      w.string(command.path);
      writeOwnership(w, command);
      writeRecord(w, command.attributes);
      return;
    case "remove":
      w.byte(
        (command.recursive ? 1 : 0) |
          (command.expect === "file" ? 2 : command.expect === "directory" ? 4 : 0) |
          (command.ifVersion === undefined ? 0 : 8),
      );
      w.string(command.path);
      if (command.ifVersion !== undefined) w.varint(command.ifVersion);
      return;
    case "rename":
      w.byte(command.replace ? 1 : 0);
      w.string(command.from);
      w.string(command.to);
      return;
    case "set-attributes":
      writeSetAttributes(w, command);
      return;
    case "sync-rows":
      w.varint(command.mountId);
      w.varint(command.directoryInodeId);
      w.varint(command.listingBeganVersion);
      w.varint(command.rows.length);
      for (const row of command.rows) {
        w.byte(row.kind === "directory" ? 1 : 0);
        w.string(row.name);
        w.varint(row.sizeBytes);
        w.string(row.etag);
        w.varint(row.modifiedMs);
        writeDigest(w, row.digest);
      }
      return;
    case "sync-end":
      w.byte(command.finished ? 1 : 0);
      w.varint(command.directoryInodeId);
      w.varint(command.listingBeganVersion);
      w.varint(command.goneNames.length);
      for (const name of command.goneNames) w.string(name);
      return;
    case "renew-sessions":
      w.varint(command.sessionIds.length);
      for (const id of command.sessionIds) w.varint(id);
      return;
    default: {
      const { kind: _kind, timeMs: _timeMs, origin: _origin, requestId: _requestId, ...fields } = command;
      w.string(JSON.stringify(fields));
    }
  }
}

function readBody(r: ByteReader, kind: Exclude<CommandKind, "create">, stamp: Stamp): Command {
  switch (kind) {
    case "complete": {
      const command = {
        kind,
        ...stamp,
        inodeId: r.varint() as InodeId,
        contentVersion: r.varint(),
        sizeBytes: r.varint(),
        etag: r.string(),
        modifiedMs: r.varint(),
      };
      const digest = readDigest(r);
      return digest === undefined ? command : { ...command, digest };
    }
    case "mkdir": {
      const flags = r.byte();
      const path = r.string() as Path;
      const ownership = { mode: r.varint(), owner: name(r), group: name(r) };
      const attributes = readRecord(r);
      return {
        kind,
        ...stamp,
        path,
        exclusive: (flags & 1) !== 0,
        recursive: (flags & 2) !== 0,
        ...ownership,
        attributes,
      };
    }
    case "remove": {
      const flags = r.byte();
      return {
        kind,
        ...stamp,
        path: r.string() as Path,
        recursive: (flags & 1) !== 0,
        ...((flags & 2) !== 0 ? { expect: "file" } : (flags & 4) !== 0 ? { expect: "directory" } : {}),
        ...((flags & 8) !== 0 ? { ifVersion: r.varint() } : {}),
      };
    }
    case "rename": {
      const flags = r.byte();
      return { kind, ...stamp, from: r.string() as Path, to: r.string() as Path, replace: (flags & 1) !== 0 };
    }
    case "set-attributes":
      return readSetAttributes(r, stamp);
    case "sync-rows": {
      const mountId = r.varint() as MountId;
      const directoryInodeId = r.varint() as InodeId;
      const listingBeganVersion = r.varint();
      const rows: ListedRow[] = [];
      for (let count = r.varint(); count > 0; count--) {
        const directory = r.byte() === 1;
        const row = {
          name: r.string(),
          kind: directory ? ("directory" as const) : ("file" as const),
          sizeBytes: r.varint(),
          etag: r.string(),
          modifiedMs: r.varint(),
        };
        const digest = readDigest(r);
        rows.push(digest === undefined ? row : { ...row, digest });
      }
      return { kind, ...stamp, mountId, directoryInodeId, listingBeganVersion, rows };
    }
    case "sync-end": {
      const finished = r.byte() === 1;
      const directoryInodeId = r.varint() as InodeId;
      const listingBeganVersion = r.varint();
      const goneNames: string[] = [];
      for (let count = r.varint(); count > 0; count--) goneNames.push(r.string());
      return { kind, ...stamp, directoryInodeId, listingBeganVersion, goneNames, finished };
    }
    case "renew-sessions": {
      const sessionIds: SessionId[] = [];
      for (let count = r.varint(); count > 0; count--) sessionIds.push(r.varint() as SessionId);
      return { kind, ...stamp, sessionIds };
    }
    default: {
      const text = r.string();
      try {
        return { kind, ...stamp, ...(JSON.parse(text) as object) } as Command;
      } catch {
        return r.fail(`of kind ${kind} holds no JSON`);
      }
    }
  }
}

function writeSetAttributes(w: ByteWriter, command: CommandOf<"set-attributes">): void {
  const { mode, owner, group, modifiedMs, ifVersion } = command;
  w.byte(
    (mode === undefined ? 0 : 1) |
      (owner === undefined ? 0 : 2) |
      (group === undefined ? 0 : 4) |
      (modifiedMs === undefined ? 0 : 8) |
      (ifVersion === undefined ? 0 : 16),
  );
  w.string(command.path);
  if (mode !== undefined) w.varint(mode);
  if (owner !== undefined) w.string(owner);
  if (group !== undefined) w.string(group);
  if (modifiedMs !== undefined) w.varint(modifiedMs);
  if (ifVersion !== undefined) w.varint(ifVersion);
  writeRecord(w, command.set);
  w.varint(command.remove.length);
  for (const key of command.remove) w.string(key);
}

function readSetAttributes(r: ByteReader, stamp: Stamp): Command {
  const flags = r.byte();
  const path = r.string() as Path;
  const optional = {
    ...((flags & 1) !== 0 ? { mode: r.varint() } : {}),
    ...((flags & 2) !== 0 ? { owner: r.string() } : {}),
    ...((flags & 4) !== 0 ? { group: r.string() } : {}),
    ...((flags & 8) !== 0 ? { modifiedMs: r.varint() } : {}),
    ...((flags & 16) !== 0 ? { ifVersion: r.varint() } : {}),
  };
  const set = readRecord(r);
  const remove: string[] = [];
  for (let count = r.varint(); count > 0; count--) remove.push(r.string());
  return { kind: "set-attributes", ...stamp, path, set, remove, ...optional };
}

function writeOwnership(w: ByteWriter, command: { mode: number; owner: string; group: string }): void {
  w.varint(command.mode);
  w.string(command.owner);
  w.string(command.group);
}

/** Sorted, so that equal attributes are equal bytes whatever order a client named them in. */
export function writeRecord(w: ByteWriter, record: Readonly<Record<string, string>>): void {
  const keys = Object.keys(record);
  if (keys.length > 1) keys.sort();
  w.varint(keys.length);
  for (const key of keys) {
    w.string(key);
    w.string(record[key] as string);
  }
}

const noAttributes: Readonly<Record<string, string>> = Object.freeze({});

export function readRecord(r: ByteReader): Readonly<Record<string, string>> {
  let count = r.varint();
  if (count === 0) return noAttributes;
  const record: Record<string, string> = {};
  for (; count > 0; count--) {
    const key = r.string();
    // A plain assignment of "__proto__" would set the prototype and lose the attribute.
    Object.defineProperty(record, key, { value: r.string(), enumerable: true, configurable: true, writable: true });
  }
  return record;
}

const digestAlgorithms = ["sha256", "crc32", "crc32c"] as const;

export function writeDigest(w: ByteWriter, digest: ContentDigest | undefined): void {
  if (digest === undefined) {
    w.byte(0);
    return;
  }
  w.byte(1 + digestAlgorithms.indexOf(digest.algorithm));
  w.string(digest.value);
}

export function readDigest(r: ByteReader): ContentDigest | undefined {
  const number = r.byte();
  if (number === 0) return undefined;
  const algorithm = digestAlgorithms[number - 1];
  if (algorithm === undefined) return r.fail(`names digest algorithm ${number}`);
  return { algorithm, value: r.string() };
}

const names: string[] = [];
const namesMax = 64;

/** Owners and groups are few: a short known one is found without making a string. */
export function name(r: ByteReader): string {
  const { buffer, position } = r;
  const length = buffer[position] ?? 0;
  for (const known of names) {
    if (known.length !== length) continue;
    let i = 0;
    while (i < length && buffer[position + 1 + i] === known.charCodeAt(i)) i++;
    if (i === length && position + 1 + length <= r.end) {
      r.position = position + 1 + length;
      return known;
    }
  }
  const text = r.string();
  if (names.length < namesMax && /^[ -~]{1,32}$/.test(text)) names.push(text);
  return text;
}
