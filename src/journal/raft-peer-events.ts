/** What a Raft journal does with what comes from the other masters. */

import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import { membersOf } from "../raft/membership.ts";
import type { NodeId } from "../raft/types.ts";
import type { PeerEvents } from "./peers.ts";
import type { RaftParts } from "./raft-parts.ts";

export type RaftPeerEventsOptions = {
  readonly parts: Pick<RaftParts<unknown>, "core" | "identity" | "members" | "installer" | "digests">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Runs something of the core, unless the journal is over, and takes a turn soon. */
  readonly tell: (run: () => void) => void;
  /** All founders have been met. */
  readonly onFound: () => void;
  readonly onRefused: (id: NodeId, reason: string) => void;
};

export function raftPeerEvents(options: RaftPeerEventsOptions): PeerEvents {
  const { parts, clock, logger, tell, onFound, onRefused } = options;
  const { core, identity, members, installer, digests } = parts;
  return {
    refuses: (peer) => {
      const reason =
        identity.refuses(peer, core.configuration.configuration) ?? removal(core, peer.id, clock.monotonicMs());
      // Whoever dials reports at once, before it was dialled itself: its disk must be known by then.
      if (reason === undefined) identity.connected(peer);
      return reason;
    },
    onConnected: (peer) => members.connected(peer),
    onMessages: (messages) =>
      tell(() => {
        const nowMs = clock.monotonicMs();
        for (const message of messages) core.step(message, nowMs);
      }),
    onReport: (id, report) => {
      members.reported(id, report);
      digests.reported(id, report.digestIndex, report.digest);
      digests.judge();
      if (identity.reported(id, report.fresh === true)) onFound();
    },
    onUnreachable: (id) => {
      members.disconnected(id);
      tell(() => core.unreachable(id));
    },
    onRefused: (id, reason) => {
      logger.error("refused by another master", { id, reason });
      onRefused(id, reason);
    },
    onSnapshotProgress: (to) => tell(() => core.snapshotProgressed(to)),
    onSnapshotSent: (to) => tell(() => core.snapshotSent(to)),
    onSnapshotFailed: (to, reason) => {
      logger.warn("a checkpoint was not taken over", { to, reason });
      tell(() => core.snapshotFailed(to));
    },
    onSnapshotReceived: (message, file) => tell(() => installer.received(message, file)),
  };
}

/**
 * Only a leader that is sure to be one knows: a master that does not have `id` in its configuration may be the one that is behind. Who was
 * removed while it was away would not hear of it otherwise, and wait for a leader for ever.
 */
function removal(core: RaftParts<unknown>["core"], id: NodeId, nowMs: number): string | undefined {
  const { index, configuration } = core.configuration;
  if (core.leaseIndex(nowMs) === undefined || index > core.commitIndex) return undefined;
  if (membersOf(configuration).includes(id)) return undefined;
  return `${id} is no member of this cluster any more: it was removed`;
}
