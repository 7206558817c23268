/** What masters answer about their journal: its state, a backup in pieces, and the steps of a move to another one. */

import Type, { type Static } from "typebox";
import { BytesSchema, ClusterIdSchema, Count, oneOf, TimeMs } from "../base/schema.ts";

const JournalTypeSchema = oneOf("local", "raft", "zookeeper");

export const JournalStatusSchema = Type.Object({
  type: JournalTypeSchema,
  role: oneOf("leader", "standby"),
  term: Count,
  firstIndex: Count,
  lastIndex: Count,
  commitIndex: Count,
  appliedIndex: Count,
  checkpointIndex: Count,
  bytes: Count,
  election: Type.Optional(
    Type.Object({ connected: Type.Boolean(), candidates: Count, problem: Type.Optional(Type.String()) }),
  ),
});

/** How a master stands to a move of the journal. */
export const MoveReportSchema = Type.Object({
  id: Type.String(),
  type: JournalTypeSchema,
  /** Of the journal in force; each move begins a new one. */
  generation: Count,
  leads: Type.Boolean(),
  phase: oneOf("none", "preparing", "ready", "moving", "moved", "left-behind"),
  move: Type.Optional(Type.String()),
  from: Type.Optional(JournalTypeSchema),
  to: Type.Optional(JournalTypeSchema),
  appliedIndex: Count,
  copiedIndex: Count,
  member: Type.Optional(Type.Object({ address: Type.String(), incarnation: Type.String() })),
  /** Where the last move cut, and the digest of the state there. */
  cut: Type.Optional(Type.Object({ index: Count, digest: Type.String() })),
  problem: Type.Optional(Type.String()),
});

export const JournalMoveSchema = Type.Object({
  step: oneOf("report", "prepare", "commit", "abort"),
  move: Type.Optional(Type.String({ maxLength: 64 })),
  to: Type.Optional(JournalTypeSchema),
  address: Type.Optional(Type.String({ maxLength: 300 })),
  settings: Type.Optional(Type.String({ maxLength: 65_536 })),
  members: Type.Optional(Type.String({ maxLength: 65_536 })),
});

/** Of a backup: first `about`, then the state of its checkpoint in pieces, then the entries behind it in pieces. */
export const BackupItem = Type.Object({
  about: Type.Optional(
    Type.Object({
      clusterId: ClusterIdSchema,
      master: Type.String(),
      createdMs: TimeMs,
      /** Absent: the entries begin with the first one ever. */
      checkpoint: Type.Optional(
        Type.Object({
          index: Count,
          term: Count,
          digest: Type.String(),
          bytes: Count,
          xxh64: Type.String(),
          /** Members as of then, as JSON; absent of a local journal. */
          configuration: Type.Optional(Type.String()),
        }),
      ),
      /** Last entry that will come. */
      toIndex: Count,
    }),
  ),
  state: Type.Optional(BytesSchema),
  entries: Type.Optional(Type.Array(Type.Object({ index: Count, term: Count, payload: BytesSchema }))),
});
export type BackupItem = Static<typeof BackupItem>;
