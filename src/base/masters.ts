/**
 * The masters as one of them sees them now: what it tells clients and workers when they connect and whenever it changes, so that
 * they need to be given one master only, and follow a new leader at once.
 */

import Type, { type Static } from "typebox";
import { Count, MasterIdSchema } from "./schema.ts";

export const MasterList = Type.Object({
  /** Who says it. */
  self: MasterIdSchema,
  /** Raft's term or the shared journal's epoch, as of the one who says it: of two leaders, the one with the higher term leads. */
  term: Count,
  leader: Type.Optional(MasterIdSchema),
  masters: Type.Array(
    Type.Object({
      id: MasterIdSchema,
      /** `host:port` for clients and workers; absent: not heard of yet, or the address that was used to ask. */
      rpc: Type.Optional(Type.String()),
      voter: Type.Boolean(),
    }),
  ),
  /** Of a leader that has taken over: it answers as one. Between its election and then it asks for a moment. */
  leads: Type.Optional(Type.Boolean()),
});
export type MasterList = Static<typeof MasterList>;
