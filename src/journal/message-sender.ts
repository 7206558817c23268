/**
 * How what the core says reaches the other masters. Messages leave at once and as they are; with the order to send a snapshot
 * goes the checkpoint; and the bare news that the commit index has risen is held for a moment.
 *
 * Nobody who asked for a change waits for that news: the leader has answered by then. Nearly always entries follow at once that
 * carry it along, so its own message would only wake every follower once more for each batch. It leaves with the next
 * append or heartbeat, with the tick, or when the follower has a read that waits for it, whichever comes first.
 */

import type { Message, NodeId } from "../raft/types.ts";
import type { Peers, SnapshotMessage } from "./peers.ts";
import type { RaftParts } from "./raft-parts.ts";

type CommitMessage = Extract<Message, { readonly type: "commit" }>;

export class MessageSender {
  readonly #peers: Peers;
  /** At most one for each peer: the newest says all. */
  readonly #held = new Map<NodeId, CommitMessage>();

  constructor(peers: Peers) {
    this.#peers = peers;
  }

  send(parts: Pick<RaftParts<unknown>, "core" | "checkpointer">, messages: readonly Message[]): void {
    if (messages.length === 0) return;
    const now = messages.some(isCommit) || this.#held.size > 0 ? this.#withoutNews(messages) : messages;
    if (!now.some(isSnapshot)) {
      if (now.length > 0) this.#peers.send(now);
      return;
    }
    this.#peers.send(now.filter((message) => !isSnapshot(message)));
    for (const message of now.filter(isSnapshot)) {
      const { newest } = parts.checkpointer;
      if (newest?.index === message.snapshot.index) this.#peers.sendSnapshot(message, newest);
      else parts.core.snapshotFailed(message.to);
    }
  }

  /** With every tick. */
  tick(): void {
    if (this.#held.size === 0) return;
    const held = [...this.#held.values()];
    this.#held.clear();
    this.#peers.send(held);
  }

  #withoutNews(messages: readonly Message[]): Message[] {
    const now: Message[] = [];
    for (const message of messages) {
      if (isCommit(message)) {
        this.#held.set(message.to, message);
        continue;
      }
      // Both carry the commit index, as far as the follower has the entries: at least what is held.
      if (message.type === "append" || message.type === "heartbeat") this.#held.delete(message.to);
      now.push(message);
    }
    // Last, because the core may have said first that a read may go on, and then what it waits for.
    for (const message of messages) {
      if (message.type !== "read-reply") continue;
      const news = this.#held.get(message.to);
      if (news === undefined) continue;
      this.#held.delete(message.to);
      now.push(news);
    }
    return now;
  }
}

function isCommit(message: Message): message is CommitMessage {
  return message.type === "commit";
}

function isSnapshot(message: Message): message is SnapshotMessage {
  return message.type === "snapshot";
}
