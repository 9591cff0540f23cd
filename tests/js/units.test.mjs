// The parts of the page that need no page. Run by test_units.py with Node's own test runner.

import assert from "node:assert/strict";
import { test } from "node:test";

import { alert, failure, results, sketch, text } from "../../infertool/embedded/static/feed.mjs";
import { compile, FilterError } from "../../infertool/embedded/static/filter.mjs";
import { duration } from "../../infertool/embedded/static/format.mjs";
import { Kept, View } from "../../infertool/embedded/static/kept.mjs";
import { ceiling } from "../../infertool/embedded/static/plot.mjs";
import { Series } from "../../infertool/embedded/static/series.mjs";

const NOW = Date.parse("2026-11-25T12:00:00Z");
const odd = [undefined, null, 7, "text", [], {}, { prediction: 3, processing_ms: "x", completed_at: {}, request_id: [] }];

test("any payload becomes one record", () => {
  for (const payload of odd) {
    for (const record of [...results(payload, NOW), failure(payload, NOW)]) {
      assert.equal(typeof record.request, "string");
      assert.equal(record.atMs, NOW);
      assert.equal(record.ms, null);
    }
    assert.ok(["firing", "resolved"].includes(alert(payload, NOW).state));
  }
});

test("a batch is taken apart, and what is no batch is one result", () => {
  const batch = results({ results: [{ request_id: "a" }, null, 7] }, NOW);
  assert.deepEqual(batch.map((record) => record.request), ["a", "", ""]);
  assert.equal(results({ results: "none" }, NOW).length, 1);
});

test("times, classes and numbers are read where they are such", () => {
  const [record] = results(
    { request_id: 5, prediction: { value: 0.5, confidence: 2 }, processing_ms: -3, completed_at: "2026-01-01T00:00:00Z" },
    NOW,
  );
  assert.deepEqual(
    [record.request, record.class, record.confidence, record.ms, record.atMs],
    ["5", "0.5", 2, -3, Date.parse("2026-01-01T00:00:00Z")],
  );
  assert.equal(results({ prediction: "spam" }, NOW)[0].class, "spam");
});

test("a sketch is small, whatever it is of", () => {
  const deep = JSON.parse("[".repeat(50_000) + "]".repeat(50_000));
  const wide = Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`key ${n}`, n]));
  for (const huge of ["x".repeat(5_000_000), deep, wide, Array(100_000).fill("long ".repeat(100)), { ["k".repeat(1e6)]: 1 }]) {
    assert.ok(JSON.stringify(sketch(huge)).length < 12_000);
  }
  assert.equal(JSON.stringify(sketch({ a: [1, null, "b"] })), '{"a":[1,null,"b"]}');
});

test("a key __proto__ is a key", () => {
  const copied = sketch(JSON.parse('{"__proto__": {"polluted": 1}}'));
  assert.equal(copied.polluted, undefined);
  assert.equal(JSON.stringify(copied), '{"__proto__":{"polluted":1}}');
});

test("control characters and turns of direction are made visible", () => {
  assert.equal(text("\u001b[31m\u0000\u202eevil\u2066"), "␛[31m␀\ufffdevil\ufffd");
  assert.equal(text("שלום 👋"), "שלום 👋");
  assert.ok(text("x".repeat(1000)).length <= 301);
});

const RECORD = {
  kind: "result", request: "req-42", class: "A", confidence: 0.75, ms: 120, doc: { original_payload: { customer: 7, tags: ["Vip"] } },
};

for (const filter of [
  "", "   ", "42", "REQ", '"req-42"', "class=a", "class:A", "class!=B", "confidence<0.8", "confidence=0.75", "ms>=120 ms<=120",
  "-class=B", "-nothing", "original_payload.customer=7", "original_payload.tags.0=vip", "no.such.field!=1", "42 class=A ms<121",
  "-missing:x", "original_payload:customer",
]) {
  test(`matches: ${filter}`, () => assert.ok(compile(filter)(RECORD)));
}

for (const filter of [
  "43", "class=B", "-42", "confidence>0.75", "ms<120", "class>1", "no.such.field=1", "error:x", "42 class=B", "__proto__.x=1",
  "original_payload.tags.length=1", "original_payload.tags.7=vip", '"req 42"',
]) {
  test(`does not match: ${filter}`, () => assert.ok(!compile(filter)(RECORD)));
}

for (const filter of ["ms>", "ms>fast", "class=", '"open', 'class="', "confidence<0.8 ms>"]) {
  test(`is refused: ${filter}`, () => assert.throws(() => compile(filter), FilterError));
}

test("a gap always matches", () => assert.ok(compile("class=Z")({ kind: "gap" })));

test("what is kept is bounded, and the newest comes first", () => {
  const kept = new Kept(10);
  for (let number = 0; number < 5000; number += 1) kept.add({ number });
  assert.equal(kept.length, 10);
  assert.deepEqual([kept.newest(0).number, kept.newest(9).number], [4999, 4990]);
  assert.deepEqual(kept.toArray().map((record) => record.number), [4990, 4991, 4992, 4993, 4994, 4995, 4996, 4997, 4998, 4999]);
  assert.ok(kept.records.length < 2000);
});

const fill = (view, count) => {
  for (let n = 0; n < count; n += 1) view.add({ kind: "result", ms: n });
};

test("a pause loses nothing that is kept", () => {
  const view = new View(100);
  fill(view, 30);
  view.pause();
  fill(view, 50);
  assert.deepEqual([view.length, view.waiting, view.kept.length], [30, 50, 80]);
  view.filter((record) => record.ms < 10);
  assert.equal(view.length, 10);
  view.filter(() => true);
  view.takeAdded();
  view.resume();
  assert.deepEqual([view.length, view.waiting, view.takeAdded()], [80, 0, 50]);
});

test("matches that are no longer kept are no longer shown", () => {
  const view = new View(100);
  view.filter((record) => record.ms === 0);
  fill(view, 100);
  assert.equal(view.length, 1);
  view.add({ ms: 1 });
  assert.equal(view.length, 0);
});

test("rates and percentiles", () => {
  const series = new Series();
  for (let n = 0; n < 3000; n += 1) series.result(n % 100, 1000 + n);
  series.failure(1500);
  series.result(-5, 1500);
  series.result(1e300, 1500);
  assert.equal(series.rate(4000), 3003 / 3);
  const { p50, p99 } = series.latency(4000);
  assert.ok(p50 > 30 && p50 < 70 && p99 <= 99);
  const points = series.points(4000);
  assert.equal(points.length, 300);
  assert.deepEqual([points.at(-1).results, points.at(-3).failures, points.at(-4)], [1000, 1, undefined]);
  assert.equal(series.points(400_000).filter(Boolean).length, 0);
  assert.equal(series.buckets.size, 0);
});

test("round numbers and durations", () => {
  assert.deepEqual([0, 1, 3, 51, 200, 201].map(ceiling), [1, 1, 5, 100, 200, 500]);
  assert.deepEqual([-5, 59_000, 61_000, 3_720_000].map(duration), ["0 s", "59 s", "1 min", "1 h 2 min"]);
});
