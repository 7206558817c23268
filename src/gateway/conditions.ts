/** Ranges and conditional requests (RFC 9110, sections 13 and 14), for content that is immutable under its ETag. */

export type Content = {
  /** Quoted, strong. */
  readonly etag: string;
  readonly modifiedMs: number;
  readonly sizeBytes: number;
};

export type Verdict =
  | { readonly kind: "whole" }
  | { readonly kind: "part"; readonly position: number; readonly length: number }
  | { readonly kind: "not-modified" }
  | { readonly kind: "failed" }
  | { readonly kind: "unsatisfiable" };

type Headers = Readonly<Record<string, string | undefined>>;

/** What a GET or HEAD with these headers is answered with. */
export function judge(headers: Headers, content: Content): Verdict {
  const modifiedSecond = Math.floor(content.modifiedMs / 1000) * 1000;
  const ifMatch = headers["if-match"];
  if (ifMatch !== undefined) {
    if (!matchesAny(ifMatch, content.etag, "strong")) return { kind: "failed" };
  } else {
    const unmodifiedSince = parseDate(headers["if-unmodified-since"]);
    if (unmodifiedSince !== undefined && modifiedSecond > unmodifiedSince) return { kind: "failed" };
  }
  const ifNoneMatch = headers["if-none-match"];
  if (ifNoneMatch !== undefined) {
    if (matchesAny(ifNoneMatch, content.etag, "weak")) return { kind: "not-modified" };
  } else {
    const modifiedSince = parseDate(headers["if-modified-since"]);
    if (modifiedSince !== undefined && modifiedSecond <= modifiedSince) return { kind: "not-modified" };
  }
  const range = headers["range"];
  if (range === undefined || !rangeApplies(headers["if-range"], content.etag, modifiedSecond)) return { kind: "whole" };
  return parseRange(range, content.sizeBytes);
}

/**
 * One range of bytes. Several ranges, other units and text that is no range are answered with the whole content, as the
 * standard allows: no client of models asks for several, and a multipart answer would help none.
 */
function parseRange(text: string, sizeBytes: number): Verdict {
  const match = /^bytes=\s*([0-9]*)\s*-\s*([0-9]*)\s*$/i.exec(text);
  const first = match?.[1] ?? "";
  const last = match?.[2] ?? "";
  if (match === null || (first === "" && last === "")) return { kind: "whole" };
  if (first === "") {
    const suffix = Math.min(Number(last), sizeBytes);
    if (suffix === 0) return { kind: "unsatisfiable" };
    return { kind: "part", position: sizeBytes - suffix, length: suffix };
  }
  const position = Number(first);
  if (last !== "" && Number(last) < position) return { kind: "whole" };
  if (position >= sizeBytes) return { kind: "unsatisfiable" };
  const end = last === "" ? sizeBytes : Math.min(Number(last) + 1, sizeBytes);
  return { kind: "part", position, length: end - position };
}

/** `If-Range`: the part only if the content is still the one that the client has the rest of. */
function rangeApplies(ifRange: string | undefined, etag: string, modifiedSecond: number): boolean {
  if (ifRange === undefined) return true;
  if (ifRange.includes('"')) return ifRange.trim() === etag;
  return parseDate(ifRange) === modifiedSecond;
}

export function matchesAny(list: string, etag: string, comparison: "strong" | "weak"): boolean {
  if (list.trim() === "*") return true;
  for (const [, weak, tag] of list.matchAll(/(W\/)?("[^"]*")/g)) {
    if (tag === etag && (weak === undefined || comparison === "weak")) return true;
  }
  return false;
}

function parseDate(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const timeMs = Date.parse(text);
  return Number.isNaN(timeMs) ? undefined : timeMs;
}

/** An under store's etag as HTTP wants it: quoted, without what a quoted tag cannot hold. */
export function quoteEtag(etag: string): string {
  const bare = etag.replace(/^W\//, "").replace(/^"(.*)"$/, "$1");
  return `"${bare.replace(/[^\x21\x23-\x7e]/g, (character) => encodeURIComponent(character))}"`;
}

export function httpDate(timeMs: number): string {
  return new Date(timeMs).toUTCString();
}
