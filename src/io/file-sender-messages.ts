/** What the main thread and a thread that sends files (`file-sender.ts`, `file-sender-thread.ts`) say to each other. */

export type SenderRequest =
  | {
      readonly kind: "send";
      readonly id: number;
      /** A duplicate, which the thread closes. */
      readonly socket: number;
      /** Stays open until the thread is done with it. */
      readonly file: number;
      readonly position: number;
      readonly lengthBytes: number;
      readonly stallTimeoutMs: number;
    }
  | { readonly kind: "cancel"; readonly id: number };

export type SendOutcome =
  /** All of it, or all that the file gave. */
  "sent" | "gone" | "stalled" | "cancelled";

export type SenderReport =
  | { readonly kind: "progress"; readonly id: number; readonly sentBytes: number }
  | {
      readonly kind: "done";
      readonly id: number;
      /** In all. */
      readonly sentBytes: number;
      readonly outcome: SendOutcome;
    };

export type SenderThreadData = {
  /** Raised after each request: the thread may be waiting for sockets. */
  readonly counter: number;
};
