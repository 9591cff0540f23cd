// The socket and its two channels, through Phoenix's own client. It tries again by itself, for as long as it takes.

import { Socket } from "./vendor/phoenix.mjs";

const SOCKET_PATH = "/socket";
const HEARTBEAT_MS = 15000;
// Viewers are back before publishers (infertool/phoenix/schedule.py), or they would miss what comes first.
const RECONNECT_MS = [10, 50, 100, 150, 200, 250, 500, 1000];

// Calls `onState` with connecting, connected, disconnected or refused, and a few words; `on` is by topic and event.
export function connect({ on, onState }) {
  const socket = new Socket(SOCKET_PATH, {
    heartbeatIntervalMs: HEARTBEAT_MS,
    reconnectAfterMs: (tries) => RECONNECT_MS[Math.min(tries, RECONNECT_MS.length) - 1],
  });
  const joined = new Set();
  const topics = Object.keys(on);
  const lost = (...those) => {
    those.forEach((topic) => joined.delete(topic));
    onState("disconnected", "disconnected, trying again");
  };
  socket.onClose(() => lost(...topics));
  socket.onError(() => lost(...topics));
  for (const topic of topics) {
    const channel = socket.channel(topic);
    for (const [event, handle] of Object.entries(on[topic])) channel.on(event, handle);
    channel.onError(() => lost(topic));
    channel
      .join()
      .receive("ok", () => {
        joined.add(topic);
        if (joined.size === topics.length) onState("connected", "connected");
      })
      .receive("error", (response) => onState("refused", `${topic} refused: ${response?.reason ?? "no reason given"}`));
  }
  socket.connect();
}
