import assert from "node:assert/strict";
import { test } from "node:test";
import type { Message } from "../raft/types.ts";
import { MessageSender } from "./message-sender.ts";
import type { Peers } from "./peers.ts";

/** A sender, and the names of what left it, in order. */
function recorded(): { readonly sender: MessageSender; readonly send: (...messages: Message[]) => string[] } {
  let left: string[] = [];
  const peers = {
    send: (messages: readonly Message[]) => {
      for (const message of messages) {
        left.push(`${message.to} ${message.type}${"commit" in message ? ` ${message.commit}` : ""}`);
      }
    },
  } as unknown as Peers;
  const sender = new MessageSender(peers);
  const parts = { core: undefined as never, checkpointer: undefined as never };
  const send = (...messages: Message[]): string[] => {
    left = [];
    if (messages.length === 0) sender.tick();
    else sender.send(parts, messages);
    return left;
  };
  return { sender, send };
}

const from = { from: "m1", term: 3 } as const;
const commit = (to: string, index: number): Message => ({ ...from, to, type: "commit", commit: index });
const heartbeat = (to: string, index: number): Message => {
  return { ...from, to, type: "heartbeat", round: 1, commit: index, sentAtMs: 1 };
};
const append = (to: string, index: number): Message => {
  return { ...from, to, type: "append", prevIndex: index, prevTerm: 3, entries: [], commit: index, sentAtMs: 1 };
};
const readReply = (to: string, index: number): Message => ({ ...from, to, type: "read-reply", request: 1, index });

test("news of a commit waits for the tick, and only the newest is told", () => {
  const { send } = recorded();
  assert.deepEqual(send(commit("m2", 7), commit("m3", 7)), []);
  assert.deepEqual(send(commit("m2", 9)), []);
  assert.deepEqual(send(), ["m2 commit 9", "m3 commit 7"]);
  assert.deepEqual(send(), []);
});

test("an append and a heartbeat tell it along, so that nothing is left for the tick", () => {
  const { send } = recorded();
  assert.deepEqual(send(commit("m2", 7), commit("m3", 7)), []);
  assert.deepEqual(send(append("m2", 8)), ["m2 append 8"]);
  assert.deepEqual(send(heartbeat("m3", 8)), ["m3 heartbeat 8"]);
  assert.deepEqual(send(), []);
});

test("an append before the news in one turn does not make the news forgotten", () => {
  const { send } = recorded();
  assert.deepEqual(send(append("m2", 7), commit("m2", 8)), ["m2 append 7"]);
  assert.deepEqual(send(), ["m2 commit 8"]);
});

test("a follower whose read may go on is told at once what the read waits for, whichever was said first", () => {
  const { send } = recorded();
  assert.deepEqual(send(commit("m2", 7), commit("m3", 7)), []);
  assert.deepEqual(send(readReply("m2", 7)), ["m2 read-reply", "m2 commit 7"]);
  assert.deepEqual(send(readReply("m3", 8), commit("m3", 8)), ["m3 read-reply", "m3 commit 8"]);
  assert.deepEqual(send(), []);
});
