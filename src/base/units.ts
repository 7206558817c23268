/** Sizes and durations as people write them (`4MiB`, `300ms`) and as they read them. */

import { HeadpondError } from "./errors.ts";

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

const sizeUnits: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  PB: 1e15,
  KiB,
  MiB,
  GiB,
  TiB,
  PiB: 1024 * TiB,
};
const durationUnits: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1e3,
  m: 60e3,
  h: 3600e3,
  d: 86400e3,
};

/** `"3TiB"` → bytes; a bare number is bytes. Throws `invalid`. */
export function parseSizeBytes(text: string | number): number {
  return parseQuantity(text, sizeUnits, "size", "e.g. 512MiB or 3TiB");
}

/** `"300ms"` → milliseconds. A bare number other than 0 is refused: its unit would be a guess. Throws `invalid`. */
export function parseDurationMs(text: string | number): number {
  if (text === 0 || text === "0") return 0;
  if (typeof text === "number" || /^[0-9.]+$/.test(text)) {
    throw new HeadpondError("invalid", `${text} has no unit of time: write e.g. ${text}s or ${text}ms`);
  }
  return parseQuantity(text, durationUnits, "duration", "e.g. 300ms, 5s or 1h");
}

function parseQuantity(
  text: string | number,
  units: Readonly<Record<string, number>>,
  what: string,
  hint: string,
): number {
  const match = /^([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)$/.exec(String(text).trim());
  const unit = match?.[2] ?? "";
  const factor = unit === "" ? 1 : units[unit];
  const value = Math.round(Number(match?.[1]) * (factor ?? Number.NaN));
  if (match === null || factor === undefined || !Number.isSafeInteger(value)) {
    throw new HeadpondError("invalid", `${JSON.stringify(text)} is not a ${what}: write ${hint}`);
  }
  return value;
}

/** `1536 * MiB` → `"1.5 GiB"`. */
export function formatBytes(bytes: number): string {
  const names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < names.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : Math.round(value * 10) / 10} ${names[unit]}`;
}

/** `83_000` → `"1m 23s"`, `420` → `"420 ms"`. */
export function formatDuration(durationMs: number): string {
  if (durationMs < 1000) return `${Math.round(durationMs)} ms`;
  if (durationMs < 60e3) return `${(durationMs / 1000).toFixed(1)} s`;
  const seconds = Math.round(durationMs / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)}h ${minutes % 60}m`;
  return `${Math.floor(minutes / 1440)}d ${Math.floor((minutes % 1440) / 60)}h`;
}
