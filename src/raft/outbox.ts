/**
 * What leaves a member: messages, and writes to its disk. Some messages may leave only when what they promise is durable
 * (a vote, an acknowledged entry, a candidacy): they are held until the write that makes them true has ended, and are
 * lost with the process if it does not.
 */

import { assert } from "../base/assert.ts";
import type { RaftLog } from "./log.ts";
import type { AppendWork, HardState, Message, NodeId } from "./types.ts";

export class Outbox {
  readonly #id: NodeId;
  readonly #log: RaftLog;
  /** As the last write that was handed out has it. */
  #writtenHardState: HardState;
  #lastToken = 0;
  /** Writes under way, with the uptime when they were handed out. */
  readonly #writes: { readonly token: number; readonly sinceMs: number }[] = [];
  #messages: Message[] = [];
  /** Held for the next write, or for the last one if there is none. */
  #heldNew: Message[] = [];
  readonly #held: { readonly token: number; readonly message: Message }[] = [];

  constructor(options: { readonly id: NodeId; readonly log: RaftLog; readonly hardState: HardState }) {
    this.#id = options.id;
    this.#log = options.log;
    this.#writtenHardState = options.hardState;
  }

  /** Sends at once. */
  send(message: Message): void {
    this.#messages.push(message);
  }

  /** Sends when all that the member knows now is durable, its term and vote included. It may write to itself. */
  hold(message: Message): void {
    this.#heldNew.push(message);
  }

  takeMessages(): readonly Message[] {
    const messages = this.#messages;
    this.#messages = [];
    return messages;
  }

  /** The next write, if there is anything to write. `hardState`: as it should be on the disk. */
  takeWork(hardState: HardState, uptimeMs: number): AppendWork | undefined {
    const { term, vote } = this.#writtenHardState;
    const isNew = term !== hardState.term || vote !== hardState.vote;
    const hasWork = isNew || this.#log.hasUnwritten;
    const token = hasWork ? ++this.#lastToken : this.#lastToken;
    for (const message of this.#heldNew) this.#held.push({ token, message });
    this.#heldNew = [];
    if (!hasWork) return undefined;
    this.#writtenHardState = hardState;
    this.#writes.push({ token, sinceMs: uptimeMs });
    return { token, hardState: isNew ? hardState : undefined, ...this.#log.takeUnwritten(token) };
  }

  /** The write `token` and all before it have ended. */
  ended(token: number): void {
    const oldest = this.#writes[0]?.token;
    assert(
      oldest !== undefined && token >= oldest && token <= this.#lastToken,
      () => `write ${token} is not under way`,
    );
    while (this.#writes[0] !== undefined && this.#writes[0].token <= token) this.#writes.shift();
    this.#log.written(token);
  }

  /**
   * Lets go what need not wait any longer, and returns what the member told itself. What was said in an earlier term is
   * dropped: whoever it was for has moved on, too, or will.
   */
  release(term: number): Message[] {
    const endedToken = (this.#writes[0]?.token ?? this.#lastToken + 1) - 1;
    const count = this.#held.findIndex(({ token }) => token > endedToken);
    const released = this.#held.splice(0, count < 0 ? this.#held.length : count);
    const toSelf: Message[] = [];
    for (const [i, { message }] of released.entries()) {
      if (message.term !== term || isSuperseded(message, released[i + 1]?.message)) continue;
      if (message.to === this.#id) toSelf.push(message);
      else this.send(message);
    }
    return toSelf;
  }

  /** Whether a write has been under way for `timeoutMs` or longer. */
  isHung(uptimeMs: number, timeoutMs: number): boolean {
    const oldest = this.#writes[0];
    return oldest !== undefined && uptimeMs - oldest.sinceMs >= timeoutMs;
  }
}

/** Acknowledgements are cumulative: of several that one flush made true, the last says all. */
function isSuperseded(message: Message, next: Message | undefined): boolean {
  return (
    message.type === "append-ok" &&
    next?.type === "append-ok" &&
    next.to === message.to &&
    next.term === message.term &&
    next.index >= message.index &&
    next.sentAtMs >= message.sentAtMs
  );
}
