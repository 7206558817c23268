/** Refusals as results: plain data, because they are kept in the state and replayed to whoever asks again. */

import { type ErrorCode, type ErrorDetails, errorTable } from "../base/errors.ts";
import { nameBytesMax, type Path, pathBytesMax } from "../base/path.ts";
import type { Failed } from "./command.ts";

export function fail(code: ErrorCode, message: string, details?: ErrorDetails): Failed {
  const error = {
    code,
    message,
    retryable: errorTable[code].retryable,
    outcome: code === "unknown-outcome" ? ("unknown" as const) : ("none" as const),
  };
  return { ok: false, error: details === undefined ? error : { ...error, details } };
}

export function isFailed(value: object): value is Failed {
  return "ok" in value && value.ok === false;
}

/** Why a name cannot be linked, if so. Paths were parsed when they came in; this holds whatever the log says. */
export function nameProblem(name: string): string | undefined {
  const { length } = name;
  if (length === 0 || name === "." || name === "..") return `${quote(name)} cannot be a name`;
  let ascii = true;
  for (let i = 0; i < length; i++) {
    const unit = name.charCodeAt(i);
    if (unit === 0 || unit === 47) return `name ${quote(name)} contains a ${unit === 0 ? "NUL" : "slash"}`;
    if (unit >= 0x80) ascii = false;
  }
  if (ascii ? length <= nameBytesMax : length * 3 <= nameBytesMax) {
    return ascii || name.isWellFormed() ? undefined : `name ${quote(name)} is not valid Unicode`;
  }
  if (!name.isWellFormed()) return `name ${quote(name)} is not valid Unicode`;
  const bytes = Buffer.byteLength(name);
  return bytes > nameBytesMax ? `name ${quote(name)} has ${bytes} bytes, more than ${nameBytesMax}` : undefined;
}

export function pathProblem(path: Path): string | undefined {
  if (path.length * 3 <= pathBytesMax || Buffer.byteLength(path) <= pathBytesMax) return undefined;
  return `path ${quote(path)} has more than ${pathBytesMax} bytes`;
}

export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}

const attributeValueBytesMax = 4096;
const attributesBytesMax = 64 * 1024;

/** Why attributes cannot be kept, if so: 4 KiB a value, 64 KiB an inode. */
export function attributesProblem(attributes: Readonly<Record<string, string>>): string | undefined {
  let total = 0;
  for (const key in attributes) {
    const value = attributes[key];
    const keyBytes = Buffer.byteLength(key);
    if (keyBytes === 0 || keyBytes > nameBytesMax)
      return `attribute ${quote(key)}: its name has ${keyBytes} bytes, not 1 to 255`;
    if (typeof value !== "string") return `attribute ${quote(key)} has a value that is no text`;
    const valueBytes = Buffer.byteLength(value);
    if (valueBytes > attributeValueBytesMax) {
      return `attribute ${quote(key)} has ${valueBytes} bytes, more than ${attributeValueBytesMax}`;
    }
    total += keyBytes + valueBytes;
  }
  return total > attributesBytesMax
    ? `attributes have ${total} bytes together, more than ${attributesBytesMax}`
    : undefined;
}
