/**
 * Logs as JSON lines on stderr, by pino. Lines are written before the call returns, so that the last words of a dying
 * process are there. The level can be changed while it runs, for all children at once. Values of fields whose names
 * sound secret are replaced: the last line of defence, not a licence. (Name the key of an object `objectKey`: a field
 * called `key` is taken for a secret.)
 */

import pino, { type Logger as Pino } from "pino";
import type { LogFields, Logger } from "./logger.ts";

export const logLevels = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LeveledLogger extends Logger {
  level: LogLevel;
}

export type PinoLoggerOptions = {
  readonly level?: LogLevel;
  /** Fields of every line, e.g. `{ role: "worker", id: "w1" }`. */
  readonly fields?: LogFields;
  /** Where lines go instead of stderr. */
  readonly write?: (line: string) => void;
};

export function createLogger(options: PinoLoggerOptions = {}): LeveledLogger {
  const { write } = options;
  const destination = write === undefined ? pino.destination({ fd: 2, sync: true }) : { write };
  const sink = pino(
    {
      level: "debug",
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      messageKey: "message",
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
  const threshold = { value: logLevels.indexOf(options.level ?? "info") };
  return new PinoLogger(sink.child(readable(options.fields ?? {})), threshold);
}

class PinoLogger implements LeveledLogger {
  readonly #sink: Pino;
  /** Shared with all children: pino's own levels would be copied at their birth. */
  readonly #threshold: { value: number };

  constructor(sink: Pino, threshold: { value: number }) {
    this.#sink = sink;
    this.#threshold = threshold;
  }

  get level(): LogLevel {
    return logLevels[this.#threshold.value] ?? "info";
  }

  set level(level: LogLevel) {
    this.#threshold.value = logLevels.indexOf(level);
  }

  debug(message: string, fields?: LogFields): void {
    this.#write("debug", message, fields);
  }

  info(message: string, fields?: LogFields): void {
    this.#write("info", message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    this.#write("warn", message, fields);
  }

  error(message: string, fields?: LogFields): void {
    this.#write("error", message, fields);
  }

  child(fields: LogFields): Logger {
    return new PinoLogger(this.#sink.child(readable(fields)), this.#threshold);
  }

  #write(level: LogLevel, message: string, fields: LogFields | undefined): void {
    if (logLevels.indexOf(level) < this.#threshold.value) return;
    this.#sink[level](fields === undefined ? {} : readable(fields), message);
  }
}

const secretName =
  /secret|passw|token|credential|authorization|cookie|(^|access|api|private|signing|encryption)[-_]?key([-_]?id)?$/i;
const depthMax = 6;

function readable(fields: LogFields): Record<string, unknown> {
  return readableValue(fields, 0) as Record<string, unknown>;
}

/** What JSON can say: secrets replaced, errors spelt out, bigints as text, depth bounded (so cycles end, too). */
function readableValue(value: unknown, depth: number): unknown {
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object" || value === null) return value;
  if (depth >= depthMax) return "[deeper]";
  if (value instanceof Uint8Array) return `[${value.length} bytes]`;
  if (Array.isArray(value)) return value.map((item) => readableValue(item, depth + 1));
  if (value instanceof Error) {
    const { name, message, stack, cause } = value;
    const { code } = value as NodeJS.ErrnoException;
    return readableValue({ name, message, code, stack, cause }, depth + 1);
  }
  if (value instanceof Date || value instanceof URL) return value.toJSON();
  const entries = value instanceof Map ? value.entries() : Object.entries(value);
  const result: Record<string, unknown> = {};
  for (const [name, item] of entries) {
    const key = String(name);
    result[key] = secretName.test(key) ? "[secret]" : readableValue(item, depth + 1);
  }
  return result;
}
