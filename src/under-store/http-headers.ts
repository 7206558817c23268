/** Headers of HTTP that under stores need to understand. */

/** `Retry-After`, in seconds or as a date. Undefined when absent or unreadable. */
export function retryAfterMs(value: string | undefined, wallMs: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\s*\d{1,9}(\.\d+)?\s*$/.test(value)) return Math.round(Number(value) * 1000);
  const dateMs = Date.parse(value);
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - wallMs);
}

export type ContentRange = { readonly first: number; readonly last: number; readonly totalBytes: number | undefined };

/** `bytes 0-9/100`, `bytes 0-9/*`. Undefined when it is not that. */
export function parseContentRange(value: string | undefined): ContentRange | undefined {
  const match = /^bytes\s+(\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/i.exec(value?.trim() ?? "");
  if (match === null) return undefined;
  const [first, last] = [Number(match[1]), Number(match[2])];
  const totalBytes = match[3] === "*" ? undefined : Number(match[3]);
  return last < first || (totalBytes !== undefined && last >= totalBytes) ? undefined : { first, last, totalBytes };
}

/** A date of HTTP as ms since 1970; 0 when absent or unreadable. */
export function httpDateMs(value: string | undefined): number {
  const parsed = Date.parse(value ?? "");
  return Number.isNaN(parsed) ? 0 : Math.max(0, parsed);
}
