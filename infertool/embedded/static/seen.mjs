// Tells the server which recorded events are on the screen, for the last span of their traces.

const RECORDED = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]?[13579bdf]$/;
// Of those drawn together: more say nothing new.
const MOST = 50;

export class Seen {
  #waiting = [];

  // Keeps the recorded ones among the documents of a payload, until they are drawn.
  arrived(payload, nowMs) {
    const documents = Array.isArray(payload?.results) ? payload.results : [payload];
    for (const document of documents) {
      if (this.#waiting.length === MOST) return;
      const { traceparent, event_id } = document ?? {};
      if (typeof traceparent === "string" && RECORDED.test(traceparent)) {
        this.#waiting.push({ traceparent, event_id, atMs: nowMs });
      }
    }
  }

  // Returns what to say of those that were drawn: how long after their arrival.
  drawn(nowMs) {
    const drawn = this.#waiting;
    this.#waiting = [];
    return drawn.map(({ traceparent, event_id, atMs }) => ({ traceparent, event_id, after_ms: nowMs - atMs }));
  }
}
