/** The parser on good and bad responses, cut into pieces at random. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { HttpResponseParser, type ResponseHead } from "./http-response-parser.ts";

type Parsed = {
  readonly head: ResponseHead | undefined;
  readonly body: string;
  readonly trailers: Readonly<Record<string, string>> | undefined;
  readonly unused: string;
};

type Options = { readonly method?: string; readonly random?: Random; readonly close?: boolean };

function parse(text: string, { method = "GET", random, close = false }: Options = {}): Parsed {
  let head: ResponseHead | undefined;
  let body = "";
  let trailers: Readonly<Record<string, string>> | undefined;
  const parser = new HttpResponseParser(
    { method, headerBytesMax: 4096 },
    {
      onHead: (value) => {
        assert.equal(head, undefined, "one head");
        head = value;
      },
      onBody: (bytes) => {
        // A taker that takes only some, at random.
        const taken = random === undefined ? bytes.length : random.between(0, bytes.length);
        body += Buffer.from(bytes.subarray(0, taken)).toString("latin1");
        return taken;
      },
      onEnd: (value) => {
        assert.equal(trailers, undefined, "one end");
        trailers = value;
      },
    },
  );
  let rest = Buffer.from(text, "latin1");
  while (rest.length > 0 && !parser.ended) {
    const piece = rest.subarray(0, random === undefined ? rest.length : random.between(1, 40));
    rest = rest.subarray(parser.feed(piece));
  }
  if (close) parser.finish();
  return { head, body, trailers, unused: rest.toString("latin1") };
}

test("every framing yields its body, however the bytes are cut and however little is taken at a time", () => {
  const seed = Date.now() >>> 0;
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const body = "x".repeat(300);
  const chunks = `64;ext=1\r\n${"x".repeat(100)}\r\nC8\r\n${"x".repeat(200)}\r\n0\r\n`;
  for (let round = 0; round < 200; round++) {
    const options = { random };
    const byLength = parse(`HTTP/1.1 200 OK\r\nContent-Length: 300\r\nX: a\r\nx: b\r\n\r\n${body}HTTP/1.1`, options);
    assert.equal(byLength.body, body);
    assert.equal(byLength.head?.headers["x"], "a, b");
    assert.equal(byLength.head?.keepAlive, true);
    assert.equal(byLength.unused, "HTTP/1.1");
    const chunked = parse(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}\r\n`, options);
    assert.equal(chunked.body, body);
    assert.deepEqual({ ...chunked.trailers }, {});
    const trailed = parse(
      `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}X-Sum: 7\r\nY: z\r\n\r\n`,
      options,
    );
    assert.equal(trailed.body, body);
    assert.deepEqual({ ...trailed.trailers }, { "x-sum": "7", y: "z" });
    const closed = parse(`HTTP/1.0 200 OK\r\n\r\n${body}`, { random, close: true });
    assert.equal(closed.body, body);
    assert.equal(closed.head?.keepAlive, false);
    const interim = parse(`HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n!`, options);
    assert.equal(interim.body, "!");
  }
});

test("HEAD, 204 and 304 have no body, whatever length they announce", () => {
  assert.equal(parse("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", { method: "HEAD" }).trailers !== undefined, true);
  assert.equal(parse("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nabcde").unused, "abcde");
  assert.equal(parse("HTTP/1.1 204 No Content\r\n\r\n").head?.keepAlive, true);
});

test("what ends before its announced end is unavailable, not a shorter body", () => {
  for (const text of [
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcd",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n",
    "HTTP/1.1 200 OK\r\ncontent-le",
    "",
  ]) {
    assert.throws(
      () => parse(text, { close: true }),
      (error) => isHeadpondError(error, "unavailable"),
      JSON.stringify(text),
    );
  }
});

test("what two sides could read differently is refused", () => {
  const ok = "HTTP/1.1 200 OK\r\n";
  for (const text of [
    "SSH-2.0-OpenSSH\r\n\r\n",
    "HTTP/2 200\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 101 Switching\r\n\r\n",
    `${ok}content-length: 5\r\ncontent-length: 6\r\n\r\n`,
    `${ok}content-length: -1\r\n\r\n`,
    `${ok}content-length: 5x\r\n\r\n`,
    `${ok}content-length : 5\r\n\r\n`,
    `${ok} folded: 5\r\n\r\n`,
    `${ok}transfer-encoding: gzip\r\n\r\n`,
    `${ok}x: a\nb: c\r\n\r\n`,
    `${ok}transfer-encoding: chunked\r\n\r\nxyz\r\n`,
    `${ok}transfer-encoding: chunked\r\n\r\n-5\r\n`,
    `${ok}transfer-encoding: chunked\r\n\r\n5\nabcde`,
    `${ok}transfer-encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n`,
    `${ok}transfer-encoding: chunked\r\n\r\n${"0".repeat(2000)}`,
    `${ok}x: ${"y".repeat(5000)}\r\n\r\n`,
  ]) {
    assert.throws(
      () => parse(text),
      (error) => isHeadpondError(error, "corrupt"),
      JSON.stringify(text.slice(0, 80)),
    );
  }
});

test("a response with both a length and chunks is read by chunks, and its connection not used again", () => {
  const both = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
  const { body, head } = parse(both);
  assert.equal(body, "a");
  assert.equal(head?.keepAlive, false);
});

test("random bytes never do worse than corrupt or unavailable", () => {
  const seed = Date.now() >>> 0;
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const valid = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nx: y\r\n\r\n";
  for (let round = 0; round < 3000; round++) {
    const bytes = Buffer.from(valid, "latin1");
    for (let flips = random.between(1, 4); flips > 0; flips--)
      bytes[random.between(0, bytes.length - 1)] = random.between(0, 255);
    try {
      parse(bytes.toString("latin1"), { close: true });
    } catch (error) {
      assert.ok(isHeadpondError(error, "corrupt", "unavailable"), String(error));
    }
  }
});
