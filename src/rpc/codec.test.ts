import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import Type, { type TSchema } from "typebox";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { codecOf } from "./codec.ts";
import { masterService } from "./master-service.ts";
import { Reader } from "./message-reader.ts";
import { Writer } from "./message-writer.ts";
import { bytes } from "./method.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
console.log(`seed ${seed}`);

function encode(schema: TSchema, value: unknown): Buffer {
  const writer = new Writer(1);
  codecOf(schema).encode(writer, value);
  return Buffer.from(writer.buffer.subarray(0, writer.position));
}

function decode(schema: TSchema, encoded: Buffer): unknown {
  // Neighbours before and after: a decoder must not look beyond its message.
  const padded = Buffer.concat([Buffer.from([0xc1]), encoded, Buffer.from([0x01, 0xc1])]);
  const reader = new Reader().reset(padded, 1, 1 + encoded.length);
  const value = codecOf(schema).decode(reader);
  reader.finish();
  return value;
}

const Variant = Type.Union([
  Type.Object({ kind: Type.Literal("file"), sizeBytes: Type.Integer() }),
  Type.Object({ kind: Type.Literal("directory"), children: Type.Optional(Type.Array(Type.String())) }),
]);
const Everything = Type.Object({
  text: Type.String(),
  number: Type.Number(),
  flag: Type.Boolean(),
  data: bytes(),
  choice: Type.Union([Type.Literal("a"), Type.Literal("b")]),
  nullable: Type.Union([Type.Integer(), Type.Null()]),
  optional: Type.Optional(Type.String()),
  optionalNullable: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  nested: Type.Object({ list: Type.Array(Type.Object({ x: Type.Number(), y: Type.Optional(Type.Number()) })) }),
  variants: Type.Array(Variant),
  record: Type.Record(Type.String(), Type.Unknown()),
  free: Type.Optional(Type.Unknown()),
});

const anyText = fc.string({ unit: "grapheme", maxLength: 300 });
const anyNumber = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => (Object.is(value, -0) ? 0 : value)),
  fc.maxSafeInteger(),
  fc.integer({ min: -300, max: 70_000 }),
);
const anyFree = fc
  .jsonValue({ maxDepth: 3 })
  .map((value) => JSON.parse(JSON.stringify(value)) as unknown)
  .filter((value) => !JSON.stringify(value).includes("__proto__"));
const anyEverything = fc.record(
  {
    text: anyText,
    number: anyNumber,
    flag: fc.boolean(),
    data: fc.uint8Array({ maxLength: 400 }),
    choice: fc.constantFrom("a", "b"),
    nullable: fc.option(fc.maxSafeInteger()),
    optional: anyText,
    optionalNullable: fc.option(anyText),
    nested: fc.record(
      {
        list: fc.array(fc.record({ x: anyNumber, y: anyNumber }, { requiredKeys: ["x"], noNullPrototype: true }), {
          maxLength: 20,
        }),
      },
      { noNullPrototype: true },
    ),
    variants: fc.array(
      fc.oneof(
        fc.record({ kind: fc.constant("file"), sizeBytes: fc.maxSafeInteger() }, { noNullPrototype: true }),
        fc.record(
          { kind: fc.constant("directory"), children: fc.array(anyText) },
          { requiredKeys: ["kind"], noNullPrototype: true },
        ),
      ),
    ),
    record: fc.dictionary(
      fc.string({ minLength: 1 }).filter((key) => key !== "__proto__"),
      anyFree,
      { noNullPrototype: true },
    ),
    free: anyFree,
  },
  {
    requiredKeys: ["text", "number", "flag", "data", "choice", "nullable", "nested", "variants", "record"],
    noNullPrototype: true,
  },
);

test("every message of a schema arrives as it was sent, and passes the check", () => {
  const property = fc.property(anyEverything, (value) => {
    const arrived = decode(Everything, encode(Everything, value));
    assert.deepEqual(arrived, value);
    codecOf(Everything).check(arrived, "everything");
  });
  fc.assert(property, { seed, numRuns: 1000 });
});

test("a map may have a key __proto__, which is data and sets nobody's prototype", () => {
  const record = JSON.parse('{"__proto__":{"polluted":true},"constructor":"x"}') as Record<string, unknown>;
  const schema = Type.Record(Type.String(), Type.Unknown());
  const arrived = decode(schema, encode(schema, record)) as Record<string, unknown>;
  assert.deepEqual(Object.entries(arrived), Object.entries(record));
  assert.equal(Object.getPrototypeOf(arrived), Object.prototype);
  assert.equal((arrived as { polluted?: unknown }).polluted, undefined);
});

