/** Byte streams between processes, behind a door: TCP (`tcp-network.ts`) or memory (`memory-network.ts`, for tests and simulations). */

export type Address = { readonly host: string; readonly port: number };

/** One established stream. Callbacks are set once, before the first byte can arrive (same turn as the connection is handed over). */
export interface Connection {
  readonly remote: string;
  /** `chunk` is only valid during the call. */
  onData: (chunk: Uint8Array) => void;
  /** Called once: the peer ended or the stream broke (`error`). */
  onClose: (error: Error | undefined) => void;
  /** Called when `write` returned false and the buffer has drained. */
  onDrain: () => void;
  /** Queues `bytes` (owned by the connection until `pendingBytes` is 0). False: stop until `onDrain`. */
  write(bytes: Uint8Array): boolean;
  /** Stops and resumes the arrival of data: back-pressure to the peer. */
  pause(): void;
  resume(): void;
  /** Bytes queued and not yet handed to the kernel. 0: no buffer that was given to `write` is in use any more. */
  readonly pendingBytes: number;
  /** Sends what is queued, then ends. */
  end(): void;
  /** Ends at once. */
  destroy(error?: Error): void;
}

export interface Listener {
  readonly address: Address;
  /** Stops accepting; existing connections live on. */
  close(): Promise<void>;
}

export interface Network {
  /** Rejects with Node's `code` (`ECONNREFUSED`, ...), or when the signal fires. */
  connect(address: Address, signal?: AbortSignal): Promise<Connection>;
  /** Port 0: any free one. */
  listen(address: Address, onConnection: (connection: Connection) => void): Promise<Listener>;
}
