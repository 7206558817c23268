/** The `Range`, `If-Range`, `If-Match` and `If-None-Match` headers of RFC 9110, for content whose etag is strong. Pure. */

export type RangeAnswer =
  | { readonly kind: "whole" }
  | { readonly kind: "part"; readonly position: number; readonly length: number }
  | { readonly kind: "unsatisfiable" };

/** Several ranges, other units and malformed headers are ignored, as the RFC allows: the answer is the whole then. */
export function parseRange(header: string | undefined, sizeBytes: number): RangeAnswer {
  if (header === undefined || header.length > 256) return { kind: "whole" };
  const match = /^bytes=([0-9]{0,16})-([0-9]{0,16})$/.exec(header.trim());
  if (match === null) return { kind: "whole" };
  const [, first = "", last = ""] = match;
  if (first === "" && last === "") return { kind: "whole" };
  if (first === "") {
    const length = Math.min(Number(last), sizeBytes);
    if (length === 0) return { kind: "unsatisfiable" };
    return { kind: "part", position: sizeBytes - length, length };
  }
  const position = Number(first);
  if (last !== "" && Number(last) < position) return { kind: "whole" };
  if (position >= sizeBytes) return { kind: "unsatisfiable" };
  const end = last === "" ? sizeBytes : Math.min(Number(last) + 1, sizeBytes);
  return { kind: "part", position, length: end - position };
}

export type ConditionHeaders = {
  readonly ifMatch: string | undefined;
  readonly ifNoneMatch: string | undefined;
  readonly ifRange: string | undefined;
};

/** What the conditions ask for: go on, go on without the range, `304`, or `412`. */
export function checkConditions(
  { ifMatch, ifNoneMatch, ifRange }: ConditionHeaders,
  etag: string,
): "go-on" | "ignore-range" | "not-modified" | "precondition-failed" {
  if (ifMatch !== undefined && !listHas(ifMatch, etag, false)) return "precondition-failed";
  if (ifNoneMatch !== undefined && listHas(ifNoneMatch, etag, true)) return "not-modified";
  if (ifRange !== undefined && ifRange.trim() !== etag) return "ignore-range";
  return "go-on";
}

function listHas(header: string, etag: string, weak: boolean): boolean {
  return header.split(",").some((item) => {
    const tag = item.trim();
    return tag === "*" || tag === etag || (weak && tag === `W/${etag}`);
  });
}