test("damaged bytes throw invalid or decode to something, but never crash or read on", () => {
  const random = new Random(seed);
  const [sample] = fc.sample(anyEverything, { seed, numRuns: 1 });
  const good = encode(Everything, sample);
  for (let i = 0; i < 20_000; i++) {
    const bad = Buffer.from(good.subarray(0, random.chance(0.3) ? random.between(0, good.length) : good.length));
    for (let flips = random.between(1, 4); flips > 0 && bad.length > 0; flips--) {
      bad[random.between(0, bad.length - 1)] = random.between(0, 255);
    }
    try {
      codecOf(Everything).check(decode(Everything, bad), "everything");
    } catch (error) {
      assert(error instanceof HeadpondError && error.code === "invalid", String(error));
    }
  }
});

test("a count that lies about the bytes that follow is refused before anything is allocated", () => {
  for (const head of [
    [0xdd, 0xff, 0xff, 0xff, 0xff],
    [0xdf, 0x7f, 0xff, 0xff, 0xff],
    [0xc6, 0xff, 0xff, 0xff, 0xff],
  ]) {
    assert.throws(() => decode(Type.Unknown(), Buffer.from(head)), { code: "invalid" });
  }
  assert.throws(() => decode(Type.Unknown(), Buffer.alloc(100_000, 0x91)), /nested deeper/);
});

test("a field that a newer peer appended is skipped, and one that an older peer lacks is absent", () => {
  const older = Type.Object({ a: Type.String() });
  const newer = Type.Object({ a: Type.String(), b: Type.Optional(Type.Object({ c: Type.Number() })) });
  assert.deepEqual(decode(older, encode(newer, { a: "x", b: { c: 1 } })), { a: "x" });
  assert.deepEqual(decode(newer, encode(older, { a: "x" })), { a: "x" });
});

test("a variant that is not known yet is named by the check instead of breaking the stream", () => {
  const newer = Type.Union([...Variant.anyOf, Type.Object({ kind: Type.Literal("link"), target: Type.String() })]);
  const list = decode(
    Type.Array(Variant),
    encode(Type.Array(newer), [
      { kind: "link", target: "/x" },
      { kind: "file", sizeBytes: 3 },
    ]),
  );
  assert.deepEqual(list, [{ kind: "link" }, { kind: "file", sizeBytes: 3 }]);
  assert.throws(() => codecOf(Type.Array(Variant)).check(list, "entries"), { code: "invalid" });
});

test("a value of a wrong type is refused with the name of its field", () => {
  const schema = Type.Object({ path: Type.String(), inner: Type.Object({ count: Type.Integer({ minimum: 0 }) }) });
  const other = Type.Object({ path: Type.Number(), inner: Type.Object({ count: Type.Integer() }) });
  const wrongPath = decode(schema, encode(other, { path: 7, inner: { count: 1 } }));
  assert.throws(
    () => codecOf(schema).check(wrongPath, "request of stat"),
    /^HeadpondError: request of stat: path must be string/,
  );
  const wrongCount = decode(schema, encode(schema, { path: "/a", inner: { count: -1 } }));
  assert.throws(() => codecOf(schema).check(wrongCount, "request of stat"), /inner\.count/);
  const missing = decode(schema, Buffer.from([0x91, 0xa1, 0x61]));
  assert.throws(() => codecOf(schema).check(missing, "request of stat"), /request of stat: inner/);
});

test("binary fields own their memory and keep their limit", () => {
  const schema = Type.Object({ data: bytes(4) });
  const encoded = encode(schema, { data: Buffer.from([1, 2, 3]) });
  const padded = Buffer.concat([encoded]);
  const value = codecOf(schema).decode(new Reader().reset(padded, 0, padded.length)) as { data: Uint8Array };
  padded.fill(0);
  assert.deepEqual(value.data, new Uint8Array([1, 2, 3]));
  codecOf(schema).check(value, "block");
  assert.throws(() => codecOf(schema).check({ data: new Uint8Array(5) }, "block"), /data must be at most 4 bytes/);
});

test("every schema of the master's service compiles", () => {
  for (const method of Object.values(masterService.methods)) {
    codecOf(method.request);
    codecOf(method.kind === "unary" ? method.reply : method.item);
  }
});
