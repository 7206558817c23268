/**
 * Messages as bytes. An encoder and a decoder are compiled per schema: an object travels as an array of its fields in the
 * order of the schema, so no names are sent, and reading one is straight-line code. Measured against msgpackr with plain
 * maps, with shared record structures and with arrays: docs/decisions/0020.
 *
 * Schemas evolve by appending optional fields: what a newer peer appended is skipped, what an older one did not send is
 * absent. A decoder makes no judgement about types; `check` does, and names the field.
 *
 * What has no positional form (records, free values, unions without a discriminator) travels as plain MessagePack.
 */

import type { TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { HeadpondError } from "../base/errors.ts";
import type { Reader } from "./message-reader.ts";
import type { Writer } from "./message-writer.ts";

export type Codec = {
  /** Throws `internal` when the value is not of the schema's shape and cannot be written. */
  readonly encode: (writer: Writer, value: unknown) => void;
  /** Throws `invalid` when the bytes are malformed; what it returns is not yet checked. */
  readonly decode: (reader: Reader) => unknown;
  /** Throws `invalid`, naming `what` and the field. */
  readonly check: (value: unknown, what: string) => void;
};

const codecs = new WeakMap<TSchema, Codec>();

/** The codec of a schema, compiled once. */
export function codecOf(schema: TSchema): Codec {
  let codec = codecs.get(schema);
  if (codec === undefined) {
    codec = { encode: compileEncoder(schema), decode: compileDecoder(schema), check: compileCheck(schema) };
    codecs.set(schema, codec);
  }
  return codec;
}

function compileCheck(schema: TSchema): Codec["check"] {
  const validator = Compile(schema);
  return (value, what) => {
    if (validator.Check(value)) return;
    const [error] = validator.Errors(value);
    const missing = (error?.params as { requiredProperties?: readonly string[] } | undefined)?.requiredProperties;
    const at = `${error?.instancePath ?? ""}${missing === undefined ? "" : `/${missing[0]}`}`;
    const field = at.slice(1).replaceAll("/", ".");
    throw new HeadpondError(
      "invalid",
      `${what}: ${field === "" ? "the message" : field} ${error?.message ?? "is invalid"}`,
      {
        details: { field },
      },
    );
  };
}

/** How a schema travels. */
type Shape =
  | { readonly kind: "string" | "number" | "boolean" | "value" }
  | { readonly kind: "bytes" }
  | { readonly kind: "nullable"; readonly of: Shape }
  | { readonly kind: "array"; readonly of: Shape }
  | { readonly kind: "object"; readonly fields: readonly Field[] }
  | { readonly kind: "variants"; readonly tag: string; readonly variants: ReadonlyMap<string, readonly Field[]> };

type Field = { readonly name: string; readonly optional: boolean; readonly shape: Shape };

type JsonSchema = {
  readonly type?: string;
  readonly const?: unknown;
  readonly binary?: boolean;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly patternProperties?: unknown;
  readonly additionalProperties?: unknown;
  readonly required?: readonly string[];
  readonly items?: JsonSchema | readonly JsonSchema[];
  readonly anyOf?: readonly JsonSchema[];
};

const freeValue: Shape = { kind: "value" };

function shapeOf(schema: JsonSchema): Shape {
  if (schema.binary === true) return { kind: "bytes" };
  if (schema.anyOf !== undefined) return shapeOfUnion(schema.anyOf);
  switch (schema.type) {
    case "string":
      return { kind: "string" };
    case "number":
    case "integer":
      return { kind: "number" };
    case "boolean":
      return { kind: "boolean" };
    case "array":
      return schema.items === undefined || Array.isArray(schema.items)
        ? freeValue
        : { kind: "array", of: shapeOf(schema.items as JsonSchema) };
    case "object":
      return isPositional(schema) ? { kind: "object", fields: fieldsOf(schema) } : freeValue;
    default:
      return freeValue;
  }
}

function shapeOfUnion(alternatives: readonly JsonSchema[]): Shape {
  const others = alternatives.filter((alternative) => alternative.type !== "null");
  if (others.length < alternatives.length) {
    const [first] = others;
    const of = others.length === 1 && first !== undefined ? shapeOf(first) : shapeOfUnion(others);
    return of.kind === "value" ? freeValue : { kind: "nullable", of };
  }
  if (others.every((alternative) => alternative.type === "string")) return { kind: "string" };
  if (!others.every(isPositional)) return freeValue;
  const tag = Object.keys(others[0]?.properties ?? {}).find((name) => {
    const values = others.map((alternative) => alternative.properties?.[name]?.const);
    return values.every((value) => typeof value === "string") && new Set(values).size === values.length;
  });
  if (tag === undefined) return freeValue;
  const variants = new Map<string, readonly Field[]>();
  for (const alternative of others) {
    const fields = fieldsOf(alternative).filter((field) => field.name !== tag);
    variants.set(String(alternative.properties?.[tag]?.const), fields);
  }
  return { kind: "variants", tag, variants };
}

function isPositional(schema: JsonSchema): boolean {
  const { additionalProperties: additional } = schema;
  return (
    schema.type === "object" &&
    schema.properties !== undefined &&
    schema.patternProperties === undefined &&
    (additional === undefined || additional === false)
  );
}

function fieldsOf(schema: JsonSchema): readonly Field[] {
  return Object.entries(schema.properties ?? {}).map(([name, field]) => ({
    name,
    optional: schema.required?.includes(name) !== true,
    shape: shapeOf(field),
  }));
}

/** Code is compiled from schemas only, never from anything that came over a wire. */
function compile<T>(parameter: string, body: string): T {
  // oxlint-disable-next-line no-new-func, no-implied-eval -- straight-line code per schema is what makes this codec fast
  return new Function(parameter, `"use strict";\n${body}`) as T;
}

class Source {
  readonly #functions: string[] = [];
  #names = 0;

  name(prefix: string): string {
    return `${prefix}${this.#names++}`;
  }

  /** Adds a function and returns its name. Nested objects get one each, to keep each small enough to be optimised. */
  define(parameters: string, body: string): string {
    const name = this.name("f");
    this.#functions.push(`function ${name}(${parameters}) {\n${body}\n}`);
    return name;
  }

  toString(): string {
    return this.#functions.join("\n");
  }
}

function compileEncoder(schema: TSchema): Codec["encode"] {
  const source = new Source();
  const body = encodeStatement(source, shapeOf(schema as JsonSchema), "v");
  const main = source.define("w, v", body);
  return compile<() => Codec["encode"]>("", `${source}\nreturn ${main};`)();
}

function encodeStatement(source: Source, shape: Shape, value: string): string {
  switch (shape.kind) {
    case "string":
    case "number":
    case "boolean":
    case "bytes":
    case "value":
      return `w.${shape.kind}(${value});`;
    case "nullable":
      return `if (${value} === null) w.nil(); else { ${encodeStatement(source, shape.of, value)} }`;
    case "array": {
      const item = source.define("w, v", encodeStatement(source, shape.of, "v"));
      const list = source.name("a");
      return `const ${list} = ${value}; w.array(${list}.length); for (let i = 0; i < ${list}.length; i++) ${item}(w, ${list}[i]);`;
    }
    case "object": {
      const fields = encodeFields(source, shape.fields);
      return `${source.define("w, v", `w.array(${shape.fields.length});\n${fields}`)}(w, ${value});`;
    }
    case "variants": {
      const cases = [...shape.variants].map(([tag, fields]) => {
        const encode = source.define("w, v", encodeFields(source, fields));
        const text = JSON.stringify(tag);
        return `case ${text}: w.array(${fields.length + 1}); w.string(${text}); ${encode}(w, v); break;`;
      });
      const tag = `v[${JSON.stringify(shape.tag)}]`;
      const body = `switch (${tag}) {\n${cases.join("\n")}\ndefault: throw new TypeError("no variant " + ${tag}); }`;
      return `${source.define("w, v", body)}(w, ${value});`;
    }
    default:
      return shape satisfies never;
  }
}

/** Absent is nil; a present value that may itself be null is wrapped into an array of one. */
function encodeFields(source: Source, fields: readonly Field[]): string {
  const statements = fields.map(({ name, optional, shape }) => {
    const field = source.name("x");
    const wrap = optional && mayBeNull(shape) ? "w.array(1);" : "";
    const encode = encodeStatement(source, shape, field);
    const statement = optional ? `if (${field} === undefined) w.nil(); else { ${wrap} ${encode} }` : `{ ${encode} }`;
    return `const ${field} = v[${JSON.stringify(name)}]; ${statement}`;
  });
  return statements.join("\n");
}

function mayBeNull(shape: Shape): boolean {
  return shape.kind === "nullable" || shape.kind === "value";
}

function compileDecoder(schema: TSchema): Codec["decode"] {
  const source = new Source();
  const main = source.define("r", `return ${decodeExpression(source, shapeOf(schema as JsonSchema))};`);
  return compile<() => Codec["decode"]>("", `${source}\nreturn ${main};`)();
}

function decodeExpression(source: Source, shape: Shape): string {
  switch (shape.kind) {
    case "string":
    case "number":
      return `r.${shape.kind}()`;
    case "boolean":
    case "bytes":
    case "value":
      return "r.value()";
    case "nullable":
      return `(r.isNil() ? null : ${decodeExpression(source, shape.of)})`;
    case "array": {
      const item = decodeExpression(source, shape.of);
      const body = `const a = []; for (let i = 0; i < n; i++) a.push(${item}); return a;`;
      return `${source.define("r", `const n = r.arrayLength(); if (n < 0) return r.value();\n${body}`)}(r)`;
    }
    case "object": {
      const head = "const n = r.arrayLength(); if (n < 0) return r.value();";
      return `${source.define("r", `${head}\n${decodeFields(source, shape.fields, 0, "")}`)}(r)`;
    }
    case "variants": {
      const cases = [...shape.variants].map(([tag, fields]) => {
        const constant = `${JSON.stringify(shape.tag)}: ${JSON.stringify(tag)}, `;
        const decode = source.define("r, n", decodeFields(source, fields, 1, constant));
        return `case ${JSON.stringify(tag)}: return ${decode}(r, n);`;
      });
      const unknown = `default: r.skip(n - 1); return { ${JSON.stringify(shape.tag)}: t };`;
      const head = "const n = r.arrayLength(); if (n < 1) return r.value(); const t = r.string();";
      return `${source.define("r", `${head}\nswitch (t) {\n${cases.join("\n")}\n${unknown} }`)}(r)`;
    }
    default:
      return shape satisfies never;
  }
}

/** Reads fields from position `first` of an array of `n`; an absent optional field is absent, not undefined. */
function decodeFields(source: Source, fields: readonly Field[], first: number, constant: string): string {
  const names = fields.map(() => source.name("x"));
  const reads = fields.map(({ optional, shape }, i) => {
    const expression = decodeExpression(source, shape);
    const wrapped = mayBeNull(shape) ? `(r.arrayLength() === 1 ? ${expression} : r.value())` : expression;
    const present = optional ? `(r.isNil() ? undefined : ${wrapped})` : expression;
    return `const ${names[i]} = n > ${first + i} ? ${present} : undefined;`;
  });
  const required = fields.flatMap(({ name, optional }, i) =>
    optional ? [] : [`${JSON.stringify(name)}: ${names[i]}`],
  );
  const optional = fields.flatMap(({ name, optional: isOptional }, i) =>
    isOptional ? [`if (${names[i]} !== undefined) o[${JSON.stringify(name)}] = ${names[i]};`] : [],
  );
  return [
    ...reads,
    `if (n > ${first + fields.length}) r.skip(n - ${first + fields.length});`,
    `const o = { ${constant}${required.join(", ")} };`,
    ...optional,
    "return o;",
  ].join("\n");
}
